//go:build linux

package harness

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/carillon-go/carillon/bench/internal/board"
	"github.com/carillon-go/carillon/bench/internal/machine"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const (
	windowPause = 50 * time.Microsecond // between two looks at the board while the window is full
	windowStall = 3 * time.Second       // without progress the window's events are lost
)

// A publisher numbers events and publishes them.
type publisher struct {
	assignment
	clock    machine.Clock
	board    *board.Board
	window   uint64 // 0: none
	slowest  uint64 // as last read from the board
	event    []byte
	system   system.Publisher
	profiler profiler
}

func newPublisher(ctx context.Context, a assignment, sys *system.System, b *board.Board) (*publisher, error) {
	p := &publisher{
		assignment: a, clock: machine.NewClock(), board: b, window: uint64(a.Window),
		event: make([]byte, a.Spec.Size), profiler: profiler{a: a},
	}
	for i := range p.event {
		p.event[i] = byte(i)
	}
	var err error
	p.system, err = sys.Publish(ctx, a.Spec, a.Address)
	return p, err
}

func (p *publisher) do(o order) answer {
	switch o.Do {
	case doReady:
		ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
		defer cancel()
		if err := p.system.Ready(ctx); err != nil {
			return failed(fmt.Errorf("wait for the subscribers: %w", err))
		}
		return answer{}
	case doPublish:
		return p.publish(o)
	case doReport:
		return report(p.system)
	case doClose:
		if err := p.system.Close(); err != nil {
			return failed(fmt.Errorf("close: %w", err))
		}
		if err := p.profiler.close(); err != nil {
			return failed(err)
		}
		return answer{}
	}
	return failed(fmt.Errorf("a publisher cannot do %q", o.Do))
}

func (p *publisher) publish(o order) answer {
	if err := p.profiler.begin(o.Profile); err != nil {
		return failed(err)
	}
	a := answer{Started: p.clock.Now()}
	var err error
	if o.Rate > 0 {
		err = p.paced(o)
	} else {
		err = p.burst(o)
	}
	a.Allocations = p.profiler.end(o.Count)
	if err != nil {
		a.Err = err.Error()
	}
	return a
}

func (p *publisher) burst(o order) error {
	for i := range o.Count {
		if err := p.one(o.First+i, 0); err != nil {
			return err
		}
	}
	return p.system.Flush()
}

func (p *publisher) paced(o order) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := machine.Punctual(); err != nil {
		return err
	}
	return pace(p.clock, o.Rate, o.Count, func(i uint64, intended int64) error {
		return p.one(o.First+i, intended)
	}, p.system.Flush)
}

func (p *publisher) one(number uint64, intended int64) error {
	if p.window > 0 && number-p.slowest >= p.window {
		if err := p.wait(number); err != nil {
			return err
		}
	}
	stamp(p.event, number, intended)
	return p.system.Publish(p.event)
}

// wait returns when the window has room for the event.
func (p *publisher) wait(number uint64) error {
	if p.slowest = p.board.Slowest(); number-p.slowest < p.window {
		return nil
	}
	if err := p.system.Flush(); err != nil { // what is waited for may be in its buffers
		return err
	}
	for since := time.Now(); ; {
		machine.SleepUntil(p.clock.Now() + int64(windowPause))
		was := p.slowest
		if p.slowest = p.board.Slowest(); number-p.slowest < p.window {
			return nil
		}
		if p.slowest != was {
			since = time.Now()
		} else if time.Since(since) > windowStall {
			return fmt.Errorf("event %d waits for a subscriber that has only %d: the others are lost", number, p.slowest)
		}
	}
}
