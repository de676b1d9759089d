//go:build linux

package harness

import (
	"errors"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/machine"
)

func TestPace_NothingIsSentBeforeItIsDueAndNothingLeftOut(t *testing.T) {
	clock := machine.NewClock()
	const count, rate = 200, 50_000 // several in each pause
	var next uint64
	var first, last int64
	flushed := uint64(0)
	err := pace(clock, rate, count, func(i uint64, intended int64) error {
		if i != next {
			t.Fatalf("event %d, want %d", i, next)
		}
		next++
		if now := clock.Now(); now < intended {
			t.Errorf("event %d was sent %d ns before it was due", i, intended-now)
		}
		if i == 0 {
			first = intended
		}
		last = intended
		return nil
	}, func() error { flushed = next; return nil })
	if err != nil || next != count || flushed != count {
		t.Fatalf("%d events, %d flushed, %v; want %d", next, flushed, err, count)
	}
	if want := int64(float64(count-1) * 1e9 / rate); last-first != want {
		t.Errorf("the last event was due %d ns after the first, want %d", last-first, want)
	}
}

func TestPace_EndsWithTheError(t *testing.T) {
	broken := errors.New("broken")
	err := pace(machine.NewClock(), 1e6, 10, func(i uint64, _ int64) error { return broken }, func() error { return nil })
	if !errors.Is(err, broken) {
		t.Errorf("%v, want the error of the publisher", err)
	}
	err = pace(machine.NewClock(), 1e6, 10, func(uint64, int64) error { return nil }, func() error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("%v, want the error of Flush", err)
	}
}
