package carillon_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/site/memsite"
)

// transports returns, for each built-in transport, what makes one more provider
// on a network of its own.
func transports(tb testing.TB) map[string]func() provider.Provider {
	bus := membus.New()
	return map[string]func() provider.Provider{
		"mem": func() provider.Provider { return bus.Provider() },
		"tcp": func() provider.Provider {
			p, err := tcpbus.New(tcpbus.Config{Listen: "127.0.0.1:0"})
			if err != nil {
				tb.Fatal(err)
			}
			return p
		},
	}
}

// connect opens n Brokers over one transport.
func connect(tb testing.TB, n int, transport func() provider.Provider) []*carillon.Broker {
	db := memsite.New(nil)
	brokers := make([]*carillon.Broker, n)
	for i := range brokers {
		cfg := config(db, transport())
		cfg.Server = fmt.Sprintf("instance %d", i+1)
		brokers[i] = mustOpen(tb, cfg)
		brokers[i].Enable()
	}
	return brokers
}

// Everything raised is told on every other instance, once, over real sockets.
func TestSockets_EveryEventArrivesOnce(t *testing.T) {
	for name, transport := range transports(t) {
		t.Run(name, func(t *testing.T) {
			const n, events = 4, 2000
			brokers := connect(t, n, transport)
			id := carillon.NewID()
			var told [n][events]atomic.Int32
			var total atomic.Int64
			all := make(chan struct{})
			for i, b := range brokers {
				b.Event(id).OnRaised(func(_ context.Context, r carillon.Raised[any]) {
					if r.Local {
						return
					}
					told[i][r.Ordinal].Add(1)
					if total.Add(1) == (n-1)*events {
						close(all)
					}
				})
				b.Event(id).OnMissed(func(_ context.Context, m carillon.Missed) { t.Errorf("instance %d missed %+v", i+1, m) })
			}
			for k := range events {
				if err := brokers[0].Event(id).Raise(t.Context(), carillon.ID{}, fmt.Sprint(k)); err != nil {
					t.Fatal(err)
				}
				if k%100 == 99 {
					runtime.Gosched() // no flow control holds back a datagram network: give it a chance to drain
				}
			}
			select {
			case <-all:
			case <-time.After(20 * time.Second):
				t.Fatalf("%d of %d deliveries", total.Load(), (n-1)*events)
			}
			for i := 1; i < n; i++ {
				for k := range events {
					if got := told[i][k].Load(); got != 1 {
						t.Errorf("instance %d heard event %d %d times", i+1, k, got)
					}
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			for i, b := range brokers {
				if err := b.Shutdown(ctx); err != nil {
					t.Errorf("shut down instance %d: %v", i+1, err)
				}
			}
		})
	}
}

// BenchmarkSockets raises on one instance and counts on n others, in one process:
// all checks and tags, all copies, no process boundary.
func BenchmarkSockets(b *testing.B) {
	for name, transport := range transports(b) {
		for _, n := range []int{1, 3} {
			b.Run(fmt.Sprintf("%s/throughput/receivers=%d", name, n), func(b *testing.B) {
				brokers := connect(b, n+1, transport)
				id := carillon.NewID()
				told := make([]atomic.Int64, n)
				for i := range n {
					brokers[i+1].Event(id).OnRaised(func(context.Context, carillon.Raised[any]) { told[i].Add(1) })
				}
				e, payload := brokers[0].Event(id), make([]byte, 128)
				b.ReportAllocs()
				raised := int64(0)
				behind := func(most int64) bool {
					for i := range told {
						if told[i].Load() < raised-most {
							return true
						}
					}
					return false
				}
				for b.Loop() {
					if err := e.Raise(b.Context(), carillon.ID{}, payload); err != nil {
						b.Fatal(err)
					}
					// The receivers must keep up, or their full queues are what is measured.
					for raised++; behind(10_000); {
						runtime.Gosched()
					}
				}
				for behind(0) {
					runtime.Gosched()
				}
				b.ReportMetric(float64(raised)*float64(n)/b.Elapsed().Seconds(), "deliveries/s")
				for i := range n {
					if m := brokers[i+1].Stats().Missed; m > 0 {
						b.Errorf("receiver %d missed %d", i+1, m)
					}
				}
			})
		}
		b.Run(name+"/latency", func(b *testing.B) {
			brokers := connect(b, 2, transport)
			id := carillon.NewID()
			told := make(chan struct{}, 1)
			brokers[1].Event(id).OnRaised(func(context.Context, carillon.Raised[any]) { told <- struct{}{} })
			e := brokers[0].Event(id)
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Raise(b.Context(), carillon.ID{}, nil); err != nil {
					b.Fatal(err)
				}
				<-told
			}
		})
	}
}
