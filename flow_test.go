package carillon_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
)

// A receiver whose transport keeps little is sent no more than that, and what was kept back
// goes as soon as there is room: not with the next event, heartbeat or timer.
func TestFlow_SendersFillABufferAndGoOnWhenItIsRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const buffer = 64 << 10
		db, bus := site2()
		caps := provider.Capabilities{MaxFrameBytes: 1200}
		var onWay, most atomic.Int64
		from := &wrap{Provider: bus.Provider(), caps: &caps}
		from.start = func(ctx context.Context, env provider.Env) error {
			env.ReceiveBuffer(buffer)
			return from.Provider.Start(ctx, env)
		}
		from.send = func(ctx context.Context, frames [][]byte) error {
			if eventFrames(frames) > 0 {
				for _, f := range frames {
					onWay.Add(int64(len(f) + provider.FrameCharge))
				}
				most.Store(max(most.Load(), onWay.Load()))
			}
			return from.Provider.Send(ctx, frames)
		}
		gate := make(chan struct{})
		to := &wrap{Provider: bus.Provider(), caps: &caps}
		to.start = func(ctx context.Context, env provider.Env) error {
			deliver := env.Deliver
			env.Deliver = func(b provider.Batch) {
				<-gate
				if eventFrames(b.Frames) > 0 {
					for _, f := range b.Frames {
						onWay.Add(-int64(len(f) + provider.FrameCharge))
					}
				}
				deliver(b)
			}
			env.ReceiveBuffer(buffer)
			return to.Provider.Start(ctx, env)
		}
		open := make(chan struct{})
		go func() { // until both are there
			for {
				select {
				case gate <- struct{}{}:
				case <-open:
					return
				}
			}
		}()
		a, b := mustOpen(t, config(db, from)), mustOpen(t, config(db, to))
		a.Enable()
		b.Enable()
		d := define()
		rec := carillontest.Record(t, b, d)
		time.Sleep(3 * time.Second)
		close(open)

		start := time.Now()
		for n := 1; n <= 300; n++ {
			if err := d.Raise(t.Context(), a, carillon.ID{}, note{N: n, Text: strings.Repeat("x", 500)}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if most.Load() < buffer*3/4 || most.Load() > buffer {
			t.Errorf("%d bytes are on their way to a buffer of %d that nobody reads", most.Load(), buffer)
		}
		if got := len(rec.Raised()); got != 0 {
			t.Fatalf("%d events were told behind a closed gate", got)
		}
		close(gate)
		synctest.Wait()
		if got := numbers(rec.Raised()); !slices.Equal(got, span(1, 300)) || time.Since(start) > 0 {
			t.Errorf("%d events of 300 were told after %v", len(got), time.Since(start))
		}
		if s := a.Stats(); most.Load() > buffer || s.Repair.Resent > 0 || s.Peers[0].Evictions > 0 {
			t.Errorf("%d bytes were on their way at most; %+v", most.Load(), s.Repair)
		}
	})
}

// Subscribers that are behind for a moment, because events come faster than the processor is given
// to them, miss nothing; what arrives waits.
func TestFlow_ASubscriberThatIsBehindForAMomentMissesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) {
			cfg.QueueBytes = 2 << 20
		}))
		d := define()
		told := 0
		d.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) {
			time.Sleep(10 * time.Microsecond)
			told++
		})
		const all = 20_000 // of which the queue holds a third
		raise(t, d, c.Broker(0), 1, all)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := c.Broker(1).Stats(); told != all || s.Missed != 0 {
			t.Errorf("%d of %d events told, %d missed", told, all, s.Missed)
		}
	})
}
