//go:build !race

// The race detector allocates, so make test runs these without it as well.

package carillon_test

import (
	"context"
	"testing"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

func TestRaise_LocalAllocatesNothing(t *testing.T) {
	for _, subscribers := range []int{0, 1, 10, 100} {
		b := local(t)
		d := carillon.Define[*note](carillon.NewID(), "pointer")
		told := 0
		for range subscribers {
			d.OnRaised(b, func(_ context.Context, r carillon.Raised[*note]) { told += r.Parameter.N })
		}
		e, n, raiser, ctx := d.Event(b), &note{N: 1}, carillon.NewID(), t.Context()
		for name, raise := range map[string]func() error{
			"typed":      func() error { return d.Raise(ctx, b, raiser, n) },
			"untyped":    func() error { return e.Raise(ctx, raiser, n) },
			"local only": func() error { return e.Raise(ctx, raiser, n, carillon.LocalOnly()) },
		} {
			if allocs := testing.AllocsPerRun(100, func() {
				if err := raise(); err != nil {
					t.Fatal(err)
				}
			}); allocs != 0 {
				t.Errorf("%s, %d subscribers: %v allocations", name, subscribers, allocs)
			}
		}
		if told == 0 && subscribers > 0 {
			t.Error("nobody was told")
		}
	}
}

func TestEvent_LookupAllocatesNothing(t *testing.T) {
	b := local(t)
	id := carillon.NewID()
	b.Event(id)
	if allocs := testing.AllocsPerRun(100, func() { b.Event(id) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// nothing is a codec for parameters without content.
type nothing struct{}

func (nothing) Name() string                             { return "nothing" }
func (nothing) Encode(dst []byte, _ any) ([]byte, error) { return dst, nil }
func (nothing) Decode([]byte, any) error                 { return nil }

// What is left is per frame and per slab, not per event, as long as subscribers
// keep up: what waits for a slow one is copied out of its frame.
func TestRaise_SendingAndReceivingAllocatesNothingPerEvent(t *testing.T) {
	c := carillontest.NewCluster(t, 2)
	d := carillon.Define[struct{}](carillon.NewID(), "nothing", carillon.WithCodec(nothing{}))
	const events, burst = 5000, 250
	told := make(chan struct{}, 1)
	n := 0
	d.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[struct{}]) {
		if n++; n%burst == 0 {
			told <- struct{}{}
		}
	})
	ctx := t.Context()
	allocs := testing.AllocsPerRun(10, func() {
		for range events / burst {
			for range burst {
				if err := d.Raise(ctx, c.Broker(0), carillon.ID{}, struct{}{}); err != nil {
					t.Fatal(err)
				}
			}
			<-told
		}
	})
	t.Logf("%v allocations for %d events", allocs, events)
	if allocs > events/10 {
		t.Errorf("%v allocations for %d events", allocs, events)
	}
}
