package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/sim"
)

// Where scaling.md has what publishGrowth writes.
const (
	simulatedBegins = "<!-- simulated -->\n"
	simulatedEnds   = "<!-- /simulated -->\n"
)

// publishGrowth writes the image and the tables into the documentation in folder.
func publishGrowth(folder string, all []sim.Growth, took time.Duration) error {
	page := filepath.Join(folder, "scaling.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), simulatedBegins)
	_, after, ends := strings.Cut(rest, simulatedEnds)
	if !ok || !ends {
		return fmt.Errorf("%s does not have the lines %q and %q", page, simulatedBegins, simulatedEnds)
	}
	if err := os.WriteFile(filepath.Join(folder, "images", "scaling.svg"), []byte(growthGraph(all)), 0o644); err != nil {
		return err
	}
	return os.WriteFile(page, []byte(before+simulatedBegins+growthTables(all, took)+simulatedEnds+after), 0o644)
}

// rate returns what was counted in p per instance and second.
func rate(g *sim.Growth, p *sim.GrowthPhase, count uint64) float64 {
	return float64(count) / float64(g.Instances) / p.Length.Seconds()
}

// frames adds up frames of some kinds; of all but data and repairs, if none are given.
func frames(counts *[sim.NumKinds]sim.Traffic, kinds ...sim.FrameKind) (n uint64) {
	for k := range sim.NumKinds {
		if len(kinds) == 0 && k != sim.KindData && k != sim.KindRepair {
			n += counts[k].Frames
		}
	}
	for _, k := range kinds {
		n += counts[k].Frames
	}
	return n
}

func allBytes(counts *[sim.NumKinds]sim.Traffic) (n uint64) {
	for k := range sim.NumKinds {
		n += counts[k].Bytes
	}
	return n
}

// A column is a figure of a site of some size.
type column struct {
	name  string
	value func(*sim.Growth) string
}

// of makes a column of one phase.
func of(phase, name string, value func(*sim.Growth, *sim.GrowthPhase) string) column {
	return column{name, func(g *sim.Growth) string {
		if p := g.Phase(phase); p != nil {
			return value(g, p)
		}
		return ""
	}}
}

func short(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.2g", v)
}

func ms(d time.Duration) string { return fmt.Sprintf("%d", d.Round(time.Millisecond).Milliseconds()) }

// growthColumns are the figures of the table that each network has.
func growthColumns() []column {
	return []column{
		of("idle", "idle: heard", func(g *sim.Growth, p *sim.GrowthPhase) string { return short(rate(g, p, frames(&p.Received))) }),
		of("one", "one sends: it sends", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(float64(frames(&p.SenderSent, sim.KindData)) / p.Length.Seconds())
		}),
		of("one", "ACKs it hears", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(float64(p.SenderReceived[sim.KindACK].Frames) / p.Length.Seconds())
		}),
		of("one", "ACKs others hear", func(g *sim.Growth, p *sim.GrowthPhase) string {
			others := p.Received[sim.KindACK].Frames - p.SenderReceived[sim.KindACK].Frames
			return short(float64(others) / float64(g.Instances-1) / p.Length.Seconds())
		}),
		of("all", "all send: events", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(rate(g, p, p.Received[sim.KindData].Frames))
		}),
		of("all", "HEARTBEATs", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(rate(g, p, p.Received[sim.KindHeartbeat].Frames))
		}),
		of("all", "ACKs", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(rate(g, p, p.Received[sim.KindACK].Frames))
		}),
		of("all", "kB of ACKs", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(rate(g, p, p.Received[sim.KindACK].Bytes) / 1000)
		}),
		of("start", "start: frames", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(float64(frames(&p.Received)) / float64(g.Instances))
		}),
		of("start", "kB", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(float64(allBytes(&p.Received)) / float64(g.Instances) / 1000)
		}),
		of("start", "last in step, ms", func(_ *sim.Growth, p *sim.GrowthPhase) string { return ms(quantile(p.InStep, 1)) }),
		of("join", "one joins: in step, ms", func(_ *sim.Growth, p *sim.GrowthPhase) string { return ms(quantile(p.InStep, 1)) }),
		of("death", "one dies: DIGESTs", func(g *sim.Growth, p *sim.GrowthPhase) string {
			return short(float64(p.Received[sim.KindDigest].Frames) / float64(g.Instances))
		}),
	}
}

