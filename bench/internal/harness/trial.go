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
	Burst       time.Duration // how long the events sent at full speed shall take; 0: nothing is, not even to warm up
	Paced       []Paced
	Options
}

// Paced is an open loop.
type Paced struct {
	Rate  float64       // events a second; 0: Share says it, and there is a burst
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
	for _, p := range t.Paced {
		if p.For <= 0 || p.Rate <= 0 && (p.Share <= 0 || t.Burst <= 0) {
			return out, fmt.Errorf("%s: a paced run needs a length, and a rate or a part of what a burst measures", t.System.Name)
		}
	}
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
	if t.Burst > 0 {
		if out.Burst, err = t.burst(ctx, s); err != nil {
			return out, err
		}
	}
	for _, p := range t.Paced {
		rate := p.Rate
		if rate == 0 {
			rate = p.Share * out.Burst.PerSecond()
		}
		pace := func(d time.Duration, profile bool) (Result, error) {
			r, err := s.Run(ctx, Phase{Count: max(uint64(rate*d.Seconds()), 1), Rate: rate, Profile: profile})
			if err != nil {
				err = fmt.Errorf("at %.0f/s: %w", rate, err)
			}
			return r, err
		}
		if _, err := pace(pacedWarm, false); err != nil {
			return out, err
		}
		r, err := pace(p.For, t.Burst == 0)
		if err != nil {
			return out, err
		}
		out.Paced, out.Rates = append(out.Paced, r), append(out.Rates, rate)
	}
	return out, nil
}

// burst warms up, finds out how many events fill the time, and measures them.
func (t Trial) burst(ctx context.Context, s *Session) (r Result, err error) {
	for count := uint64(firstBurst); r.Elapsed < warmFor; {
		if r, err = s.Run(ctx, Phase{Count: count}); err != nil {
			return r, fmt.Errorf("warming up: %w", err)
		}
		count = min(count*growth, max(count, uint64(r.PerSecond()*1.5*warmFor.Seconds()))) + 1
	}
	for range burstTries {
		count := min(max(uint64(r.PerSecond()*t.Burst.Seconds()), firstBurst), mostEvents)
		if r, err = s.Run(ctx, Phase{Count: count, Profile: true}); err != nil || r.Elapsed >= t.Burst/2 {
			break
		}
	}
	return r, err
}
