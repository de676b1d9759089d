//go:build linux

// Package local measures a raise that stays in its process against the least that any such library must
// do: to find the subscribers of an ID, and to call them.
package local

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/bench/internal/machine"
	"github.com/carillon-go/carillon/bench/internal/stat"
)

// A Result is for one number of subscribers.
type Result struct {
	Subscribers int
	Raise, Bare stat.Summary // nanoseconds
	Ratio       stat.Summary // of the two, measured one right after the other
	Allocations float64      // of a raise, on average; less than one in a thousand raises is 0
}

const slices = 60 // of each, in turns

// slice is how long each way runs before it is the other one's turn. It is short, so that both see the same of
// whatever else the machine does.
const slice = 4 * time.Millisecond

type note struct{ n int }

// Measure measures with so many subscribers.
func Measure(ctx context.Context, subscribers int) (Result, error) {
	runtime.LockOSThread() // its processor time is measured, so that other work on the machine is left out
	defer runtime.UnlockOSThread()
	r := Result{Subscribers: subscribers}
	b, err := carillon.Open(ctx, carillon.Config{Application: "bench"})
	if err != nil {
		return r, err
	}
	defer b.Close()
	event := carillon.Define[*note](carillon.NewID(), "note")
	told := 0
	var bare registry
	for range subscribers {
		event.OnRaised(b, func(_ context.Context, r carillon.Raised[*note]) { told += r.Parameter.n })
		bare.on(event.ID(), func(_ context.Context, v any) { told += v.(*note).n })
	}
	n := &note{1}
	raise := func(times int) error {
		for range times {
			if err := event.Raise(ctx, b, carillon.ID{}, n); err != nil {
				return err
			}
		}
		return nil
	}
	call := func(times int) error {
		for range times {
			bare.call(ctx, event.ID(), n)
		}
		return nil
	}

	raises, calls := calibrate(raise), calibrate(call)
	var ratios, raised, called []float64
	runtime.GC()
	objects := allocated()
	for range slices {
		slow, err := each(raise, raises)
		if err != nil {
			return r, err
		}
		fast, _ := each(call, calls)
		raised, called, ratios = append(raised, slow), append(called, fast), append(ratios, slow/fast)
	}
	// A slice of samples grows a few times, and the runtime allocates now and then.
	const rare = 1e-3
	if r.Allocations = float64(allocated()-objects) / float64(slices*raises); r.Allocations < rare {
		r.Allocations = 0
	}
	r.Raise, r.Bare, r.Ratio = stat.Summarize(raised), stat.Summarize(called), stat.Summarize(ratios)
	return r, nil
}

// calibrate returns how often fn can do its work in a slice.
func calibrate(fn func(times int) error) int {
	for times := 64; ; times *= 2 {
		began := machine.ThreadCPU()
		fn(times)
		if took := machine.ThreadCPU() - began; took > slice/4 {
			return max(int(float64(times)*float64(slice)/float64(took)), 1)
		}
	}
}

// each returns how many nanoseconds of processor time one of so many times takes.
func each(fn func(times int) error, times int) (float64, error) {
	began := machine.ThreadCPU()
	err := fn(times)
	return float64(machine.ThreadCPU()-began) / float64(times), err
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// A registry is the bare look-up and call loop.
type registry struct{ subscribers sync.Map } // [16]byte → []func(context.Context, any)

func (r *registry) on(id [16]byte, fn func(context.Context, any)) {
	list, _ := r.subscribers.Load(id)
	had, _ := list.([]func(context.Context, any))
	r.subscribers.Store(id, append(had, fn))
}

func (r *registry) call(ctx context.Context, id [16]byte, v any) {
	list, ok := r.subscribers.Load(id)
	if !ok {
		return
	}
	for _, fn := range list.([]func(context.Context, any)) {
		fn(ctx, v)
	}
}
