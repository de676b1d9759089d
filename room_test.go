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
