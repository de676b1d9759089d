//go:build linux

package soak

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"
)

// Sizes of the graph, in the units of SVG, which are pixels at first.
const (
	graphWidth   = 960.0
	graphLeft    = 70.0
	graphRight   = 20.0
	graphTop     = 86.0
	panelHeight  = 220.0
	panelGap     = 62.0
	graphBottom  = 56.0
	maxPerLine   = 600 // points; more cannot be told apart
	ticksOnAxis  = 6
	bytesPerMiB  = 1 << 20
	labelOverTop = 12.0
)

// colours can be told apart by people who see colours differently (Okabe and Ito).
func colours() []string {
	return []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9"}
}

// A panel is one diagram of the graph.
type panel struct {
	title string
	value func(Sample) float64
	top   float64
	most  float64 // at the upper end of the axis
	step  float64 // between its ticks
}

// Graph writes an SVG image with a line for each process: its memory, and below it its goroutines.
func (r *Report) Graph(w io.Writer) error {
	panels := []*panel{
		{title: "Resident memory (MiB)", value: func(s Sample) float64 { return float64(s.RSSBytes) / bytesPerMiB }},
		{title: "Heap in use after garbage collection (MiB)", value: func(s Sample) float64 { return float64(s.HeapBytes) / bytesPerMiB }},
		{title: "Goroutines", value: func(s Sample) float64 { return float64(s.Goroutines) }},
	}
	height := graphTop + float64(len(panels))*(panelHeight+panelGap) - panelGap + graphBottom
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="13">`+"\n", graphWidth, height)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="white"/>`+"\n", graphWidth, height)
	fmt.Fprintf(&b, `<text x="%g" y="22" font-size="16" font-weight="bold">%s</text>`+"\n", graphLeft,
		html.EscapeString(fmt.Sprintf("%d processes, %.4g minutes of random faults, %d events/s of %d bytes", r.Instances, r.Faulty.Minutes(), eventRate, eventBytes)))
	r.legend(&b)
	last := r.Faulty
	for _, s := range r.Samples {
		last = max(last, s.At)
	}
	for i, p := range panels {
		p.top = graphTop + float64(i)*(panelHeight+panelGap)
		for _, s := range r.Samples {
			p.most = max(p.most, p.value(s))
		}
		p.most, p.step = axis(p.most)
		p.frame(&b, last, i == len(panels)-1)
		r.lines(&b, p, last)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) legend(b *strings.Builder) {
	x := graphLeft
	for i := range r.Instances {
		name := fmt.Sprintf("instance %d", i)
		if i < r.Spared {
			name += " (never killed)"
		}
		fmt.Fprintf(b, `<line x1="%g" y1="42" x2="%g" y2="42" stroke="%s" stroke-width="3"/><text x="%g" y="46">%s</text>`+"\n",
			x, x+22, colours()[i%len(colours())], x+28, name)
		x += 50 + 7.2*float64(len(name))
	}
}

// axis returns a round number that is most or more, and the distance of ticks up to it.
func axis(most float64) (end, step float64) {
	if most <= 0 {
		return 1, 1
	}
	size := math.Pow(10, math.Floor(math.Log10(most/ticksOnAxis)))
	for _, f := range []float64{1, 2, 5, 10} {
		if step = f * size; most/step <= ticksOnAxis {
			break
		}
	}
	return math.Ceil(most/step) * step, step
}

func (p *panel) x(at, last time.Duration) float64 {
	return graphLeft + (graphWidth-graphLeft-graphRight)*float64(at)/float64(last)
}

func (p *panel) y(v float64) float64 { return p.top + panelHeight*(1-v/p.most) }

// frame draws the axes with their ticks and units.
func (p *panel) frame(b *strings.Builder, last time.Duration, lowest bool) {
	bottom, right := p.top+panelHeight, graphWidth-graphRight
	fmt.Fprintf(b, `<text x="%g" y="%g" font-weight="bold">%s</text>`+"\n", graphLeft, p.top-labelOverTop, p.title)
	for v := 0.0; v <= p.most+p.step/2; v += p.step {
		fmt.Fprintf(b, `<line x1="%g" y1="%.1f" x2="%g" y2="%.1f" stroke="#ddd"/><text x="%g" y="%.1f" text-anchor="end">%g</text>`+"\n",
			graphLeft, p.y(v), right, p.y(v), graphLeft-8, p.y(v)+4, v)
	}
	minutes, step := last.Minutes(), 1.0
	if minutes > 0 {
		_, step = axis(minutes)
	}
	for m := 0.0; m <= minutes; m += step {
		x := p.x(time.Duration(m*float64(time.Minute)), last)
		fmt.Fprintf(b, `<line x1="%.1f" y1="%g" x2="%.1f" y2="%g" stroke="#888"/><text x="%.1f" y="%g" text-anchor="middle">%g</text>`+"\n",
			x, bottom, x, bottom+5, x, bottom+19, m)
	}
	fmt.Fprintf(b, `<path d="M%g %gV%gH%g" fill="none" stroke="#444"/>`+"\n", graphLeft, p.top, bottom, right)
	if lowest {
		fmt.Fprintf(b, `<text x="%g" y="%g" text-anchor="middle">Time (minutes). A gap is a process that was stopped or killed.</text>`+"\n", (graphLeft+right)/2, bottom+42)
	}
}

// lines draws a line for each instance, which breaks where there was no process or
// another one began.
func (r *Report) lines(b *strings.Builder, p *panel, last time.Duration) {
	const longestPause = 3 * sampleEvery
	every := max(1, len(r.Samples)/max(r.Instances, 1)/maxPerLine)
	for i := r.Instances - 1; i >= 0; i-- { // the first on top
		var path strings.Builder
		var before Sample
		n := 0
		for _, s := range r.Samples {
			if s.Instance != i {
				continue
			}
			broken := before.PID != s.PID || s.At-before.At > longestPause
			if n++; n%every != 0 && !broken {
				before = s
				continue
			}
			command := "L"
			if broken {
				command = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", command, p.x(s.At, last), p.y(p.value(s)))
			before = s
		}
		if path.Len() > 0 {
			fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", path.String(), colours()[i%len(colours())])
		}
	}
}
