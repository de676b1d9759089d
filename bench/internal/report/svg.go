// Package report writes measurements as plots and as tables between marks in a page.
package report

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Sizes in the units of SVG, which are pixels at first.
const (
	width     = 960.0
	top       = 64.0
	rowHeight = 22.0
	labels    = 190.0 // for the names at the left
	margin    = 24.0
	axisRoom  = 46.0 // below a panel, for its axis
	gap       = 40.0 // between panels
)

// colours can be told apart by people who see colours differently (Okabe and Ito).
func colours() []string {
	return []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}
}

// A Kind is what a system is to us; it has a colour of its own.
type Kind int

// The kinds, in the order of the legend.
const (
	Own Kind = iota
	Opponent
	Limit
)

func (k Kind) colour() string { return [...]string{"#0072b2", "#8a8f98", "#e3c18b"}[k] }

func (k Kind) String() string {
	return [...]string{"Carillon", "others", "limit: sockets alone"}[k]
}

// A picture is an SVG image that is being drawn.
type picture struct{ strings.Builder }

func newPicture(title string, height float64) *picture {
	p := &picture{}
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(p, `<rect width="%g" height="%g" fill="white"/>`+"\n", width, height)
	p.text(margin, 26, "start", title, `font-size="16" font-weight="bold"`)
	return p
}

func (p *picture) text(x, y float64, anchor, text, more string) {
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`+"\n", x, y, anchor, more, html.EscapeString(text))
}

func (p *picture) line(x1, y1, x2, y2 float64, stroke string, thick float64) {
	fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g"/>`+"\n", x1, y1, x2, y2, stroke, thick)
}

func (p *picture) rect(x, y, w, h float64, fill string) {
	fmt.Fprintf(p, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, max(w, 0), h, fill)
}

func (p *picture) dot(x, y float64, fill string) {
	fmt.Fprintf(p, `<circle cx="%.1f" cy="%.1f" r="4.5" fill="%s"/>`+"\n", x, y, fill)
}

// legend names colours, side by side.
func (p *picture) legend(names, fills []string) {
	x := margin
	for i, name := range names {
		p.rect(x, 38, 12, 12, fills[i])
		p.text(x+18, 49, "start", name, "")
		x += 44 + 7*float64(len(name))
	}
}

func (p *picture) writeTo(w io.Writer) error {
	p.WriteString("</svg>\n")
	_, err := io.WriteString(w, p.String())
	return err
}

// A logScale maps values to places, a power of ten to the same distance everywhere.
type logScale struct{ low, high, from, to float64 } // of low and high, which are powers of ten

// newLogScale returns a scale on which all values that are above 0 have room.
func newLogScale(values []float64, from, to float64) logScale {
	s := logScale{math.Inf(1), math.Inf(-1), from, to}
	for _, v := range values {
		if v > 0 {
			s.low, s.high = min(s.low, v), max(s.high, v)
		}
	}
	if s.high < s.low { // nothing to show
		s.low, s.high = 1, 10
	}
	s.low = math.Pow(10, math.Floor(math.Log10(s.low)))
	s.high = max(math.Pow(10, math.Ceil(math.Log10(s.high))), 10*s.low)
	return s
}

func (s logScale) at(v float64) float64 {
	v = min(max(v, s.low), s.high)
	return s.from + (s.to-s.from)*(math.Log10(v)-math.Log10(s.low))/(math.Log10(s.high)-math.Log10(s.low))
}

func (p *picture) logAxis(s logScale, top, bottom float64, unit string) {
	for v := s.low; v <= s.high*1.001; v *= 10 {
		p.line(s.at(v), top, s.at(v), bottom, "#ddd", 1)
		p.text(s.at(v), bottom+16, "middle", short(v), `fill="#444"`)
	}
	p.text((s.from+s.to)/2, bottom+34, "middle", unit, `fill="#444"`)
}

// short writes a number with few characters: 2.4M, 150k, 0.12.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return trim(v/1e6) + "M"
	case v >= 1e3:
		return trim(v/1e3) + "k"
	}
	return trim(v)
}

