package carillontest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
)

// A Recorder keeps what subscribers of one event of one instance were told, in the
// order in which they were. Its functions are told beside the application's, not after them: see
// [Eventually]. It is safe for concurrent use; its Wait methods belong into the
// test's own goroutine.
type Recorder[T any] struct {
	t    testing.TB
	name string

	mu     sync.Mutex // guards the fields below
	raised []carillon.Raised[T]
	missed []carillon.Missed
	more   chan struct{} // closed, and replaced, when something was added
}

// Record begins to record the event that d defines on b.
func Record[T any](t testing.TB, b *carillon.Broker, d *carillon.Definition[T]) *Recorder[T] {
	r := &Recorder[T]{t: t, name: d.Name(), more: make(chan struct{})}
	d.OnMissed(b, r.addMissed)
	d.OnRaised(b, r.addRaised)
	return r
}

// RecordEvent begins to record e.
func RecordEvent(t testing.TB, e *carillon.Event) *Recorder[any] {
	r := &Recorder[any]{t: t, name: e.ID().String(), more: make(chan struct{})}
	e.OnMissed(r.addMissed)
	e.OnRaised(r.addRaised)
	return r
}

func (r *Recorder[T]) addRaised(_ context.Context, e carillon.Raised[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raised = append(r.raised, e)
	close(r.more)
	r.more = make(chan struct{})
}

func (r *Recorder[T]) addMissed(_ context.Context, m carillon.Missed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed = append(r.missed, m)
	close(r.more)
	r.more = make(chan struct{})
}

// Raised returns what was raised so far.
func (r *Recorder[T]) Raised() []carillon.Raised[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.raised)
}

// Parameters returns the parameters of what was raised so far.
func (r *Recorder[T]) Parameters() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	params := make([]T, len(r.raised))
	for i := range r.raised {
		params[i] = r.raised[i].Parameter
	}
	return params
}

// Missed returns what was told as missed so far.
func (r *Recorder[T]) Missed() []carillon.Missed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.missed)
}

// MissedCount returns how many events were missed so far.
func (r *Recorder[T]) MissedCount() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n uint64
	for _, m := range r.missed {
		n += m.Count
	}
	return n
}

// WaitRaised waits until at least n events were raised and returns all. The test
// fails when that takes longer than 30 s.
func (r *Recorder[T]) WaitRaised(n int) []carillon.Raised[T] {
	r.t.Helper()
	r.Wait(func(raised []carillon.Raised[T], _ []carillon.Missed) bool { return len(raised) >= n })
	return r.Raised()
}

// WaitMissed waits until at least n events were missed and returns all reports.
// The test fails when that takes longer than 30 s.
func (r *Recorder[T]) WaitMissed(n uint64) []carillon.Missed {
	r.t.Helper()
	r.Wait(func(_ []carillon.Raised[T], missed []carillon.Missed) bool {
		var have uint64
		for _, m := range missed {
			have += m.Count
		}
		return have >= n
	})
	return r.Missed()
}

// Wait waits until done says so of what was recorded, which it must not change. The
// test fails when that takes longer than 30 s.
func (r *Recorder[T]) Wait(done func(raised []carillon.Raised[T], missed []carillon.Missed) bool) {
	r.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		r.mu.Lock()
		ok, more := done(r.raised, r.missed), r.more
		nRaised, nMissed := len(r.raised), len(r.missed)
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-more:
		case <-limit.C:
			r.t.Fatalf("event %s: after %v: %d raised, %d reports of missed ones, and what was waited for has not happened", r.name, patience, nRaised, nMissed)
		}
	}
}

// Reset forgets what was recorded so far.
func (r *Recorder[T]) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raised, r.missed = nil, nil
}
