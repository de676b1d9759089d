package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/provider/udpbus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// transports returns, for each built-in transport, what makes one more provider
// on a network of its own.
func transports(tb testing.TB) map[string]func() provider.Provider {
	bus, port := membus.New(), freeUDPPort(tb)
	return map[string]func() provider.Provider{
		"mem": func() provider.Provider { return bus.Provider() },
		"tcp": func() provider.Provider {
			p, err := tcpbus.New(tcpbus.Config{Listen: "127.0.0.1:0"})
			if err != nil {
				tb.Fatal(err)
			}
			return p
		},
		"udp": func() provider.Provider { return multicast(tb, port) },
	}
}

func multicast(tb testing.TB, port int) provider.Provider {
	p, err := udpbus.New(udpbus.Config{Interface: "127.0.0.1", Port: port})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// freeUDPPort returns a port that nobody used a moment ago.
func freeUDPPort(tb testing.TB) int {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port
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

// Whatever anybody on the network sends to the group, nothing of it is raised,
// everything of it is counted, and nobody answers.
func TestSockets_HostileDatagramsAreDroppedCountedAndNotAnswered(t *testing.T) { // E9
	port := freeUDPPort(t)
	var book logBook
	db := memsite.New(nil)
	open := func() *carillon.Broker {
		cfg := config(db, multicast(t, port))
		cfg.Logger = book.logger()
		b := mustOpen(t, cfg)
		b.Enable()
		return b
	}
	sender, target := open(), open()
	id := carillon.NewID()
	var told atomic.Int64
	target.Event(id).OnRaised(func(context.Context, carillon.Raised[any]) { told.Add(1) })

	// One genuine frame, as somebody on the same network sees it.
	seen := make(chan []byte, 1024)
	spy := udpbusSpy(t, port, seen)
	if err := sender.Event(id).Raise(t.Context(), carillon.ID{}, "genuine"); err != nil {
		t.Fatal(err)
	}
	var genuine []byte
	for genuine == nil {
		select {
		case f := <-seen:
			if h, err := wire.ParseHeader(f); err == nil && h.Type == wire.TypeEvents {
				genuine = f
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the spy saw no frame of events")
		}
	}
	eventually(t, "the genuine event is told", func() bool { return told.Load() == 1 })

	before, beforeSender := target.Stats(), sender.Stats()
	var attacks [][]byte
	for i := range genuine {
		altered := slices.Clone(genuine)
		altered[i] ^= 1 << (i % 8)
		attacks = append(attacks, altered)
		if i > 0 {
			attacks = append(attacks, slices.Clone(genuine[:i]))
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 75, 76, 77, 200, 1200, 1400} {
		garbage := make([]byte, n)
		for i := range garbage {
			garbage[i] = byte(random.Uint32())
		}
		attacks = append(attacks, garbage, append(slices.Clone(genuine[:min(n, len(genuine))]), garbage...))
	}
	for range 20 {
		attacks = append(attacks, genuine) // replay
	}
	for _, key := range []site.KeyID{2, 77, 1 << 31} { // a number not seen yet, under a key that does not exist
		h, err := wire.ParseHeader(genuine)
		if err != nil {
			t.Fatal(err)
		}
		h.Number, h.Key = h.Number+1000, key
		forged := slices.Clone(genuine)
		wire.PutHeader(forged, h)
		attacks = append(attacks, forged)
	}
	// What is still said of the start answers no attack: wait until both are idle.
	beats := map[site.StreamID]int{}
	for idle := false; !idle; {
		select {
		case f := <-seen:
			if h, err := wire.ParseHeader(f); err == nil && h.Type == wire.TypeHeartbeat {
				beats[h.Stream]++
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("heartbeats seen in 10 s: %v", beats)
		}
		idle = len(beats) == 2
		for _, n := range beats {
			idle = idle && n >= 3
		}
	}
	sum := func(s carillon.Stats) (n uint64) {
		for _, d := range s.Drops {
			n += d
		}
		return n
	}
	sent := uint64(0)
	arrived := func() bool {
		return sum(target.Stats())-sum(before) >= sent && sum(sender.Stats())-sum(beforeSender) >= sent
	}
	for _, a := range attacks {
		// The group reaches all members; the spy's socket is one that sends to it.
		if err := spy(a); errors.Is(err, provider.ErrFrameTooLarge) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if sent++; sent%32 == 0 { // no more than any receive buffer holds
			eventually(t, "the attacks so far are dropped", arrived)
		}
	}
	eventually(t, "every attack is dropped", arrived)
	after := target.Stats()
	t.Logf("%d attacks: %v", len(attacks), after.Drops)
	for _, reason := range []carillon.DropReason{carillon.DropMalformed, carillon.DropBadTag, carillon.DropForeignSite, carillon.DropUnknownKey, carillon.DropVersion, carillon.DropDuplicate} {
		if after.Drops[reason] == before.Drops[reason] {
			t.Errorf("nothing was dropped as %v", reason)
		}
	}
	if got := told.Load(); got != 1 {
		t.Errorf("the one genuine event was told %d times", got)
	}
	if after.Missed != 0 {
		t.Errorf("%d events missed because of forgeries", after.Missed)
	}
	// Whatever the two say goes to the group, so an answer would be more than their
	// idle heartbeats.
	for len(seen) > 0 {
		if h, err := wire.ParseHeader(<-seen); err == nil && h.Type != wire.TypeHeartbeat && h.Type != wire.TypeACK {
			t.Errorf("a frame of type %v from stream %v, besides heartbeats and the ACK of the genuine event", h.Type, h.Stream)
		}
	}
	// And the way is still open.
	if err := sender.Event(id).Raise(t.Context(), carillon.ID{}, "again"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a genuine event after the attacks is told", func() bool { return told.Load() == 2 })
}

// udpbusSpy joins the default group as any program on the network can. What it
// hears goes to seen; what it returns sends to the group.
func udpbusSpy(t *testing.T, port int, seen chan<- []byte) func([]byte) error {
	p := multicast(t, port)
	if err := p.Start(t.Context(), provider.Env{Logger: slog.New(slog.DiscardHandler), Reconnected: func() {}, ReceiveBuffer: func(int) {},
		Deliver: func(b provider.Batch) {
			for _, f := range b.Frames {
				select {
				case seen <- f:
				default:
				}
			}
		}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return func(f []byte) error { return p.Send(context.Background(), [][]byte{f}) }
}

// eventually waits until ok, for real sockets, where there is no fake clock.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
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
