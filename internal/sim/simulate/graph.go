package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/carillon-go/carillon/internal/sim"
)

// Sizes of the image, in the units of SVG, which are pixels at first.
const (
	imageWidth  = 980.0
	imageTop    = 70.0
	panelWidth  = 400.0
	panelHeight = 230.0
	panelLeft   = 66.0
	panelStepX  = 488.0
	panelStepY  = 316.0
)

// A curve is a line of a panel.
type curve struct {
	network string
	value   func(*sim.Growth) float64 // 0: no point
	dashes  string
}

// A panel is one diagram, with logarithmic axes.
type panel struct {
	title  string
	curves []curve
}

// lineColours can be told apart by people who see colours differently (Okabe and Ito).
func lineColours() map[string]string {
	return map[string]string{"udp": "#0072b2", "tcp": "#d55e00", "broker": "#009e73"}
}

// inPhase makes a value of a phase; networks that do not have it have no point.
func inPhase(name string, value func(*sim.Growth, *sim.GrowthPhase) float64) func(*sim.Growth) float64 {
	return func(g *sim.Growth) float64 {
		if p := g.Phase(name); p != nil {
			return value(g, p)
		}
		return 0
	}
}

func onAll(value func(*sim.Growth) float64) (curves []curve) {
	for _, network := range sim.GrowthNetworks() {
		curves = append(curves, curve{network: network, value: value})
	}
	return curves
}

func growthPanels() []panel {
	var lossy []curve
	for i, l := range losses() {
		lossy = append(lossy, curve{"udp", inPhase(l[0], func(_ *sim.Growth, p *sim.GrowthPhase) float64 {
			return float64(quantile(p.Repaired, 0.99).Microseconds()) / 1000
		}), []string{"", "7 4", "2 3", "9 3 2 3"}[i]})
	}
	return []panel{
		{"Idle: frames heard by each, per second", onAll(inPhase("idle", func(g *sim.Growth, p *sim.GrowthPhase) float64 { return rate(g, p, frames(&p.Received)) }))},
		{"One sends 100 events/s: frames it sends, per second", onAll(inPhase("one", func(_ *sim.Growth, p *sim.GrowthPhase) float64 {
			return float64(frames(&p.SenderSent)+frames(&p.SenderSent, sim.KindData, sim.KindRepair)) / p.Length.Seconds()
		}))},
		{"Each sends 0.2 events/s: kB heard by each, per second", onAll(inPhase("all", func(g *sim.Growth, p *sim.GrowthPhase) float64 { return rate(g, p, allBytes(&p.Received)) / 1000 }))},
		{"All start at once: kB heard by each, in all", onAll(inPhase("start", func(g *sim.Growth, p *sim.GrowthPhase) float64 {
			return float64(allBytes(&p.Received)) / float64(g.Instances) / 1000
		}))},
		{"One joins: in step after, ms", onAll(inPhase("join", func(_ *sim.Growth, p *sim.GrowthPhase) float64 {
			return float64(quantile(p.InStep, 1).Microseconds()) / 1000
		}))},
		{"UDP with losses: 99 % repaired within, ms", lossy},
	}
}

