//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/local"
	"github.com/carillon-go/carillon/bench/internal/own"
	"github.com/carillon-go/carillon/bench/internal/stat"
)

// A cell is a setting in which systems are compared.
type cell struct{ Subscribers, Size int }

func (c cell) String() string { return fmt.Sprintf("%d B, N=%d", c.Size, c.Subscribers) }

// A place is where a system was measured.
type place struct {
	cell
	System string
}

// A sample is what one round measured of one system in one cell. Times are in microseconds.
type sample struct {
	PerSecond                                   float64 // events to each subscriber
	CPU, PublisherCPU, SubscriberCPU, ServerCPU float64 // CPU: for a delivery; the others: for an event
	Paced, Half                                 latency // at the fixed rate, and at half of the maximum load; zero: not measured
	HalfRate                                    float64
	Memory                                      harness.Memory
	Facts                                       string
	ServerVersion                               string // empty: there is no server

	// Lost is how many events subscribers did not receive, all together. Then
	// the other figures are not measured.
	Lost uint64
	Err  error // why the sample does not count; nil: it does
}

// latency is in microseconds.
type latency struct{ P50, P90, P99, P999 float64 }

func latencyOf(r harness.Result) latency {
	at := func(p float64) float64 { return float64(stat.Percentile(r.Latency, p)) / 1e3 }
	return latency{at(50), at(90), at(99), at(99.9)}
}

// results is all that was measured.
type results struct {
	samples map[place][]sample // by round
	local   []local.Result
	starts  [][]own.Part
	idle    []harness.Idle
	growth  map[string][]growthPoint // by system
}

// A growthPoint is one size of a site.
type growthPoint struct {
	Instances int
	SenderCPU stat.Summary // microseconds of an event
}

// errNotMeasured says that a plan leaves something out.
var errNotMeasured = errors.New("not measured")

// round returns what a round measured at a place, or why there is nothing.
func (r *results) round(p place, i int) (sample, error) {
	all := r.samples[p]
	if i >= len(all) {
		return sample{}, fmt.Errorf("%s, %v: %w", p.System, p.cell, errNotMeasured)
	}
	return all[i], all[i].Err
}

func (r *results) rounds(p place) int { return len(r.samples[p]) }

// A metric picks a figure.
type metric func(sample) float64

func perSecond(s sample) float64 { return s.PerSecond }
func cpu(s sample) float64       { return s.CPU }
func p50(s sample) float64       { return s.Paced.P50 }
func halfP99(s sample) float64   { return s.Half.P99 }

// summary is that of a figure over all rounds. One that does not count is an error, and left out of what is
// returned beside it.
func (r *results) summary(m metric, p place) (stat.Summary, error) {
	var values []float64
	var errs error
	for i := range r.rounds(p) {
		s, err := r.round(p, i)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		values = append(values, m(s))
	}
	if values == nil && errs == nil {
		_, errs = r.round(p, 0)
	}
	return stat.Summarize(values), errs
}

// ratio is a figure of one system over that of another, round by round.
func (r *results) ratio(m metric, c cell, system, reference string) (stat.Summary, error) {
	a, b := place{c, system}, place{c, reference}
	var values []float64
	var errs error
	for i := range max(r.rounds(a), r.rounds(b), 1) {
		x, errX := r.round(a, i)
		y, errY := r.round(b, i)
		if err := errors.Join(errX, errY); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if m(x) == 0 || m(y) == 0 {
			return stat.Summary{}, fmt.Errorf("%s and %s, %v: %w", system, reference, c, errNotMeasured)
		}
		values = append(values, m(x)/m(y))
	}
	return stat.Summarize(values), errs
}

// lost is how many events did not come, in all rounds.
func (r *results) lost(p place) (uint64, error) {
	if r.rounds(p) == 0 {
		return 0, fmt.Errorf("%s, %v: %w", p.System, p.cell, errNotMeasured)
	}
	n := uint64(0)
	for _, s := range r.samples[p] {
		if s.Err != nil && s.Lost == 0 {
			return n, s.Err
		}
		n += s.Lost
	}
	return n, nil
}

// start is how long a process took to its first event delivered everywhere, in milliseconds.
func (r *results) start() (stat.Summary, error) {
	if len(r.starts) == 0 {
		return stat.Summary{}, fmt.Errorf("start of a process: %w", errNotMeasured)
	}
	var values []float64
	for _, parts := range r.starts {
		all := time.Duration(0)
		for _, p := range parts {
			all += p.Took
		}
		values = append(values, float64(all)/1e6)
	}
	return stat.Summarize(values), nil
}

// idleOf sums up a figure of the idle instances. The goal is for each of them, so it is Max that counts.
func (r *results) idleOf(figure func(harness.Idle) float64) (stat.Summary, error) {
	if len(r.idle) == 0 {
		return stat.Summary{}, fmt.Errorf("idle instances: %w", errNotMeasured)
	}
	var values []float64
	for _, i := range r.idle {
		values = append(values, figure(i))
	}
	return stat.Summarize(values), nil
}

func (r *results) localFor(subscribers int) (local.Result, error) {
	for _, l := range r.local {
		if l.Subscribers == subscribers {
			return l, nil
		}
	}
	return local.Result{}, fmt.Errorf("raise to %d subscribers in the process: %w", subscribers, errNotMeasured)
}

// line fits the sender's processor time per event to the number of the others.
func (r *results) line(system string) (stat.Line, error) {
	points := r.growth[system]
	if len(points) < 2 {
		return stat.Line{}, fmt.Errorf("growth of %s: %w", system, errNotMeasured)
	}
	var x, y []float64
	for _, p := range points {
		x, y = append(x, float64(p.Instances-1)), append(y, p.SenderCPU.Median)
	}
	return stat.Fit(x, y), nil
}
