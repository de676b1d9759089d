//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/report"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// kindOf says what a system is to us, by its name.
func kindOf(name string) report.Kind {
	switch {
	case strings.HasPrefix(name, "limit-"):
		return report.Limit
	case strings.Contains(name, "bus"):
		return report.Own
	}
	return report.Opponent
}

// cells returns those of the plan, in the order in which they are read: small events first, then by subscribers.
func (p plan) cells() []cell {
	var all []cell
	for _, c := range []cell{{1, 128}, n3, n8, n3large} {
		if len(p.in(c)) > 0 {
			all = append(all, c)
		}
	}
	return all
}

// in returns the systems that the plan measures in a cell, in the order of the list of systems.
func (p plan) in(c cell) []string {
	var names []string
	for _, s := range systems() {
		for _, pr := range p.probes {
			if pr.place == (place{c, s.Name}) {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// trouble says in a word why there is no figure.
func trouble(err error) string {
	switch {
	case err == nil:
		return "-"
	case errors.Is(err, system.ErrMissing):
		return "not on this machine"
	case errors.As(err, new(*harness.LossError)):
		return "lost events"
	}
	return "failed"
}

func bars(p plan, r *results, c cell, m metric) report.Panel {
	panel := report.Panel{Title: fmt.Sprintf("%d B, %d %s", c.Size, c.Subscribers, plural(c.Subscribers, "subscriber"))}
	for _, name := range p.in(c) {
		s, err := r.summary(m, place{c, name})
		b := report.Bar{Name: name, Kind: kindOf(name), Value: s.Median, Min: s.Min, Max: s.Max, Note: trouble(err)}
		if err != nil && s.Rounds > 0 {
			b.Name += " *"
		}
		panel.Bars = append(panel.Bars, b)
	}
	return panel
}

// remark explains the star at a name, if there is one.
func remark(panels []report.Panel) string {
	for _, p := range panels {
		for _, b := range p.Bars {
			if strings.HasSuffix(b.Name, "*") {
				return " (* not in every round: see the table)"
			}
		}
	}
	return ""
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func drawThroughput(w io.Writer, p plan, r *results) error {
	var panels []report.Panel
	for _, c := range p.cells() {
		panels = append(panels, bars(p, r, c, perSecond))
	}
	return report.Bars(w, "Throughput: every event delivered to every subscriber"+remark(panels), "events a second, logarithmic", panels)
}

func drawCPU(w io.Writer, p plan, r *results) error {
	panels := []report.Panel{bars(p, r, n3, cpu)}
	return report.Bars(w, "Processor time of all processes together"+remark(panels), "µs for one delivery, logarithmic", panels)
}

func drawLatency(w io.Writer, p plan, r *results) error {
	var rows []report.Row
	for _, name := range p.in(n3) {
		row := report.Row{Name: name}
		for _, m := range percentiles {
			if s, _ := r.summary(m.of, place{n3, name}); s.Median > 0 {
				row.Values = append(row.Values, s.Median)
			}
		}
		if len(row.Values) > 0 {
			rows = append(rows, row)
		}
	}
	var names []string
	for _, m := range percentiles {
		names = append(names, m.name)
	}
	title := fmt.Sprintf("Latency at %d events a second, %d B, %d subscribers", pacedRate, n3.Size, n3.Subscribers)
	return report.Dots(w, title, "µs from when the event was due, logarithmic", names, rows)
}

// percentiles are those of a paced phase.
var percentiles = []struct {
	name string
	of   metric
}{
	{"p50", func(s sample) float64 { return s.Paced.P50 }},
	{"p90", func(s sample) float64 { return s.Paced.P90 }},
	{"p99", func(s sample) float64 { return s.Paced.P99 }},
	{"p99.9", func(s sample) float64 { return s.Paced.P999 }},
}

func drawGrowth(w io.Writer, p plan, r *results) error {
	var all []report.Series
	for _, name := range p.growthOf {
		s := report.Series{Name: name}
		for _, g := range r.growth[name] {
			s.X, s.Y = append(s.X, float64(g.Instances)), append(s.Y, g.SenderCPU.Median)
		}
		all = append(all, s)
	}
	title := fmt.Sprintf("Growth: what one event costs its sender at %d a second", growthRate)
	return report.Lines(w, title, "instances", "processor time, µs", all)
}
