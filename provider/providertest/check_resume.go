package providertest

import (
	"bytes"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/carillon-go/carillon/provider"
)

// mostKept is how many Delivers the check keeps at once.
const mostKept = 4

func checkResume(c *check) {
	c.start()
	c.meet()
	e := c.eps[1]
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { e.OnBatch(nil); close(gate) })
	defer open()
	var begun atomic.Int32
	var kept sync.WaitGroup
	e.OnBatch(func(b provider.Batch) {
		if b.Done != nil {
			b.Done()
		}
		if b.Resume == nil {
			return
		}
		n := begun.Add(1)
		if n > mostKept {
			return
		}
		kept.Add(1)
		defer kept.Done()
		frames := slices.Clone(b.Frames)
		if n%2 == 0 {
			b.Resume()
		} else { // from any goroutine
			resumed := make(chan struct{})
			go func() { defer close(resumed); b.Resume() }()
			<-resumed
		}
		<-gate
		if !slices.EqualFunc(frames, b.Frames, bytes.Equal) {
			c.errorf("after Resume the slice of the batch was used again")
		}
		if n > mostKept/2 {
			runtime.Goexit()
		}
	})
	for range 3 * mostKept { // each while those before are kept
		c.carry(0, c.frames(0, laneAll, 3, smallFrame), 1)
	}
	if begun.Load() == 0 {
		return // what is nil is not promised
	}
	if err := c.within("Close while a Deliver runs whose Resume was called", e.Close); err != nil {
		c.errorf("Close while a Deliver runs whose Resume was called: %v", err)
	}
	open()
	kept.Wait()
}
