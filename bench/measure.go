//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/local"
	"github.com/carillon-go/carillon/bench/internal/own"
	"github.com/carillon-go/carillon/bench/internal/stat"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// steps is how many times show is told of a step.
func (p plan) steps() int {
	n := p.rounds*len(p.probes) + len(p.local)
	if p.starts > 0 {
		n++
	}
	if p.idleFor > 0 {
		n++
	}
	return n + p.growthTimes*len(p.growth)*len(p.growthOf)
}

// measure carries a plan out. What a system gets wrong is part of the results; an error is that of the
// benchmark itself, or ctx has ended.
func (p plan) measure(ctx context.Context, show *progress) (*results, error) {
	r := &results{samples: map[place][]sample{}, growth: map[string][]growthPoint{}}
	if err := p.raise(ctx, show, r); err != nil {
		return nil, err
	}
	if err := p.life(ctx, show, r); err != nil {
		return nil, err
	}
	if err := p.grow(ctx, show, r); err != nil {
		return nil, err
	}
	gone := map[string]error{} // systems that are not on this machine
	for round := range p.rounds {
		for _, pr := range p.probes {
			show.step(fmt.Sprintf("round %d of %d: %s, %v", round+1, p.rounds, pr.System, pr.cell))
			s := sample{Err: gone[pr.System]}
			if s.Err == nil {
				s = p.probe(ctx, pr, r, round)
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if errors.Is(s.Err, system.ErrMissing) {
				if gone[pr.System] == nil {
					show.note(s.Err)
				}
				gone[pr.System] = s.Err
			} else if s.Err != nil {
				show.note(fmt.Errorf("round %d, %v: %w", round+1, pr.cell, s.Err))
			}
			r.samples[pr.place] = append(r.samples[pr.place], s)
		}
	}
	return r, nil
}

func (p plan) raise(ctx context.Context, show *progress, r *results) error {
	for _, n := range p.local {
		show.step(fmt.Sprintf("raise to %d subscribers in the process", n))
		l, err := local.Measure(ctx, n)
		if err != nil {
			return err
		}
		r.local = append(r.local, l)
	}
	return nil
}

// life measures how instances start, and what they cost while they do nothing.
func (p plan) life(ctx context.Context, show *progress, r *results) error {
	program, lean, err := own.Program()
	if err != nil {
		return err
	}
	if !lean && (p.starts > 0 || p.idleFor > 0) {
		show.note(errors.New("there is no program for a lone instance beside this one, so start and memory include the code of every system; make bench-quick builds both"))
	}
	if p.starts > 0 {
		show.step("start of a process")
		if r.starts, err = own.MeasureStart(ctx, program, startPeers, p.starts); err != nil {
			return err
		}
	}
	if p.idleFor > 0 {
		show.step("idle instances")
		if r.idle, err = own.MeasureIdle(ctx, program, idlePeers, p.idleFor); err != nil {
			return err
		}
	}
	return nil
}

// probe measures one system in one cell, once.
func (p plan) probe(ctx context.Context, pr probe, r *results, round int) (s sample) {
	sys := find(pr.System)
	if sys == nil {
		return sample{Err: fmt.Errorf("there is no system %q", pr.System)}
	}
	t := harness.Trial{System: sys, Subscribers: pr.Subscribers, Size: pr.Size, Burst: p.burst}
	if pr.paced {
		t.Paced = append(t.Paced, harness.Paced{Rate: pacedRate, For: p.pacedFor})
	}
	half := false
	switch {
	case pr.halfOf == pr.System:
		half = true
		t.Paced = append(t.Paced, harness.Paced{Share: 0.5, For: p.pacedFor})
	case pr.halfOf != "":
		if of, err := r.round(place{pr.cell, pr.halfOf}, round); err == nil {
			half = true
			t.Paced = append(t.Paced, harness.Paced{Rate: of.HalfRate, For: p.pacedFor})
		}
	}
	out, err := t.Run(ctx)
	if err != nil {
		s.Err = err
		if lost := (*harness.LossError)(nil); errors.As(err, &lost) {
			for _, n := range lost.Missing {
				s.Lost += n
			}
		}
		return s
	}
	b := out.Burst
	micros := func(d time.Duration, n uint64) float64 { return d.Seconds() * 1e6 / float64(n) }
	deliveries := b.Events * uint64(pr.Subscribers)
	s = sample{
		PerSecond: b.PerSecond(),
		CPU:       micros(b.CPU(), deliveries), PublisherCPU: micros(b.PublisherCPU, b.Events),
		SubscriberCPU: micros(b.SubscribersCPU, deliveries), ServerCPU: micros(b.ServerCPU, b.Events),
		Memory: out.Memory, Facts: out.Facts, ServerVersion: out.ServerVersion,
	}
	if pr.paced {
		s.Paced = latencyOf(out.Paced[0])
	}
	if half {
		last := len(out.Paced) - 1
		s.Half, s.HalfRate = latencyOf(out.Paced[last]), out.Rates[last]
	}
	return s
}

// grow measures what a sender's event costs it as the site grows.
func (p plan) grow(ctx context.Context, show *progress, r *results) error {
	costs := map[place][]float64{}
	for round := range p.growthTimes {
		for _, n := range p.growth {
			for _, name := range p.growthOf {
				show.step(fmt.Sprintf("growth, round %d of %d: %s, %d instances", round+1, p.growthTimes, name, n))
				t := harness.Trial{
					System: find(name), Subscribers: n - 1, Size: n3.Size,
					Paced: []harness.Paced{{Rate: growthRate, For: p.growthFor}},
				}
				out, err := t.Run(ctx)
				switch {
				case ctx.Err() != nil:
					return context.Cause(ctx)
				case err != nil:
					show.note(fmt.Errorf("growth, %d instances: %w", n, err))
					continue
				}
				paced := out.Paced[0]
				at := place{cell{n - 1, n3.Size}, name}
				costs[at] = append(costs[at], paced.PublisherCPU.Seconds()*1e6/float64(paced.Events))
			}
		}
	}
	for _, name := range p.growthOf {
		for _, n := range p.growth {
			if c := costs[place{cell{n - 1, n3.Size}, name}]; c != nil {
				r.growth[name] = append(r.growth[name], growthPoint{n, stat.Summarize(c)})
			}
		}
	}
	return nil
}