func trim(v float64) string {
	digits := 2
	switch {
	case v >= 100:
		digits = 0
	case v >= 10:
		digits = 1
	case v < 0.01:
		digits = 4
	}
	text := fmt.Sprintf("%.*f", digits, v)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

// A Bar is one system's figure. Value 0: there is none, and Note says why.
type Bar struct {
	Name            string
	Kind            Kind
	Value, Min, Max float64
	Note            string
}

// A Panel is a group of bars under one heading.
type Panel struct {
	Title string
	Bars  []Bar
}

// Bars draws panels one below the other, on one logarithmic scale, with the range from the smallest to
// the largest round on each bar.
func Bars(w io.Writer, title, unit string, panels []Panel) error {
	height := top
	var values []float64
	for _, p := range panels {
		height += rowHeight*float64(len(p.Bars)) + axisRoom + gap
		for _, b := range p.Bars {
			values = append(values, b.Value, b.Min, b.Max)
		}
	}
	p := newPicture(title, height)
	p.legend([]string{Own.String(), Opponent.String(), Limit.String()}, []string{Own.colour(), Opponent.colour(), Limit.colour()})
	scale := newLogScale(values, labels, width-margin-60)
	y := top
	for _, panel := range panels {
		p.text(margin, y+22, "start", panel.Title, `font-weight="bold"`)
		y += gap - 8
		bottom := y + rowHeight*float64(len(panel.Bars))
		p.logAxis(scale, y, bottom, unit)
		for _, b := range panel.Bars {
			p.text(labels-8, y+15, "end", b.Name, "")
			if b.Value > 0 {
				p.rect(labels, y+4, scale.at(b.Value)-labels, rowHeight-8, b.Kind.colour())
				p.line(scale.at(b.Min), y+rowHeight/2, scale.at(b.Max), y+rowHeight/2, "#222", 1.5)
				p.text(max(scale.at(b.Value), scale.at(b.Max))+6, y+15, "start", short(b.Value), "")
			} else {
				p.text(labels+6, y+15, "start", b.Note, `fill="#666" font-style="italic"`)
			}
			y += rowHeight
		}
		y += axisRoom + 8
	}
	return p.writeTo(w)
}

// A Row is one system's percentiles, in the order of the names given to Dots.
type Row struct {
	Name   string
	Values []float64
}

// Dots draws a row of dots for each system on a logarithmic scale.
func Dots(w io.Writer, title, unit string, names []string, rows []Row) error {
	var values []float64
	for _, r := range rows {
		values = append(values, r.Values...)
	}
	p := newPicture(title, top+rowHeight*float64(len(rows))+axisRoom+8)
	p.legend(names, colours())
	scale := newLogScale(values, labels, width-margin)
	bottom := top + rowHeight*float64(len(rows))
	p.logAxis(scale, top, bottom, unit)
	for i, r := range rows {
		y := top + rowHeight*(float64(i)+0.5)
		p.text(labels-8, y+4, "end", r.Name, "")
		if len(r.Values) == 0 {
			continue
		}
		p.line(scale.at(r.Values[0]), y, scale.at(r.Values[len(r.Values)-1]), y, "#bbb", 2)
		for j, v := range r.Values {
			p.dot(scale.at(v), y, colours()[j%len(colours())])
		}
	}
	return p.writeTo(w)
}

// A Series is a line through points.
type Series struct {
	Name string
	X, Y []float64
}

// Lines draws series on linear scales from 0.
func Lines(w io.Writer, title, xUnit, yUnit string, all []Series) error {
	const left, panel = 70.0, 320.0
	var mostX, mostY float64
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
		for i := range s.X {
			mostX, mostY = max(mostX, s.X[i]), max(mostY, s.Y[i])
		}
	}
	endX, stepX := axis(mostX)
	endY, stepY := axis(mostY)
	p := newPicture(title, top+20+panel+axisRoom+8)
	p.legend(names, colours())
	bottom := top + 20 + panel
	atX := func(v float64) float64 { return left + (width-left-margin)*v/endX }
	atY := func(v float64) float64 { return bottom - panel*v/endY }
	p.text(margin, top+6, "start", yUnit, `fill="#444"`)
	for v := 0.0; v <= endY*1.001; v += stepY {
		p.line(left, atY(v), width-margin, atY(v), "#ddd", 1)
		p.text(left-8, atY(v)+4, "end", short(v), `fill="#444"`)
	}
	for v := 0.0; v <= endX*1.001; v += stepX {
		p.line(atX(v), bottom, atX(v), bottom+5, "#888", 1)
		p.text(atX(v), bottom+19, "middle", short(v), `fill="#444"`)
	}
	p.text((left+width-margin)/2, bottom+38, "middle", xUnit, `fill="#444"`)
	for i, s := range all {
		colour := colours()[i%len(colours())]
		for j := range s.X {
			if j > 0 {
				p.line(atX(s.X[j-1]), atY(s.Y[j-1]), atX(s.X[j]), atY(s.Y[j]), colour, 2)
			}
			p.dot(atX(s.X[j]), atY(s.Y[j]), colour)
		}
	}
	return p.writeTo(w)
}

// axis returns a round number that is most or more, and the distance of ticks up to it.
func axis(most float64) (end, step float64) {
	const ticks = 8
	if most <= 0 {
		return 1, 1
	}
	size := math.Pow(10, math.Floor(math.Log10(most/ticks)))
	for _, f := range []float64{1, 2, 5, 10} {
		if step = f * size; most/step <= ticks {
			break
		}
	}
	return math.Ceil(most/step) * step, step
}
