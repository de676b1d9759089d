//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/stat"
)

type listCommand struct{}

// Run implements the command.
func (listCommand) Run() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range systems() {
		fmt.Fprintf(w, "%s\t%s\n", s.Name, s.Title)
	}
	return w.Flush()
}

type oneCommand struct {
	System      string        `arg:"" help:"Its name, as list shows it."`
	Subscribers int           `short:"n" default:"3" help:"How many processes subscribe."`
	Size        int           `default:"128" help:"Bytes of an event."`
	For         time.Duration `default:"2s" help:"How long a run at full speed shall take; 0: none."`
	Rate        []float64     `help:"Also measure latency at so many events a second, open loop."`
	Half        bool          `help:"Also measure latency at half of the throughput."`
	PacedFor    time.Duration `default:"2s" help:"How long each run at a fixed rate takes."`
	Rounds      int           `default:"1" help:"How often, with new processes each time."`
	Window      int           `help:"Let no more than so many events be on their way; 0: as the system is meant to be used."`
	CPUProfile  string        `name:"cpuprofile" type:"path" placeholder:"DIR" help:"Write processor profiles of publisher and subscribers there."`
	MemProfile  string        `name:"memprofile" type:"path" placeholder:"DIR" help:"Write profiles of their allocations there; this slows them down."`
}

// Run implements the command.
func (c *oneCommand) Run(ctx context.Context) error {
	sys := find(c.System)
	if sys == nil {
		return fmt.Errorf("there is no system %q; bench list names them", c.System)
	}
	for _, dir := range []string{c.CPUProfile, c.MemProfile} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
	}
	t := harness.Trial{
		System: sys, Subscribers: c.Subscribers, Size: c.Size, Burst: c.For,
		Options: harness.Options{Window: c.Window, CPUProfile: c.CPUProfile, MemProfile: c.MemProfile},
	}
	for _, rate := range c.Rate {
		t.Paced = append(t.Paced, harness.Paced{Rate: rate, For: c.PacedFor})
	}
	if c.Half {
		t.Paced = append(t.Paced, harness.Paced{Share: 0.5, For: c.PacedFor})
	}
	for range c.Rounds {
		out, err := t.Run(ctx)
		if lost := (*harness.LossError)(nil); errors.As(err, &lost) {
			return fmt.Errorf("%w: %w", errShort, err)
		} else if err != nil {
			return err
		}
		showOutcome(os.Stdout, t, out)
	}
	return nil
}

// showOutcome prints one measurement for people.
func showOutcome(w io.Writer, t harness.Trial, out harness.Outcome) {
	fmt.Fprintf(w, "%s, %d subscribers, %d B", t.System.Name, t.Subscribers, t.Size)
	if t.Window > 0 {
		fmt.Fprintf(w, ", at most %d on their way", t.Window)
	}
	fmt.Fprintln(w)
	if b := out.Burst; b.Events > 0 {
		fmt.Fprintf(w, "  %.0f events/s to each (%d events in %.2f s), nothing lost or doubled\n", b.PerSecond(), b.Events, b.Elapsed.Seconds())
		showCost(w, t, b)
	}
	for i, p := range out.Paced {
		us := func(percent float64) float64 { return float64(stat.Percentile(p.Latency, percent)) / 1e3 }
		fmt.Fprintf(w, "  at %.0f events/s: p50 %.0f, p90 %.0f, p99 %.0f, p99.9 %.0f, highest %.0f µs (%d deliveries)\n",
			out.Rates[i], us(50), us(90), us(99), us(99.9), us(100), len(p.Latency))
		showCost(w, t, p)
	}
	fmt.Fprintf(w, "  peak memory: publisher %d MiB, subscriber %d MiB, server %d MiB\n",
		out.Memory.Publisher>>20, out.Memory.Subscriber>>20, out.Memory.Server>>20)
	if out.Facts != "" {
		fmt.Fprintf(w, "  %s\n", out.Facts)
	}
}

func showCost(w io.Writer, t harness.Trial, r harness.Result) {
	per := func(d time.Duration, n uint64) float64 { return d.Seconds() * 1e6 / float64(n) }
	deliveries := r.Events * uint64(t.Subscribers)
	fmt.Fprintf(w, "    CPU %.3f µs/delivery: publisher %.3f µs/event, subscriber %.3f µs/event, server %.3f µs/event; allocations per event: publisher %.2f, subscriber %.2f\n",
		per(r.CPU(), deliveries), per(r.PublisherCPU, r.Events), per(r.SubscribersCPU, deliveries), per(r.ServerCPU, r.Events),
		r.PublisherAllocations, r.SubscriberAllocations)
}
