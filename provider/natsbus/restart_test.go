package natsbus_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/natsbus"
	"github.com/carillon-go/carillon/site/memsite"
)

// A hearer is a Broker with what it was told.
type hearer struct {
	broker *carillon.Broker

	mu    sync.Mutex
	times map[int]int // how often each event was raised here
}

// outcome returns how many different events were raised, how many of them more than once, and how many were missed.
func (h *hearer) outcome() (raised, twice, missed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.times {
		if n > 1 {
			twice++
		}
	}
	return len(h.times), twice, int(h.broker.Stats().Missed)
}

func (h *hearer) inStep(peers int) bool {
	known := 0
	for _, p := range h.broker.Stats().Peers {
		if !p.Joining && !p.HeardAt.IsZero() {
			known++
		}
	}
	return known == peers
}

func TestProvider_LosesNothingSilentlyWhenItsServerIsKilled(t *testing.T) {
	const instances, events, restarts = 3, 10_000, 5
	server := natsbus.StartTestServer(t)
	db := memsite.New(nil)
	definition := carillon.Define[int](carillon.NewID(), "counted")
	hearers := make([]*hearer, instances)
	for i := range hearers {
		p, err := natsbus.New(natsbus.Config{URLs: []string{server.URL()}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "restarts", Database: db, Providers: []provider.Provider{p}, Poll: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		h := &hearer{broker: b, times: make(map[int]int)}
		definition.OnRaised(b, func(_ context.Context, r carillon.Raised[int]) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.times[r.Parameter]++
		})
		b.Enable()
		hearers[i] = h
	}
	natsbus.Eventually(t, "all know each other", func() bool {
		for _, h := range hearers {
			if !h.inStep(instances - 1) {
				return false
			}
		}
		return true
	})

	// Each raises an event a millisecond. The server is killed when so many have been raised.
	var raised atomic.Int64
	progress := make(chan struct{}, events)
	var raisers sync.WaitGroup
	for i, h := range hearers {
		raisers.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := i; n < events; n += instances {
				<-tick.C
				if err := definition.Raise(t.Context(), h.broker, carillon.ID{}, n); err != nil {
					t.Errorf("raise %d: %v", n, err)
				}
				raised.Add(1)
				progress <- struct{}{}
			}
		})
	}
	for n, killed := 1, 0; n <= events; n++ {
		<-progress
		if killed < restarts && n == (killed+1)*events/(restarts+2) {
			server.Restart()
			killed++
		}
	}
	raisers.Wait()

	natsbus.Eventually(t, "every event was raised or missed everywhere", func() bool {
		for _, h := range hearers {
			if raised, _, missed := h.outcome(); raised+missed < events {
				return false
			}
		}
		return true
	})
	for i, h := range hearers {
		raised, twice, missed := h.outcome()
		repair := h.broker.Stats().Repair
		t.Logf("instance %d: %d events, server killed %d times: %d raised, %d missed, %d twice; %d frames repaired", i, events, restarts, raised, missed, twice, repair.Repaired)
		if raised+missed != events || twice != 0 {
			t.Errorf("instance %d: %d raised and %d missed of %d, %d of them more than once", i, raised, missed, events, twice)
		}
		if missed > events/100 {
			t.Errorf("instance %d: %d of %d missed, more than one in a hundred", i, missed, events)
		}
	}
}
