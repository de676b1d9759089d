//go:build linux

package harness

import (
	"context"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/bench/internal/system"
)

// A Trial is one measurement of one system, with processes of its own.
type Trial struct {
	System      *system.System
	Subscribers int
	Size        int           // bytes of an event
	Burst       time.Duration // how long the events sent at full speed shall take; 0: only warm up
	Paced       []Paced
	Options
}

// Paced is an open loop.
type Paced struct {
	Rate  float64       // events a second; 0: Share says it
	Share float64       // of the throughput that the burst has measured
	For   time.Duration // how long
}

// An Outcome is what a Trial measured.
type Outcome struct {
	Burst Result // zero if there was none
	Paced []Result
	Rates []float64 // of Paced
	Conclusion
}

// Warming up: bursts, each a few times as long as the one before.
const (
	firstBurst = 500
	warmFor    = 150 * time.Millisecond
	growth     = 6
	burstTries = 3 // the last one counts; more than one if warming up was much slower than the burst
	mostEvents = 40_000_000
	pacedWarm  = 200 * time.Millisecond
)

// Run measures. An error says that the measurement does not count.
func (t Trial) Run(ctx context.Context) (out Outcome, err error) {
	s, err := Start(ctx, t.System, t.Subscribers, t.Size, t.Options)
	if err != nil {
		return out, err
	}
	defer s.abandon()
	out, err = t.phases(ctx, s)
	if err != nil {
		return out, fmt.Errorf("%s: %w", t.System.Name, err)
	}
	if out.Conclusion, err = s.End(ctx); err != nil {
		return out, fmt.Errorf("%s: %w", t.System.Name, err)
	}
	return out, nil
}

func (t Trial) phases(ctx context.Context, s *Session) (out Outcome, err error) {
	speed := 0.0
	for count := uint64(firstBurst); ; {
		r, err := s.Run(ctx, Phase{Count: count})
		if err != nil {
			return out, fmt.Errorf("warming up: %w", err)
		}
		speed = r.PerSecond()
		if r.Elapsed >= warmFor {
			break
		}
		count = min(count*growth, max(count, uint64(speed*1.5*warmFor.Seconds()))) + 1
	}
	for range burstTries {
		if out.Burst.Elapsed >= t.Burst/2 { // at once, if no burst is wanted
			break
		}
		count := min(max(uint64(speed*t.Burst.Seconds()), firstBurst), mostEvents)
		if out.Burst, err = s.Run(ctx, Phase{Count: count, Profile: true}); err != nil {
			return out, err
		}
		speed = out.Burst.PerSecond()
	}
	for _, p := range t.Paced {
		rate := p.Rate
		if rate == 0 {
			rate = p.Share * speed
		}
		for _, length := range []time.Duration{pacedWarm, p.For} {
			r, err := s.Run(ctx, Phase{Count: max(uint64(rate*length.Seconds()), 1), Rate: rate, Profile: t.Burst == 0})
			if err != nil {
				return out, fmt.Errorf("at %.0f/s: %w", rate, err)
			}
			if length == p.For {
				out.Paced, out.Rates = append(out.Paced, r), append(out.Rates, rate)
			}
		}
	}
	return out, nil
}
