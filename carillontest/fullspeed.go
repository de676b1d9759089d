package carillontest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site/memsite"
)

// FullSpeed is a trial of a transport on a server: instances raise events as fast as they can, and none of these may be missed, since
// receivers pace the senders. How fast that is does not matter: it goes on for as long as events arrive. Provider and Events
// are required. It cannot run inside a testing/synctest bubble.
type FullSpeed struct {
	Provider func(i int) provider.Provider // makes that of instance i
	Events   int                           // raised by each instance that raises
	Bytes    int                           // of an event's parameter; 0 means 512

	Raising int    // instances that raise, of three; 0 means all
	Watch   func() // is called again and again while events are on their way, by the goroutine of the test; nil: nothing
}

const speedInstances = 3

// Run does the trial, and fails t if an event is missed or nothing arrives any more.
func (f FullSpeed) Run(t testing.TB) {
	t.Helper()
	f = f.withDefaults()
	db := memsite.New(nil)
	definition := carillon.Define[[]byte](carillon.NewID(), "trial", carillon.WithCodec(carillon.Bytes()))
	var hearers []*speedHearer
	for i := range speedInstances {
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "trial", Server: fmt.Sprint("instance ", i), Database: db, Providers: []provider.Provider{f.Provider(i)},
			Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		if err != nil {
			t.Fatalf("open instance %d: %v", i, err)
		}
		t.Cleanup(func() { b.Close() })
		h := &speedHearer{broker: b, expected: int64(f.Raising * f.Events)}
		if i < f.Raising {
			h.expected -= int64(f.Events) // its own
		}
		definition.OnRaised(b, h.raised)
		definition.OnMissed(b, func(_ context.Context, m carillon.Missed) {
			t.Logf("instance %d missed %+v", i, m)
			h.missed.Add(int64(m.Count))
		})
		b.Enable()
		hearers = append(hearers, h)
	}
	var raisers sync.WaitGroup
	defer raisers.Wait()
	for i, h := range hearers[:f.Raising] {
		raisers.Go(func() {
			data := make([]byte, f.Bytes)
			for range f.Events {
				if err := definition.Raise(t.Context(), h.broker, carillon.ID{}, data); err != nil {
					t.Errorf("instance %d: raise: %v", i, err)
					return
				}
			}
		})
	}
	for i, h := range hearers {
		h.await(t, i, f.Watch)
	}
}

func (f FullSpeed) withDefaults() FullSpeed {
	if f.Bytes == 0 {
		f.Bytes = 512
	}
	if f.Raising == 0 {
		f.Raising = speedInstances
	}
	if f.Watch == nil {
		f.Watch = func() {}
	}
	return f
}

// speedHearer is one instance of the trial.
type speedHearer struct {
	broker        *carillon.Broker
	expected      int64
	count, missed atomic.Int64
}

func (h *speedHearer) raised(_ context.Context, r carillon.Raised[[]byte]) {
	if !r.Local {
		h.count.Add(1)
	}
}

// await returns when every event has been raised or missed, or when nothing has arrived for so long that nothing will.
func (h *speedHearer) await(t testing.TB, i int, watch func()) {
	t.Helper()
	still := time.NewTimer(patience)
	defer still.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	arrived := int64(-1)
	for {
		n := h.count.Load() + h.missed.Load()
		if n >= h.expected {
			break
		}
		if n > arrived {
			arrived = n
			still.Reset(patience)
		}
		watch()
		select {
		case <-again.C:
		case <-still.C:
			t.Errorf("instance %d: of %d events %d have arrived, and nothing more for %v", i, h.expected, h.count.Load(), patience)
			return
		}
	}
	s := h.broker.Stats()
	var evictions uint64
	for _, p := range s.Peers {
		evictions += p.Evictions
	}
	t.Logf("instance %d: %d failed calls of Send, %d frames repaired, others were too slow to be waited for %d times",
		i, s.Providers[0].Failures, s.Repair.Repaired, evictions)
	if n := h.missed.Load(); n > 0 {
		t.Errorf("instance %d: %d of %d events were missed", i, n, h.expected)
	}
}