// losses are the phases with losses, and what tables call them.
func losses() [][2]string {
	return [][2]string{{"shared=0.01", "1 % shared"}, {"loss=0.01", "1 % each"}, {"shared=0.05", "5 % shared"}, {"loss=0.05", "5 % each"}}
}

func lossColumns() (columns []column) {
	for _, l := range losses() {
		columns = append(columns,
			of(l[0], l[1]+": frames lost", func(_ *sim.Growth, p *sim.GrowthPhase) string { return fmt.Sprint(len(p.Repaired) + p.Open) }),
			of(l[0], "NAKs, repairs", func(_ *sim.Growth, p *sim.GrowthPhase) string {
				return fmt.Sprintf("%d, %d", p.Sent[sim.KindNAK].Frames, p.Sent[sim.KindRepair].Frames)
			}),
			of(l[0], "p50, p99, ms", func(_ *sim.Growth, p *sim.GrowthPhase) string {
				if len(p.Repaired) == 0 {
					return "–"
				}
				return ms(quantile(p.Repaired, 0.5)) + ", " + ms(quantile(p.Repaired, 0.99))
			}))
	}
	return columns
}

func table(b *strings.Builder, all []sim.Growth, network string, columns []column) {
	b.WriteString("| instances |")
	for _, c := range columns {
		b.WriteString(" " + c.name + " |")
	}
	b.WriteString("\n|" + strings.Repeat(" ---: |", len(columns)+1) + "\n")
	for i := range all {
		if g := &all[i]; g.Network == network {
			fmt.Fprintf(b, "| %d |", g.Instances)
			for _, c := range columns {
				b.WriteString(" " + c.value(g) + " |")
			}
			b.WriteString("\n")
		}
	}
}

// memberTable says what the last table is about.
const memberTable = `Rows that all instances together read in a second while idle. Each renews its own three times in a lease (30 s), all others read what has changed with
their next poll: n²/10 rows a second, n/10 renewals and n polls. Everything is read once in a lease besides: n²/30 more, which fell outside of the time counted. In sites of hundreds that is what costs most:
a longer Lease makes the rows rarer, a longer Poll the reads.
`

// growthTables returns what scaling.md says of all that was run.
func growthTables(all []sim.Growth, took time.Duration) string {
	var b strings.Builder
	titles := map[string]string{"udp": "UDP", "tcp": "TCP", "broker": "A message broker"}
	for _, network := range sim.GrowthNetworks() {
		fmt.Fprintf(&b, "\n### %s\n\n", titles[network])
		table(&b, all, network, growthColumns())
	}
	fmt.Fprintf(&b, "\n### Losses on UDP\n\n")
	table(&b, all, "udp", lossColumns())
	b.WriteString("\n### The member table\n\n" + memberTable + "\n")
	table(&b, all, "tcp", []column{of("idle", "rows a second", func(_ *sim.Growth, p *sim.GrowthPhase) string {
		return short(float64(p.Rows) / p.Length.Seconds())
	})})
	missed, raised := uint64(0), uint64(0)
	for i := range all {
		missed += all[i].Result.Verdict.Missed
		raised += all[i].Result.Verdict.Raised
	}
	fmt.Fprintf(&b, "\n%d sites; %d events told as Raised, %d as Missed, none twice, none in silence. It took %v.\n", len(all), raised, missed, took.Round(time.Second))
	return b.String()
}
