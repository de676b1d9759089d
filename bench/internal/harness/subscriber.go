//go:build linux

package harness

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/carillon-go/carillon/bench/internal/board"
	"github.com/carillon-go/carillon/bench/internal/machine"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// tellEvery is after how many events the others see how far a subscriber has come.
const tellEvery = 32

// A subscriber checks every event that comes, and writes on the board how far it is.
type subscriber struct {
	assignment
	clock    machine.Clock
	slot     *board.Slot
	system   io.Closer
	phase    atomic.Pointer[expected]
	profiler profiler

	doubled, odd uint64 // of deliver, until the system is closed
}

// expected is what comes in one phase.
type expected struct {
	seen
	before  uint64   // events of the phases before it
	paced   bool     // events carry the time when they were due
	latency []uint32 // nanoseconds from there, as they came; at most [longest]
}

// longest is the longest latency that is told apart from longer ones.
const longest = math.MaxUint32

func newSubscriber(ctx context.Context, a assignment, sys *system.System, b *board.Board) (*subscriber, error) {
	s := &subscriber{assignment: a, clock: machine.NewClock(), slot: &b.Subscribers()[a.Index], profiler: profiler{a: a}}
	s.phase.Store(&expected{})
	var err error
	s.system, err = sys.Subscribe(ctx, a.Spec, a.Address, s.deliver)
	return s, err
}

// deliver is called once per event, never concurrently.
func (s *subscriber) deliver(event []byte) {
	p := s.phase.Load()
	if len(event) != s.Spec.Size {
		s.odd++
		return
	}
	n := number(event)
	isNew, belongs := p.mark(n)
	switch {
	case isNew:
	case belongs, n < p.first:
		s.doubled++
		return
	default:
		s.odd++
		return
	}
	if p.paced {
		p.latency = append(p.latency, uint32(min(max(s.clock.Now()-intended(event), 0), longest)))
	}
	if p.got%tellEvery == 0 || p.got == p.count {
		s.slot.Events.Store(p.before + p.got)
		if p.got == p.count {
			s.slot.FinishedAt.Store(s.clock.Now())
		}
	}
}

func (s *subscriber) do(o order) answer {
	switch o.Do {
	case doPrepare:
		return s.prepare(o)
	case doFinish:
		return s.finish()
	case doReport:
		return report(s.system)
	case doClose:
		if err := s.system.Close(); err != nil {
			return failed(fmt.Errorf("close: %w", err))
		}
		a := answer{Got: s.phase.Load().got, Doubled: s.doubled, Odd: s.odd}
		if err := s.profiler.close(); err != nil {
			a.Err = err.Error()
		}
		return a
	}
	return failed(fmt.Errorf("a subscriber cannot do %q", o.Do))
}

// prepare runs while no event is on its way.
func (s *subscriber) prepare(o order) answer {
	p := &expected{seen: newSeen(o.First, o.Count), before: o.First, paced: o.Rate > 0}
	if p.paced {
		p.latency = make([]uint32, o.Count)
		clear(p.latency) // so that the kernel provides the memory now
		p.latency = p.latency[:0]
	}
	s.slot.FinishedAt.Store(0)
	if err := s.profiler.begin(o.Profile); err != nil {
		return failed(err)
	}
	s.phase.Store(p)
	return answer{}
}

// finish runs when all events of the phase have come.
func (s *subscriber) finish() answer {
	p := s.phase.Load()
	a := answer{Allocations: s.profiler.end(p.count)}
	if p.paced {
		if err := writeLatency(latencyFile(s.Spec.Dir, s.Index), p.latency); err != nil {
			return failed(err)
		}
	}
	return a
}

func latencyFile(dir string, index int) string {
	return filepath.Join(dir, fmt.Sprintf("latency-%d", index))
}

func writeLatency(path string, latency []uint32) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	if err := binary.Write(w, binary.LittleEndian, latency); err != nil {
		return err
	}
	return w.Flush()
}

// readLatency returns what all subscribers wrote, ascending.
func readLatency(dir string, subscribers int) ([]uint32, error) {
	var all []uint32
	for i := range subscribers {
		b, err := os.ReadFile(latencyFile(dir, i))
		if err != nil {
			return nil, err
		}
		part := make([]uint32, len(b)/4)
		if _, err := binary.Decode(b, binary.LittleEndian, part); err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	slices.Sort(all)
	return all, nil
}
