package carillon_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

func BenchmarkRaise_Local(b *testing.B) {
	for _, subscribers := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("subscribers=%d", subscribers), func(b *testing.B) {
			br := local(b)
			d := carillon.Define[*note](carillon.NewID(), "pointer")
			told := 0
			for range subscribers {
				d.OnRaised(br, func(context.Context, carillon.Raised[*note]) { told++ })
			}
			n := &note{N: 1}
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Raise(b.Context(), br, carillon.ID{}, n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The registry is read on every raise and for every event received.
func BenchmarkEvent_Lookup(b *testing.B) {
	for _, events := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			br := local(b)
			ids := make([]carillon.ID, events)
			for i := range ids {
				ids[i] = carillon.NewID()
				br.Event(ids[i])
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					br.Event(ids[i%events])
				}
			})
		})
	}
}

// End to end: raise on one instance, a subscriber's function on another, all
// checks and tags between, the transport in memory.
func BenchmarkEndToEnd_Mem(b *testing.B) {
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprintf("throughput/bytes=%d", size), func(b *testing.B) {
			c := carillontest.NewCluster(b, 2)
			id := carillon.NewID()
			var told atomic.Int64
			window := int64(1 << 20 / size) // events on their way, far less than fit into any queue
			c.Broker(1).Event(id).OnMissed(func(_ context.Context, m carillon.Missed) { b.Errorf("missed: %+v", m) })
			c.Broker(1).Event(id).OnRaised(func(context.Context, carillon.Raised[any]) { told.Add(1) })
			e, payload := c.Broker(0).Event(id), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			n := int64(0)
			for b.Loop() {
				if err := e.Raise(b.Context(), carillon.ID{}, payload); err != nil {
					b.Fatal(err)
				}
				// The subscriber must keep up, or its full queue is what is measured.
				for n++; told.Load() < n-window; {
					runtime.Gosched()
				}
			}
			for told.Load() < n {
				runtime.Gosched()
			}
		})
	}
	b.Run("latency", func(b *testing.B) {
		c := carillontest.NewCluster(b, 2)
		id := carillon.NewID()
		told := make(chan struct{}, 1)
		c.Broker(1).Event(id).OnRaised(func(context.Context, carillon.Raised[any]) { told <- struct{}{} })
		e := c.Broker(0).Event(id)
		b.ReportAllocs()
		for b.Loop() {
			if err := e.Raise(b.Context(), carillon.ID{}, nil); err != nil {
				b.Fatal(err)
			}
			<-told
		}
	})
}
