package carillon_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

// Whatever the bounds are, a subscriber that keeps up holds nobody up: with a queue below one frame, or frames above the
// queue.
func TestRoom_SmallQueuesHoldNobodyUp(t *testing.T) {
	for _, queue := range []int{600, 40 << 10, 1 << 20} {
		bubble(t, func(t *testing.T) {
			c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.QueueBytes = queue }))
			d := define()
			rec := carillontest.Record(t, c.Broker(1), d)
			start := time.Now()
			for n := 1; n <= 300; n++ {
				raise(t, d, c.Broker(0), n, n)
				synctest.Wait()
			}
			if got := len(rec.Raised()); got != 300 {
				t.Fatalf("queue of %d bytes: %d of 300 told", queue, got)
			}
			if err := c.Broker(0).Flush(bounded(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			for _, p := range c.Broker(0).Stats().Peers {
				if p.Evictions > 0 || p.Acknowledged.Next != 300 {
					t.Errorf("queue of %d bytes: %+v after %v", queue, p, time.Since(start))
				}
			}
		})
	}
}

// A function that stands still holds up others for half of MaxStall, once; afterwards everything is acknowledged as it comes.
func TestRoom_ASubscriberThatStandsStillPacesOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.QueueBytes = 64 << 10 }))
		stuck, fine := define(), carillon.Define[note](carillon.NewID(), "fine")
		leave := make(chan struct{})
		stuck.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) { <-leave })
		rec := carillontest.Record(t, c.Broker(1), fine)
		raise(t, stuck, c.Broker(0), 1, 1000)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for n := 1; n <= 200; n++ { // a queue that is stuck for good
			raise(t, stuck, c.Broker(0), n, n)
			raise(t, fine, c.Broker(0), n, n)
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if got := len(rec.Raised()); got != n {
				t.Fatalf("event %d was not told within 10 ms", n)
			}
		}
		close(leave)
	})
}

// What a full queue cannot take is not acknowledged, and at once when it can: who raises waits for that. A function that does not
// return is not waited for any longer.
func TestRoom_AFullQueueHoldsAcknowledgementsBack(t *testing.T) {
	for _, returns := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.QueueBytes = 64 << 10 }))
			d := define()
			leave := make(chan struct{})
			d.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) { <-leave })
			acknowledged := func() uint64 { return c.Broker(0).Stats().Peers[0].Acknowledged.Next }
			const some = 150 // of which the last leave no room in the queue for a frame of 32 KiB
			for n := 1; n <= some; n++ {
				raise(t, d, c.Broker(0), n, n)
				synctest.Wait()
			}
			time.Sleep(100 * time.Millisecond) // an ACK comes after 50 otherwise
			synctest.Wait()
			if n := acknowledged(); n == 0 || n > some*5/6 {
				t.Errorf("%d of %d events are acknowledged, with a queue that can take no more", n, some)
			}
			if !returns {
				time.Sleep(5 * time.Second)
				raise(t, d, c.Broker(0), some+1, some+1)
				time.Sleep(time.Second)
				synctest.Wait()
				if n := acknowledged(); n != some+1 {
					t.Errorf("%d of %d events are acknowledged 6 s after the function stopped", n, some+1)
				}
				close(leave)
				return
			}
			close(leave)
			synctest.Wait()
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if n := acknowledged(); n != some {
				t.Errorf("%d of %d events are acknowledged when the queue is empty", n, some)
			}
		})
	}
}
