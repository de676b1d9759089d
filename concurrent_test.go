package carillon_test

import (
	"context"
	"sync"
	"testing"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

// For the race detector, and for deadlocks: everything at once, with the real clock.
func TestBroker_IsSafeForConcurrentUse(t *testing.T) {
	c := carillontest.NewCluster(t, 3, carillontest.Disabled())
	defs := []*carillon.Definition[note]{define(), define(carillon.Ordered()), define()}
	var wg sync.WaitGroup
	for i := range 3 {
		b := c.Broker(i)
		for _, work := range []func(n int){
			func(n int) {
				if err := defs[n%3].Raise(context.Background(), b, carillon.ID{}, note{N: n}); err != nil {
					t.Errorf("raise: %v", err)
				}
			},
			func(n int) {
				remove := defs[n%3].OnRaised(b, func(ctx context.Context, r carillon.Raised[note]) {
					if !r.Local && r.Parameter.N%50 == 0 {
						if err := defs[0].Raise(ctx, b, carillon.ID{}, note{N: 1}, carillon.LocalOnly()); err != nil {
							t.Errorf("raise inside a subscriber: %v", err)
						}
					}
				})
				removeMissed := defs[n%3].OnMissed(b, func(context.Context, carillon.Missed) {})
				removeTap := b.OnReceived(func(carillon.Received) {})
				remove()
				removeMissed()
				removeTap()
			},
			func(n int) {
				b.Enable()
				b.Stats()
				b.Status()
				b.Members()
				b.Event(carillon.NewID()).Counts()
				if err := b.Flush(context.Background()); err != nil {
					t.Errorf("flush: %v", err)
				}
			},
		} {
			wg.Go(func() {
				for n := range 300 {
					work(n)
				}
			})
		}
	}
	wg.Wait()
	for i := range 3 {
		b := c.Broker(i)
		wg.Go(func() {
			for {
				if err := defs[0].Raise(context.Background(), b, carillon.ID{}, note{}); err != nil {
					wantErr(t, "raise", err, carillon.ErrClosed)
					return
				}
			}
		})
		wg.Go(func() {
			if err := b.Shutdown(context.Background()); err != nil {
				t.Errorf("shut down: %v", err)
			}
		})
		if i == 1 {
			wg.Go(func() { b.Shutdown(context.Background()) })
		}
	}
	wg.Wait()
}
