//go:build linux

package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/machine"
	"github.com/carillon-go/carillon/bench/internal/report"
	"github.com/carillon-go/carillon/bench/internal/stat"
)

// marks is the name of those in docs/performance.md between which everything is written.
const marks = "figures"

// pageOf writes everything measured as Markdown.
func pageOf(p plan, r *results, began time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s on %s: medians of %d interleaved rounds, with the smallest and the largest. Written by `make bench`.\n\n",
		began.UTC().Format(time.DateOnly), machine.Describe(), p.rounds)
	section := func(title, text string, table string) {
		fmt.Fprintf(&b, "### %s\n\n", title)
		if text != "" {
			fmt.Fprintf(&b, "%s\n\n", text)
		}
		fmt.Fprintf(&b, "%s\n", table)
	}
	section("Goals", "", goalTable(r))
	section("Throughput", "![Throughput](images/bench-throughput.svg)\n\nEvents a second to each subscriber.", throughputTable(p, r))
	section("Processor time and memory", "![Processor time for one delivery](images/bench-cpu.svg)\n\n"+
		fmt.Sprintf("At full speed, %v. Memory is the most that was resident, without pages of files; what processes of a server share counts for each of them.", n3), costTable(p, r))
	section("On message brokers", fmt.Sprintf("Each transport on a server beside the client that it uses, at full speed, %v: how many times its events a second, and how much of its processor time for one delivery, with the server's. Batches pay "+
		"where a message is dear; where the client packs by itself, as Kafka's does, there is less to gain.", n3), guestTable(r))
	section("Latency", fmt.Sprintf("![Latency](images/bench-latency.svg)\n\nOpen loop of %d events a second, %v, in µs.", pacedRate, n3), latencyTable(p, r))
	section("Latency at half of the maximum load", "At half of what tcpbus delivers at most, in µs.", halfTable(p, r))
	section("Raise within one process", "Pointer parameter, panics caught, against a bare look-up and call loop.", localTable(r))
	section("Start", fmt.Sprintf("From exec to the first event delivered at %d running peers: SQLite, TCP, in ms.", startPeers), startTable(r))
	section("Idle", fmt.Sprintf("%d instances over TCP, each with %d peers, nothing raised for %v.", idlePeers+1, idlePeers, p.idleFor), idleTable(r))
	section("Growth", fmt.Sprintf("![Growth](images/bench-growth.svg)\n\nProcessor time of the sender for one event, in µs, at %d events a second. On the loopback interface the kernel "+
		"hands a multicast datagram to every receiver at the sender's cost, as limit-udp shows; in a network it does not.", growthRate), growthTable(p, r))
	section("What was measured", "", systemTable(p, r))
	return b.String()
}

var signs = strings.NewReplacer(">=", "≥ ", "<=", "≤ ")

func goalTable(r *results) string {
	var rows [][]string
	for _, g := range goals {
		v := g.judge(r)
		stands := "short"
		switch {
		case v.ok() && !math.IsNaN(v.stretch) && v.reaches(v.stretch):
			stands = "ok, and the stretch"
		case math.IsNaN(v.must):
			stands = "below the stretch"
		case v.ok():
			stands = "ok"
		}
		value := v.value()
		if v.err == nil && v.Rounds > 1 {
			value = ranged(v.Summary)
		}
		rows = append(rows, []string{"`" + v.name + "`", v.measured, value, signs.Replace(v.bound(v.must)), signs.Replace(v.bound(v.stretch)), stands})
	}
	return report.Table([]string{"goal", "what", "measured", "must", "stretch", "stands"}, rows)
}

