package providertest

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"slices"
	"sync"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// minFrameBytes is the least that MaxFrameBytes may be: a frame's header, its
// tag, and an event without a parameter.
const minFrameBytes = 256

func checkName(c *check) {
	p, q := c.network.Providers[0], c.network.Providers[1]
	name := p.Name()
	if !regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`).MatchString(name) {
		c.errorf("Name() = %q; want a short word of lower-case letters, digits and hyphens", name)
	}
	if q.Name() != name {
		c.errorf("two providers of one transport are called %q and %q, so that neither finds the other's addresses", name, q.Name())
	}
	c.start()
	if p.Name() != name {
		c.errorf("Name() was %q before Start and is %q after it", name, p.Name())
	}
}

func checkCapabilities(c *check) {
	p, claims := c.network.Providers[0], c.caps
	if claims.MaxFrameBytes < 0 || claims.MaxFrameBytes > 0 && claims.MaxFrameBytes < minFrameBytes {
		c.errorf("MaxFrameBytes = %d; want 0 or at least %d, which the smallest event needs", claims.MaxFrameBytes, minFrameBytes)
	}
	if claims.ReorderDelay < 0 {
		c.errorf("ReorderDelay = %v; want 0 or more", claims.ReorderDelay)
	}
	if claims.Ordered && claims.ReorderDelay > 0 {
		c.errorf("Ordered is claimed and ReorderDelay = %v; frames that arrive in order are not overtaken", claims.ReorderDelay)
	}
	if claims.Durable && c.network.Restart == nil {
		c.errorf("Durable is claimed, but the harness has no Restart to prove it with")
	}
	if claims.SecureChannel && c.network.Garbage == nil {
		c.errorf("SecureChannel is claimed, but the harness has no Garbage to prove it with")
	}
	c.start()
	if got := p.Capabilities(); got != claims {
		c.errorf("Capabilities() was %+v before Start and is %+v after it", claims, got)
	}
	c.closeAll()
	if got := p.Capabilities(); got != claims {
		c.errorf("Capabilities() was %+v before Start and is %+v after Close", claims, got)
	}
}

// The first frame counts: nothing is sent before it that could have opened a
// connection or a subscription on the way.
func checkSubscribed(c *check) {
	c.start()
	for from := range c.eps {
		c.carry(from, c.frames(from, laneAll, 1, smallFrame))
	}
}

func checkAllOthers(c *check) {
	c.start()
	c.meet()
	for from := range c.eps {
		c.carry(from, c.frames(from, laneAll, 10, smallFrame))
	}
}

// What is out of order, examine sees. Here is only enough traffic for it, from two
// senders at once and in batches of all lengths.
func checkOrder(c *check) {
	c.start()
	c.meet()
	var senders sync.WaitGroup
	for from := range 2 {
		senders.Go(func() {
			c.protect(func() {
				for n := range 40 {
					if err := c.send(from, c.frames(from, laneAll, n, smallFrame)...); err != nil {
						c.errorf("Send: %v", err)
					}
				}
			})
		})
	}
	senders.Wait()
	for from := range 2 { // arrives last where order is claimed
		c.carry(from, c.frames(from, laneAll, 1, smallFrame))
	}
	c.quiet()
}

func checkEchoes(c *check) {
	c.start()
	c.meet()
	if c.caps.Echoes {
		c.carry(0, c.frames(0, laneAll, 10, smallFrame), 0, 1)
		return
	}
	c.carry(0, c.frames(0, laneAll, 10, smallFrame), 1)
	c.quiet() // examine sees an echo
}

func checkFrameLimit(c *check) {
	c.start()
	c.meet()
	limit := c.caps.MaxFrameBytes
	if limit == 0 {
		c.carry(0, [][]byte{c.frame(0, laneAll, 1<<20)})
		return
	}
	c.carry(0, [][]byte{c.frame(0, laneAll, limit-1)})
	c.carry(0, [][]byte{c.frame(0, laneAll, limit)})

	small, large := c.frame(0, laneLoose, smallFrame), c.frame(0, laneLoose, limit+1)
	for _, batch := range [][][]byte{{large}, {small, large}, {large, small}} {
		if err := c.send(0, batch...); !errors.Is(err, provider.ErrFrameTooLarge) {
			c.errorf("Send of a frame with %d bytes, one more than MaxFrameBytes: %v; want ErrFrameTooLarge", limit+1, err)
		}
	}
	if u, ok := c.eps[0].Provider.(provider.Unicaster); ok {
		err := c.within("SendTo", func() error { return u.SendTo(c.tb.Context(), c.eps[1].Stream(), [][]byte{large}) })
		if !errors.Is(err, provider.ErrFrameTooLarge) {
			c.errorf("SendTo of a frame with %d bytes, one more than MaxFrameBytes: %v; want ErrFrameTooLarge", limit+1, err)
		}
	}
	c.carry(0, [][]byte{c.frame(0, laneAll, limit)}) // still works
	for _, f := range c.eps[1].Frames() {
		if bytes.Equal(f, large) {
			c.errorf("a frame that Send refused as too large was delivered")
		}
	}
}

func checkBatches(c *check) {
	c.start()
	c.meet()
	for _, empty := range [][][]byte{nil, {}} {
		if err := c.send(0, empty...); err != nil {
			c.errorf("Send of an empty batch: %v; want nil, nothing happens", err)
		}
	}
	for _, n := range []int{1, 2, 3, 10, 63, 64, 65, 255, 256, 257, 1000} {
		c.carry(0, c.frames(0, laneAll, n, smallFrame))
	}
	// Lengths that differ within a batch.
	mixed := make([][]byte, 100)
	for i := range mixed {
		size := frameHeaderLen + i*37
		if limit := c.caps.MaxFrameBytes; limit > 0 {
			size = min(size, limit)
		}
		mixed[i] = c.frame(0, laneAll, size)
	}
	c.carry(0, mixed)
}

func checkBatchSlice(c *check) {
	c.start()
	c.meet()
	// never is a frame that nobody sends: it is written over the slice of each batch that
	// Send or SendTo has returned from.
	never := frameID{c.id, 0, laneAll, 1 << 40, smallFrame}.bytes()
	reusing := func(send func([][]byte) error) func([][]byte) error {
		return func(frames [][]byte) error {
			batch := slices.Clone(frames)
			err := send(batch)
			for i := range batch {
				batch[i] = never
			}
			return err
		}
	}
	for range 20 {
		c.carryWith(0, c.frames(0, laneAll, 50, smallFrame), []int{1}, reusing(func(b [][]byte) error { return c.send(0, b...) }))
	}
	if u, ok := c.eps[0].Provider.(provider.Unicaster); ok {
		for range 20 {
			c.carryWith(0, c.frames(0, laneOne, 50, smallFrame), []int{1}, reusing(c.sendTo(u, c.eps[1].Stream())))
		}
	}
}

// sendTo returns a function that sends to one stream.
func (c *check) sendTo(u provider.Unicaster, to site.StreamID) func([][]byte) error {
	return func(frames [][]byte) error {
		ctx, cancel := context.WithTimeout(c.tb.Context(), c.network.Patience)
		defer cancel()
		return c.within("SendTo", func() error { return u.SendTo(ctx, to, frames) })
	}
}

// What was delivered early is looked at again after much more has
// arrived: a buffer that is used twice shows then. examine looks too.
func checkImmutable(c *check) {
	c.start()
	c.meet()
	size := 1000
	if limit := c.caps.MaxFrameBytes; limit > 0 {
		size = min(size, limit)
	}
	var sent [][]byte
	for range 20 {
		batch := c.frames(0, laneAll, 50, size)
		sent = append(sent, batch...)
		c.carry(0, batch)
	}
	c.closeAll()
	for _, f := range sent {
		if _, ok := parseFrame(f); !ok {
			c.errorf("the bytes of a frame handed to Send were changed")
		}
	}
}

func checkDone(c *check) {
	c.start()
	c.meet()
	batches := func() { // several, so that there are several Done
		for range 5 {
			c.carry(0, c.frames(0, laneAll, 5, smallFrame))
		}
	}
	c.eps[1].OnBatch(func(b provider.Batch) { // before Deliver returns, in another goroutine
		if b.Done != nil {
			done := make(chan struct{})
			go func() { defer close(done); b.Done() }()
			<-done
		}
	})
	batches()

	// A few batches whose Done is still to come do not stop the next ones.
	late := make(chan func(), 1000)
	c.eps[1].OnBatch(func(b provider.Batch) {
		if b.Done != nil {
			late <- b.Done
		}
	})
	batches()
	var waiting []func()
	for len(late) > 0 {
		waiting = append(waiting, <-late)
	}
	for _, done := range slices.Backward(waiting) { // long after Deliver, in another order
		c.within("Done after Deliver", func() error { done(); return nil })
	}
	batches()
	c.closeAll()
	for len(late) > 0 { // after Close
		done := <-late
		c.within("Done after Close", func() error { done(); return nil })
	}
}

func checkSerial(c *check) {
	c.start()
	c.meet()
	// Deliver takes a moment, so that a second one for the same connection would meet it.
	c.eps[0].OnBatch(func(b provider.Batch) {
		if b.Done != nil {
			b.Done()
		}
		c.yield()
	})
	var senders sync.WaitGroup
	for _, from := range []int{1, 2} {
		senders.Go(func() {
			c.protect(func() {
				for range 200 {
					if err := c.send(from, c.frames(from, laneAll, 2, smallFrame)...); err != nil {
						c.errorf("Send: %v", err)
					}
				}
			})
		})
	}
	senders.Wait()
	for _, from := range []int{1, 2} {
		c.carry(from, c.frames(from, laneAll, 1, smallFrame), 0)
	}
}

func checkConcurrentUse(c *check) {
	c.start()
	c.meet()
	p := c.eps[0].Provider
	stop := make(chan struct{})
	const rounds = 20 // of each before the end, so that they meet also where goroutines wait for a processor
	var users, busy sync.WaitGroup
	repeat := func(fn func()) {
		busy.Add(1)
		users.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
					fn()
					c.yield()
				}
				if n == rounds {
					busy.Done()
				}
			}
		})
	}
	acceptable := func(call string, err error) {
		if err != nil && !errors.Is(err, provider.ErrClosed) && !errors.Is(err, provider.ErrUnreachable) {
			c.errorf("%s while other methods are called: %v", call, err)
		}
	}
	all, one := c.frames(0, laneLoose, 3, smallFrame), c.frames(0, laneLoose, 3, smallFrame)
	repeat(func() { acceptable("Send", p.Send(c.tb.Context(), all)) })
	if u, ok := p.(provider.Unicaster); ok {
		repeat(func() { acceptable("SendTo", u.SendTo(c.tb.Context(), c.eps[1].Stream(), one)) })
	}
	if _, ok := p.(provider.MemberWatcher); ok {
		repeat(func() { Introduce(c.eps...) })
	}
	for range 2 {
		repeat(func() {
			p.Name()
			p.Capabilities()
			if a, ok := p.(provider.Advertiser); ok {
				a.Addresses()
			}
		})
	}
	for range rounds {
		c.carry(1, c.frames(1, laneAll, 10, smallFrame))
	}
	c.within("Send and the other methods, called at once", func() error { busy.Wait(); return nil })
	if err := c.within("Close while all methods are called", c.eps[0].Close); err != nil {
		c.errorf("Close while other methods are called: %v", err)
	}
	close(stop)
	users.Wait()
}
