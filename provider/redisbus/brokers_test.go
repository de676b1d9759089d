package redisbus

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site/memsite"
)

// tally is what one instance heard of the events of each of the others.
type tally struct {
	times  [][]atomic.Int32 // by who raised it and its number
	raised atomic.Int64     // distinct
	twice  atomic.Int64
	missed atomic.Int64
}

// The server is killed again and again while instances raise events. What the outages swallow is repaired once it
// is back, or told as missed.
func TestBrokers_LoseNothingInSilenceWhenTheServerIsKilled(t *testing.T) {
	const (
		instances = 3
		events    = 10_000
		kills     = 5
		each      = (events + instances - 1) / instances
	)
	s := startServer(t)
	db := memsite.New(nil)
	id := carillon.NewID()
	brokers := make([]*carillon.Broker, instances)
	tallies := make([]*tally, instances)
	for i := range brokers {
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "test", Server: fmt.Sprint("instance ", i), Database: db,
			Providers: []provider.Provider{newTest(t, Config{URL: s.url()})},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		y := &tally{times: make([][]atomic.Int32, instances)}
		for j := range y.times {
			y.times[j] = make([]atomic.Int32, each)
		}
		b.Event(id).OnRaised(func(_ context.Context, r carillon.Raised[any]) {
			if r.Local {
				return
			}
			var from, n int
			if _, err := fmt.Sscan(r.Parameter.(string), &from, &n); err != nil {
				t.Errorf("parameter %q: %v", r.Parameter, err)
				return
			}
			if y.times[from][n].Add(1) == 1 {
				y.raised.Add(1)
			} else {
				y.twice.Add(1)
			}
		})
		b.Event(id).OnMissed(func(_ context.Context, m carillon.Missed) {
			t.Logf("instance %d missed %+v", i, m)
			y.missed.Add(int64(m.Count))
		})
		b.Enable()
		brokers[i], tallies[i] = b, y
	}

	var total atomic.Int64
	var running sync.WaitGroup
	for i, b := range brokers {
		running.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := range each {
				<-tick.C
				if err := b.Event(id).Raise(t.Context(), carillon.ID{}, fmt.Sprint(i, " ", n)); err != nil {
					t.Errorf("raise: %v", err)
					return
				}
				total.Add(1)
			}
		})
	}
	for k := range kills {
		at := int64((k + 1) * events / (kills + 1))
		if !eventually(func() bool { return total.Load() >= at }) {
			t.Fatalf("only %d events were raised", total.Load())
		}
		s.kill()
		down := total.Load()
		eventually(func() bool { return total.Load() >= min(down+300, each*instances) }) // while it is away
		s.start()
	}
	running.Wait()

	const expected = each * (instances - 1)
	for i, y := range tallies {
		if !eventually(func() bool { return y.raised.Load()+y.missed.Load() >= expected }) {
			t.Errorf("instance %d: of %d events %d were raised and %d missed; the rest is neither", i, expected, y.raised.Load(), y.missed.Load())
		}
		st := brokers[i].Stats()
		t.Logf("instance %d: of %d events %d raised, %d missed, %d twice; %d failed calls of Send, %d frames repaired",
			i, expected, y.raised.Load(), y.missed.Load(), y.twice.Load(), st.Providers[0].Failures, st.Repair.Repaired)
		if n := y.twice.Load(); n > 0 {
			t.Errorf("instance %d: %d events were raised twice", i, n)
		}
		if all := y.raised.Load() + y.missed.Load(); all != expected {
			t.Errorf("instance %d: raised and missed are %d, want %d", i, all, expected)
		}
		if y.missed.Load() > expected/100 {
			t.Errorf("instance %d missed %d of %d, more than 1 %%", i, y.missed.Load(), expected)
		}
	}
}
