//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/carillon-go/carillon/bench/internal/harness"
)

type localCommand struct{}

// Run implements the command.
func (localCommand) Run(ctx context.Context) error {
	return show(ctx, plan{local: localSubscribers})
}

type startCommand struct {
	Times int `default:"15" help:"How often."`
}

// Run implements the command.
func (c *startCommand) Run(ctx context.Context) error {
	return show(ctx, plan{starts: c.Times})
}

type idleCommand struct {
	For time.Duration `default:"10s" help:"For how long."`
}

// Run implements the command.
func (c *idleCommand) Run(ctx context.Context) error {
	return show(ctx, plan{idleFor: c.For})
}

type growthCommand struct {
	Systems   []string      `default:"tcpbus,udpbus,limit-tcp,limit-udp" help:"Whose growth."`
	Instances []int         `default:"2,4,8,16,32" help:"The sizes, ascending."`
	For       time.Duration `default:"3s" help:"How long each is measured."`
	Rounds    int           `default:"1" help:"How often, in turns."`
}

// Run implements the command.
func (c *growthCommand) Run(ctx context.Context) error {
	for _, name := range c.Systems {
		if find(name) == nil {
			return fmt.Errorf("there is no system %q; bench list names them", name)
		}
	}
	for _, n := range c.Instances {
		if n < 2 {
			return fmt.Errorf("%d instances are not a sender and a receiver", n)
		}
	}
	return show(ctx, plan{growth: c.Instances, growthOf: c.Systems, growthFor: c.For, growthTimes: c.Rounds})
}

// show measures a plan and prints it.
func show(ctx context.Context, p plan) error {
	progress := newProgress(p.steps())
	r, err := p.measure(ctx, progress)
	progress.end()
	if err != nil {
		return err
	}
	details(os.Stdout, p, r)
	return nil
}

// idleDetails prints what idle instances cost.
func idleDetails(t *tabwriter.Writer, r *results) {
	for _, figures := range []struct {
		name string
		of   func(harness.Idle) float64
	}{
		{"% of a core", func(i harness.Idle) float64 { return 100 * i.CPU }},
		{"MiB resident", func(i harness.Idle) float64 { return float64(i.Resident) / (1 << 20) }},
	} {
		if s, err := r.idleOf(figures.of); err == nil {
			fmt.Fprintf(t, "idle\t%s, %d instances\t%.3f (%.3f–%.3f)\n", figures.name, s.Rounds, s.Median, s.Min, s.Max)
		}
	}
}