// ranged writes a median with the smallest and the largest.
func ranged(s stat.Summary) string {
	if s.Rounds == 0 {
		return "-"
	}
	if s.Rounds == 1 {
		return grouped(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", grouped(s.Median), grouped(s.Min), grouped(s.Max))
}

// grouped is figure with thousands set apart, as in 1,234,000: of large numbers three digits say something.
func grouped(f float64) string {
	if f < 1000 {
		return figure(f)
	}
	unit := math.Pow(10, math.Floor(math.Log10(f))-2)
	text := fmt.Sprintf("%.0f", math.Round(f/unit)*unit)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// column writes a metric at a place: its summary, or why there is none.
func column(r *results, m metric, p place) string {
	s, err := r.summary(m, p)
	if s.Rounds == 0 || s.Median == 0 {
		return trouble(err)
	}
	return ranged(s)
}

func throughputTable(p plan, r *results) string {
	cells := p.cells()
	head := []string{"system"}
	for _, c := range cells {
		head = append(head, c.String())
	}
	var rows [][]string
	for _, s := range systems() {
		row, any := []string{s.Name}, false
		for _, c := range cells {
			at := place{c, s.Name}
			if r.rounds(at) == 0 {
				row = append(row, "")
				continue
			}
			text := column(r, perSecond, at)
			if s, err := r.summary(perSecond, at); err != nil && s.Rounds > 0 {
				text += fmt.Sprintf("; %s in %d of %d rounds", trouble(err), r.rounds(at)-s.Rounds, r.rounds(at))
			}
			row, any = append(row, text), true
		}
		if any {
			rows = append(rows, row)
		}
	}
	return report.Table(head, rows)
}

func costTable(p plan, r *results) string {
	const mib = 1 << 20
	var rows [][]string
	for _, name := range p.in(n3) {
		at := place{n3, name}
		if s, _ := r.summary(perSecond, at); s.Rounds == 0 {
			continue
		}
		rows = append(rows, []string{
			name, column(r, cpu, at),
			column(r, func(s sample) float64 { return s.PublisherCPU }, at),
			column(r, func(s sample) float64 { return s.SubscriberCPU }, at),
			column(r, func(s sample) float64 { return s.ServerCPU }, at),
			column(r, func(s sample) float64 { return float64(s.Memory.Publisher) / mib }, at),
			column(r, func(s sample) float64 { return float64(s.Memory.Subscriber) / mib }, at),
			column(r, func(s sample) float64 { return float64(s.Memory.Server) / mib }, at),
		})
	}
	return report.Table([]string{"system", "CPU s per million deliveries", "publisher, µs/event", "subscriber, µs/event", "server, µs/event",
		"publisher, MiB", "subscriber, MiB", "server, MiB"}, rows)
}

func latencyTable(p plan, r *results) string {
	head := []string{"system"}
	for _, m := range percentiles {
		head = append(head, m.name)
	}
	var rows [][]string
	for _, name := range p.in(n3) {
		row := []string{name}
		for _, m := range percentiles {
			row = append(row, column(r, m.of, place{n3, name}))
		}
		rows = append(rows, row)
	}
	return report.Table(head, rows)
}

func guestTable(r *results) string {
	var rows [][]string
	for _, g := range guests {
		bare := bareClients[g.Name]
		row := []string{g.Name, bare}
		for _, m := range []metric{perSecond, cpu} {
			ratio, err := r.ratio(m, n3, g.Name, bare)
			if err != nil {
				row = append(row, column(r, m, place{n3, g.Name}), column(r, m, place{n3, bare}), trouble(err))
				continue
			}
			row = append(row, column(r, m, place{n3, g.Name}), column(r, m, place{n3, bare}), ranged(ratio))
		}
		rows = append(rows, row)
	}
	return report.Table([]string{"transport", "client", "its events/s", "the client's", "ratio", "its µs a delivery", "the client's", "ratio"}, rows)
}

func halfTable(p plan, r *results) string {
	var rows [][]string
	for _, pr := range p.probes {
		if pr.halfOf == "" {
			continue
		}
		rows = append(rows, []string{
			pr.System,
			column(r, func(s sample) float64 { return s.HalfRate }, pr.place),
			column(r, func(s sample) float64 { return s.Half.P50 }, pr.place),
			column(r, func(s sample) float64 { return s.Half.P99 }, pr.place),
		})
	}
	return report.Table([]string{"system", "events/s", "p50", "p99"}, rows)
}

func localTable(r *results) string {
	var rows [][]string
	for _, l := range r.local {
		rows = append(rows, []string{
			fmt.Sprint(l.Subscribers), figure(l.Raise.Median), figure(l.Bare.Median), figure(l.Ratio.Median), figure(l.Allocations),
		})
	}
	return report.Table([]string{"subscribers", "raise, ns", "bare loop, ns", "ratio", "allocations"}, rows)
}

func startTable(r *results) string {
	var rows [][]string
	for _, part := range startParts(r.starts) {
		rows = append(rows, []string{part.name, ranged(part.Summary)})
	}
	if all, err := r.start(); err == nil {
		rows = append(rows, []string{"**all**", ranged(all)})
	}
	return report.Table([]string{"part", "ms"}, rows)
}

func idleTable(r *results) string {
	cpu, _ := r.idleOf(func(i harness.Idle) float64 { return 100 * i.CPU })
	memory, _ := r.idleOf(func(i harness.Idle) float64 { return float64(i.Resident) / (1 << 20) })
	return report.Table([]string{"for one instance", "median (smallest–largest)"}, [][]string{
		{"% of a core", ranged(cpu)}, {"MiB resident", ranged(memory)},
	})
}

func growthTable(p plan, r *results) string {
	head := []string{"system"}
	for _, n := range p.growth {
		head = append(head, fmt.Sprintf("%d instances", n))
	}
	head = append(head, "line through them")
	var rows [][]string
	for _, name := range p.growthOf {
		row := []string{name}
		for _, n := range p.growth {
			text := "-"
			for _, g := range r.growth[name] {
				if g.Instances == n {
					text = ranged(g.SenderCPU)
				}
			}
			row = append(row, text)
		}
		text := "-"
		if l, err := r.line(name); err == nil {
			text = fmt.Sprintf("%s + %s for each other instance, R² %s", figure(l.Start), figure(l.Slope), figure(l.R2))
		}
		rows = append(rows, append(row, text))
	}
	return report.Table(head, rows)
}

func systemTable(p plan, r *results) string {
	var rows [][]string
	for _, s := range systems() {
		at := place{n3, s.Name}
		facts, title := "", s.Title
		for i := range r.rounds(at) {
			got, err := r.round(at, i)
			if err == nil && got.Facts != "" {
				facts = "; in a round: " + got.Facts
			}
			if v := got.ServerVersion; v != "" && !strings.Contains(s.Title, v) {
				title = s.Title + ", server " + v
			}
		}
		if _, err := r.summary(perSecond, at); err != nil {
			facts += "; " + trouble(err)
		}
		if s.Window > 0 {
			facts = fmt.Sprintf("; at most %d events on their way, kept so by the benchmark", s.Window) + facts
		}
		rows = append(rows, []string{s.Name, title, s.Note + facts})
	}
	return report.Table([]string{"name", "system", "settings and guarantees"}, rows)
}
