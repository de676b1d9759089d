//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/carillon-go/carillon/bench/internal/own"
	"github.com/carillon-go/carillon/bench/internal/stat"
	"github.com/carillon-go/carillon/bench/internal/system"
)

type quickCommand struct{}

// Run implements the command. A goal that is short is no error: what there is to do about it is
// not this program's business.
func (quickCommand) Run(ctx context.Context) error {
	verdicts, err := judgeAll(ctx, quickPlan())
	if err != nil {
		return err
	}
	for _, v := range verdicts {
		fmt.Println(v)
	}
	return nil
}

type guardCommand struct{}

// Run implements the command.
func (guardCommand) Run(ctx context.Context) error {
	fallen, err := guard(ctx)
	if err != nil || fallen == nil {
		return err
	}
	// What others do on the machine for half a second is enough for one measurement to fall. What has collapsed
	// does so again.
	fmt.Fprintf(os.Stderr, "bench: not even half of the must: %s; once more\n", strings.Join(fallen, ", "))
	again, err := guard(ctx)
	if err != nil {
		return err
	}
	return collapsed(fallen, again)
}

// guard measures, prints, and returns which goals are below half of what must hold.
func guard(ctx context.Context) (fallen []string, err error) {
	verdicts, err := judgeAll(ctx, guardPlan())
	if err != nil {
		return nil, err
	}
	for _, v := range verdicts {
		if errors.Is(v.err, errNotMeasured) || errors.Is(v.err, system.ErrMissing) {
			continue // of the plan for more time
		}
		fmt.Println(v)
		if !math.IsNaN(v.must) && !v.holds() {
			fallen = append(fallen, v.name)
		}
	}
	return fallen, nil
}

// collapsed returns an error that names the goals that have fallen both times, or nil.
func collapsed(once, again []string) error {
	both := slices.DeleteFunc(slices.Clone(once), func(name string) bool { return !slices.Contains(again, name) })
	if len(both) == 0 {
		return nil
	}
	return fmt.Errorf("%w, not even half of the must, twice: %s", errShort, strings.Join(both, ", "))
}

// judgeAll measures and judges every goal.
func judgeAll(ctx context.Context, p plan) ([]verdict, error) {
	began := time.Now()
	show := newProgress(p.steps())
	r, err := p.measure(ctx, show)
	show.end()
	if err != nil {
		return nil, err
	}
	var all []verdict
	for _, g := range goals {
		all = append(all, g.judge(r))
	}
	details(os.Stderr, p, r)
	fmt.Fprintf(os.Stderr, "bench: %d rounds in %.0f s\n", p.rounds, time.Since(began).Seconds())
	return all, nil
}

// details prints the figures that the goals were made of.
func details(w io.Writer, p plan, r *results) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	if p.probes != nil {
		fmt.Fprintln(t, "system\tcell\tevents/s (min–max)\tCPU µs/delivery\tp50 µs\tp99 µs\tp99 at half load")
	}
	for _, pr := range p.probes {
		column := func(m metric) string {
			s, _ := r.summary(m, pr.place)
			if s.Median == 0 {
				return "-"
			}
			return figure(s.Median)
		}
		speed, _ := r.summary(perSecond, pr.place)
		if speed.Rounds == 0 {
			continue
		}
		fmt.Fprintf(t, "%s\t%v\t%.0f (%.0f–%.0f)\t%s\t%s\t%s\t%s\n", pr.System, pr.cell, speed.Median, speed.Min, speed.Max,
			column(cpu), column(p50), column(func(s sample) float64 { return s.Paced.P99 }), column(halfP99))
	}
	for _, l := range r.local {
		fmt.Fprintf(t, "raise to %d\tin the process\t%.1f ns\tbare %.1f ns, ratio %.2f (%.2f–%.2f), %.2g allocations\n",
			l.Subscribers, l.Raise.Median, l.Bare.Median, l.Ratio.Median, l.Ratio.Min, l.Ratio.Max, l.Allocations)
	}
	for _, part := range startParts(r.starts) {
		fmt.Fprintf(t, "start\t%s\t%.2f ms (%.2f–%.2f)\n", part.name, part.Median, part.Min, part.Max)
	}
	idleDetails(t, r)
	for _, name := range p.growthOf {
		for _, g := range r.growth[name] {
			fmt.Fprintf(t, "growth\t%s, %d instances\t%.1f µs/event\n", name, g.Instances, g.SenderCPU.Median)
		}
		if l, err := r.line(name); err == nil {
			fmt.Fprintf(t, "growth\t%s\t%.1f + %.2f µs for each other instance\tR² %.3f\n", name, l.Start, l.Slope, l.R2)
		}
	}
}

// A namedPart is a part of the start of a process, in milliseconds.
type namedPart struct {
	name string
	stat.Summary
}

func startParts(starts [][]own.Part) (parts []namedPart) {
	if len(starts) == 0 {
		return nil
	}
	for i, part := range starts[0] {
		var values []float64
		for _, s := range starts {
			values = append(values, float64(s[i].Took)/1e6)
		}
		parts = append(parts, namedPart{part.Name, stat.Summarize(values)})
	}
	return parts
}