// growthGraph returns an SVG image.
func growthGraph(all []sim.Growth) string {
	panels := growthPanels()
	height := imageTop + panelStepY*float64((len(panels)+1)/2)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="13">`+"\n", imageWidth, height)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="white"/>`+"\n", imageWidth, height)
	x := panelLeft
	for _, n := range []struct{ network, name string }{{"udp", "UDP, one datagram for all"}, {"tcp", "TCP, a connection to each"}, {"broker", "message broker"}} {
		fmt.Fprintf(&b, `<line x1="%g" y1="20" x2="%g" y2="20" stroke="%s" stroke-width="3"/><text x="%g" y="24">%s</text>`+"\n", x, x+24, lineColours()[n.network], x+30, n.name)
		x += 60 + 7*float64(len(n.name))
	}
	for i, p := range panels {
		p.draw(&b, all, panelLeft+panelStepX*float64(i%2), imageTop+panelStepY*float64(i/2))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// points returns what a curve goes through, by instances.
func (c *curve) points(all []sim.Growth) (list [][2]float64) {
	for i := range all {
		if g := &all[i]; g.Network == c.network && c.value(g) > 0 {
			list = append(list, [2]float64{float64(g.Instances), c.value(g)})
		}
	}
	slices.SortFunc(list, func(a, b [2]float64) int { return int(a[0] - b[0]) })
	return list
}

func (p *panel) draw(b *strings.Builder, all []sim.Growth, left, top float64) {
	lowX, highX, lowY, highY := math.Inf(1), 0.0, math.Inf(1), 0.0
	sizes := map[float64]bool{}
	for _, c := range p.curves {
		for _, at := range c.points(all) {
			sizes[at[0]] = true
			lowX, highX = min(lowX, at[0]), max(highX, at[0])
			lowY, highY = min(lowY, at[1]), max(highY, at[1])
		}
	}
	fmt.Fprintf(b, `<text x="%g" y="%g" font-weight="bold">%s</text>`+"\n", left, top-14, p.title)
	if highX == 0 {
		return
	}
	lowY, highY = math.Floor(math.Log10(lowY)), math.Ceil(math.Log10(highY))
	if highY == lowY {
		highY++
	}
	lowX, highX = math.Log2(lowX), max(math.Log2(highX), math.Log2(lowX)+1)
	x := func(v float64) float64 { return left + panelWidth*(math.Log2(v)-lowX)/(highX-lowX) }
	y := func(v float64) float64 { return top + panelHeight*(1-(math.Log10(v)-lowY)/(highY-lowY)) }
	for e := lowY; e <= highY; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(b, `<line x1="%g" y1="%.1f" x2="%g" y2="%.1f" stroke="#ddd"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, y(v), left+panelWidth, y(v), left-8, y(v)+4, tick(v))
	}
	for _, v := range slices.Sorted(maps.Keys(sizes)) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%g" x2="%.1f" y2="%g" stroke="#888"/><text x="%.1f" y="%g" text-anchor="middle">%g</text>`+"\n",
			x(v), top+panelHeight, x(v), top+panelHeight+5, x(v), top+panelHeight+19, v)
	}
	fmt.Fprintf(b, `<path d="M%g %gV%gH%g" fill="none" stroke="#444"/>`+"\n", left, top, top+panelHeight, left+panelWidth)
	fmt.Fprintf(b, `<text x="%g" y="%g" text-anchor="middle">instances</text>`+"\n", left+panelWidth/2, top+panelHeight+38)
	for i, c := range p.curves {
		p.line(b, c, c.points(all), x, y)
		if c.dashes != "" || len(p.curves) > 3 {
			p.key(b, i, c, left, top)
		}
	}
}

func (p *panel) line(b *strings.Builder, c curve, points [][2]float64, x, y func(float64) float64) {
	var path strings.Builder
	for i, at := range points {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", command, x(at[0]), y(at[1]))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`+"\n", x(at[0]), y(at[1]), lineColours()[c.network])
	}
	if path.Len() > 0 {
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.8" stroke-dasharray="%s"/>`+"\n", path.String(), lineColours()[c.network], c.dashes)
	}
}

// key names a curve within its panel.
func (p *panel) key(b *strings.Builder, i int, c curve, left, top float64) {
	x, y := left+panelWidth-150, top+8+17*float64(i)
	fmt.Fprintf(b, `<line x1="%g" y1="%g" x2="%g" y2="%g" stroke="%s" stroke-width="1.8" stroke-dasharray="%s"/><text x="%g" y="%g">%s</text>`+"\n",
		x, y, x+34, y, lineColours()[c.network], c.dashes, x+42, y+4, losses()[i][1])
}

func tick(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%g,000", v/1000)
	}
	return fmt.Sprintf("%g", v)
}
