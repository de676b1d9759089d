package carillontest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site/memsite"
)

// Outages is a trial of a transport on a server: instances raise events, about one a millisecond each, while the
// server is killed and started again, over and over. Every event must end as Raised or Missed at each of
// the other instances, none twice, and no more than one in a hundred as Missed. Provider, Kill and Start are required. It
// cannot run inside a testing/synctest bubble.
//
// If the environment variable CARILLON_OUTAGE is a duration, such as 30s, the server is killed once, for about so long.
type Outages struct {
	Provider func(i int) provider.Provider // makes that of instance i
	Kill     func()                        // ends the server as a crash does
	Start    func()                        // starts it again at the same address, and returns when it is up

	Instances int // 0 means 3
	Events    int // raised by all of them together; 0 means 10,000
	Kills     int // 0 means 5
	Away      int // events that are raised before the server is started again; 0 means 300
}

// Outcome is what became of the events of the others at one instance.
type Outcome struct {
	Expected, Raised, Missed, Twice int
	Stats                           carillon.Stats
}

// problem says how o breaks the promise, if it does.
func (o Outcome) problem() string {
	switch {
	case o.Twice > 0:
		return fmt.Sprintf("%d events were raised twice", o.Twice)
	case o.Raised+o.Missed != o.Expected:
		return fmt.Sprintf("%d events were raised and %d missed, want %d together", o.Raised, o.Missed, o.Expected)
	case o.Missed > o.Expected/100:
		return fmt.Sprintf("%d of %d events were missed, more than one in a hundred", o.Missed, o.Expected)
	}
	return ""
}

// hearer is one instance of the trial.
type hearer struct {
	broker *carillon.Broker
	missed atomic.Int64

	mu    sync.Mutex // guards the fields below
	times map[serial]int
	twice int
}

// serial is the parameter of the trial's event: who raised it, and as its how many-th.
type serial struct{ From, N int }

// Run does the trial, fails t if the promise is broken, logs what became of the events, and returns it, by instance.
func (o Outages) Run(t testing.TB) []Outcome {
	t.Helper()
	o = o.withDefaults(t)
	definition := carillon.Define[serial](carillon.NewID(), "trial")
	hearers := o.open(t, definition)
	o.trouble(t, definition, hearers)

	each := o.Events / o.Instances
	expected := each * (o.Instances - 1)
	outcomes := make([]Outcome, len(hearers))
	for i, h := range hearers {
		Eventually(t, fmt.Sprintf("instance %d has raised or missed all %d events", i, expected), func() bool {
			outcomes[i] = h.outcome(expected)
			return outcomes[i].Raised+outcomes[i].Missed >= expected
		})
	}
	for i, h := range hearers {
		c := h.outcome(expected)
		outcomes[i] = c
		t.Logf("instance %d: of %d events, server killed %d times: %d raised, %d missed, %d twice; %d failed calls of Send, %d frames repaired",
			i, expected, o.Kills, c.Raised, c.Missed, c.Twice, c.Stats.Providers[0].Failures, c.Stats.Repair.Repaired)
		if problem := c.problem(); problem != "" {
			t.Errorf("instance %d: %s", i, problem)
		}
	}
	return outcomes
}

func (o Outages) withDefaults(t testing.TB) Outages {
	if text := os.Getenv("CARILLON_OUTAGE"); text != "" {
		long, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("CARILLON_OUTAGE: %v", err)
		}
		o.Instances = max(o.Instances, 3)
		o.Kills, o.Away = 1, int(long/time.Millisecond)*o.Instances
		o.Events = o.Away + 10_000
	}
	for field, value := range map[*int]int{&o.Instances: 3, &o.Events: 10_000, &o.Kills: 5, &o.Away: 300} {
		if *field == 0 {
			*field = value
		}
	}
	return o
}

// open opens the instances, and returns when all know each other.
func (o Outages) open(t testing.TB, d *carillon.Definition[serial]) []*hearer {
	db := memsite.New(nil)
	var hearers []*hearer
	for i := range o.Instances {
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "trial", Server: fmt.Sprint("instance ", i), Database: db, Poll: 100 * time.Millisecond,
			Providers: []provider.Provider{o.Provider(i)},
		})
		if err != nil {
			t.Fatalf("open instance %d: %v", i, err)
		}
		t.Cleanup(func() { b.Close() })
		h := &hearer{broker: b, times: make(map[serial]int)}
		d.OnRaised(b, h.raised)
		d.OnMissed(b, func(_ context.Context, m carillon.Missed) { h.missed.Add(int64(m.Count)) })
		b.Enable()
		hearers = append(hearers, h)
	}
	for i, h := range hearers {
		Eventually(t, fmt.Sprintf("instance %d has heard of all others", i), func() bool {
			known := slices.DeleteFunc(h.broker.Stats().Peers, func(p carillon.PeerStats) bool { return p.Joining || p.HeardAt.IsZero() })
			return len(known) == o.Instances-1
		})
	}
	return hearers
}

// trouble raises all events, and kills and starts the server meanwhile.
func (o Outages) trouble(t testing.TB, d *carillon.Definition[serial], hearers []*hearer) {
	each := o.Events / o.Instances
	var total atomic.Int64
	var raisers sync.WaitGroup
	defer raisers.Wait()
	for i, h := range hearers {
		raisers.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := range each {
				<-tick.C
				if err := d.Raise(t.Context(), h.broker, carillon.ID{}, serial{i, n}); err != nil {
					t.Errorf("instance %d: raise event %d: %v", i, n, err)
				}
				total.Add(1)
			}
		})
	}
	reach := func(when string, n int) {
		for step := int(total.Load()); step < n; {
			step = min(step+1000, n) // as long as there is progress, a long trial takes long
			Eventually(t, fmt.Sprintf("%d events have been raised, %s", step, when), func() bool { return int(total.Load()) >= step })
		}
	}
	for k := range o.Kills {
		reach("before the server is killed", (k+1)*(o.Events-o.Kills*o.Away)/(o.Kills+1)+k*o.Away)
		o.Kill()
		reach("while the server is away", min(int(total.Load())+o.Away, each*o.Instances))
		o.Start()
	}
}

func (h *hearer) raised(_ context.Context, r carillon.Raised[serial]) {
	if r.Local {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.times[r.Parameter]++; h.times[r.Parameter] == 2 {
		h.twice++
	}
}

func (h *hearer) outcome(expected int) Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Outcome{Expected: expected, Raised: len(h.times), Missed: int(h.missed.Load()), Twice: h.twice, Stats: h.broker.Stats()}
}
