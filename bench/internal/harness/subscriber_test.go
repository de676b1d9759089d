//go:build linux

package harness

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/board"
	"github.com/carillon-go/carillon/bench/internal/machine"
	"github.com/carillon-go/carillon/bench/internal/system"
)

func newTestSubscriber(t *testing.T) *subscriber {
	t.Helper()
	dir := t.TempDir()
	b, err := board.Create(filepath.Join(dir, "board"), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s := &subscriber{
		assignment: assignment{Spec: system.Spec{Dir: dir, Subscribers: 1, Size: 32}},
		clock:      machine.NewClock(), slot: &b.Subscribers()[0],
	}
	s.phase.Store(&expected{})
	return s
}

func event(n uint64, intended int64, size int) []byte {
	e := make([]byte, size)
	stamp(e, n, intended)
	return e
}

func TestSubscriber_KnowsWhatIsWrongWithAnEvent(t *testing.T) {
	s := newTestSubscriber(t)
	s.deliver(event(0, 0, 32)) // before any phase
	if s.odd != 1 {
		t.Errorf("an event before the phase: odd %d, want 1", s.odd)
	}
	if a := s.prepare(order{First: 10, Count: 3}); a.Err != "" {
		t.Fatal(a.Err)
	}
	for _, n := range []uint64{12, 10} {
		s.deliver(event(n, 0, 32))
	}
	if s.slot.FinishedAt.Load() != 0 {
		t.Error("finished though an event is missing")
	}
	s.deliver(event(12, 0, 32)) // again
	s.deliver(event(9, 0, 32))  // again: of the phase before
	s.deliver(event(13, 0, 32)) // nobody sent it
	s.deliver(event(11, 0, 31)) // cut short
	s.deliver(nil)
	if s.doubled != 2 || s.odd != 4 {
		t.Errorf("doubled %d, odd %d; want 2 and 4", s.doubled, s.odd)
	}
	s.deliver(event(11, 0, 32))
	if s.slot.FinishedAt.Load() == 0 || s.slot.Events.Load() != 13 {
		t.Errorf("finished at %d with %d events in all, want 13", s.slot.FinishedAt.Load(), s.slot.Events.Load())
	}
}

func TestSubscriber_WritesLatencyDown(t *testing.T) {
	s := newTestSubscriber(t)
	if a := s.prepare(order{Count: 3, Rate: 1}); a.Err != "" {
		t.Fatal(a.Err)
	}
	now := s.clock.Now()
	s.deliver(event(0, now-5e6, 32))
	s.deliver(event(1, now+1e12, 32)) // due in the future: no time at all
	s.deliver(event(2, now-10e9, 32)) // longer than can be told apart
	if a := s.finish(); a.Err != "" {
		t.Fatal(a.Err)
	}
	got, err := readLatency(s.Spec.Dir, 1)
	if err != nil || len(got) != 3 || !slices.IsSorted(got) {
		t.Fatalf("read %v, %v", got, err)
	}
	if got[0] != 0 || got[1] < 5e6 || got[2] != longest {
		t.Errorf("latencies %v", got)
	}
}
