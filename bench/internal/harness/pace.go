//go:build linux

package harness

import (
	"time"

	"github.com/carillon-go/carillon/bench/internal/machine"
)

// pause is the least time that the publisher of a paced phase sleeps. At rates at which several events are due after
// it, they are sent together at its end, each with its own intended time.
const pause = int64(100 * time.Microsecond)

// pace is the open loop: event i is due at start + i·interval, whatever became of those before, and its latency counts from then. A publisher
// that is late sends at once all that is due, so being late is in the figures.
//
// It sleeps in the kernel between events and never spins: on two cores a spinning publisher would take from the subscribers what
// they need.
func pace(clock machine.Clock, rate float64, count uint64, publish func(i uint64, intended int64) error, flush func() error) error {
	start := clock.Now() + pause
	due := func(i uint64) int64 { return start + int64(float64(i)*1e9/rate) }
	atLeast := min(pause, int64(1e9/rate))
	wake := start
	for i := uint64(0); i < count; {
		wake = max(due(i), wake+atLeast)
		machine.SleepUntil(wake)
		for now := clock.Now(); i < count && due(i) <= now; i++ {
			if err := publish(i, due(i)); err != nil {
				return err
			}
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return nil
}
