package awsbus

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/awsbus/awsbustest"
	"github.com/carillon-go/carillon/site/memsite"
)

// quiet waits until nothing has been published for longer than a heartbeat would take.
func quiet(tb testing.TB, e *awsbustest.Emulator) {
	tb.Helper()
	last, since := -1, time.Now()
	if !eventually(func() bool {
		if n := e.Calls()["sns:PublishBatch"]; n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 1500*time.Millisecond
	}) {
		tb.Fatal("idle instances go on publishing")
	}
}

// What a site costs: idle instances publish nothing, and a lone event some calls, of which docs/providers.md has the sum.
func TestCost_OfALoneEvent(t *testing.T) {
	t.Parallel() // it mostly waits
	const n = 3
	e := awsbustest.Start(t, awsbustest.Options{})
	db := memsite.New(nil)
	id := carillon.NewID()
	var brokers []*carillon.Broker
	var raised atomic.Int32
	for i := range n {
		p := at(t, e)
		p.times.linger = defaultTimes.linger
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "test", Server: fmt.Sprint("instance ", i), Database: db, Providers: []provider.Provider{p},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		b.Event(id).OnRaised(func(context.Context, carillon.Raised[any]) { raised.Add(1) })
		b.Enable()
		brokers = append(brokers, b)
	}
	quiet(t, e)
	e.ResetCalls()
	if err := brokers[0].Event(id).Raise(t.Context(), carillon.ID{}, "parameter"); err != nil {
		t.Fatal(err)
	}
	if !eventually(func() bool { return raised.Load() == n }) {
		t.Fatalf("raised at %d instances", raised.Load())
	}
	quiet(t, e)
	calls := maps.Clone(e.Calls())
	t.Logf("a lone event among %d instances: %v", n, calls)
	if got := calls["sns:PublishBatch"]; got > n+3 {
		t.Errorf("published %d times, want the event, a heartbeat, and an acknowledgement of each other instance", got)
	}
}
