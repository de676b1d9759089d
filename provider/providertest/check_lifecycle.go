package providertest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// yield lets others run for a moment, which is no wait for anything.
func (c *check) yield() {
	t := time.NewTimer(100 * time.Microsecond)
	<-t.C
}

func checkStartContextEnded(c *check) {
	c.start(0)
	ctx, cancel := context.WithCancel(c.tb.Context())
	cancel()
	before := goroutines()
	late := c.eps[1]
	err := c.within("Start with a ctx that has ended", func() error { return late.Start(ctx) })
	if !errors.Is(err, context.Canceled) {
		c.errorf("Start with a ctx that has ended: %v; want an error that wraps context.Canceled", err)
	}
	if err != nil {
		c.leavesNothing(late, before)
	}
}

// leavesNothing checks an endpoint whose Start failed while provider 0 ran.
func (c *check) leavesNothing(failed *Endpoint, before map[string]string) {
	for _, stack := range leaked(before, c.network.IgnoreGoroutine, c.network.Patience) {
		c.errorf("after the failed Start, before Close, a goroutine is left:\n\t\t%s", stack)
	}
	failed.mu.Lock()
	delivered := failed.count
	failed.mu.Unlock()
	if c.eps[0].started() {
		if err := c.send(0, c.frames(0, laneLoose, 10, smallFrame)...); err != nil {
			c.errorf("Send of another provider after the failed Start: %v", err)
		}
		c.quiet()
	}
	failed.mu.Lock()
	delivered = failed.count - delivered
	failed.mu.Unlock()
	if delivered > 0 {
		c.errorf("after its Start failed, the provider delivered %d frames", delivered)
	}
	if err := c.within("Close after a failed Start", failed.Close); err != nil {
		c.errorf("Close after a failed Start: %v; want nil", err)
	}
}

func checkStartContextBoundsStartAlone(c *check) {
	ctx, cancel := context.WithCancel(c.tb.Context())
	for i, e := range c.eps {
		if err := c.within("Start", func() error { return e.Start(ctx) }); err != nil {
			c.fatalf("Start of provider %d: %v", i, err)
		}
	}
	cancel()
	c.introduce()
	c.quiet()
	c.meet()
	c.carry(0, c.frames(0, laneAll, 10, smallFrame))
	c.carry(1, c.frames(1, laneAll, 10, smallFrame))
}

func checkStartFails(c *check) {
	if c.network.Broken == nil {
		return
	}
	c.start()
	broken := NewEndpoint(c.tb, c.network.Broken(), provider.Env{Route: c.network.Route})
	before := goroutines()
	err := c.within("Start of a broken provider", func() error { return broken.Start(c.tb.Context()) })
	if err == nil {
		c.errorf("Start returned nil, although what it needs is not there")
		broken.Close()
		return
	}
	if errors.Is(err, provider.ErrClosed) {
		c.errorf("Start: %v; a transport that is not there is not a closed Provider", err)
	}
	c.leavesNothing(broken, before)
}

func checkStartWithoutAnswer(c *check) {
	if c.network.Silent == nil {
		return
	}
	c.start()
	silent := NewEndpoint(c.tb, c.network.Silent(), provider.Env{Route: c.network.Route})
	before := goroutines()
	ctx, cancel := context.WithTimeout(c.tb.Context(), 2*c.network.Settle)
	defer cancel()
	err := c.within("Start without an answer", func() error { return silent.Start(ctx) })
	if err == nil {
		c.errorf("Start returned nil, although nothing answers")
		silent.Close()
		return
	}
	c.leavesNothing(silent, before)
}

// hold makes the endpoint's Deliver stand still until release is called.
func (c *check) hold(e *Endpoint) (release func()) {
	gate := make(chan struct{})
	e.OnBatch(func(b provider.Batch) {
		<-gate
		if b.Done != nil {
			b.Done()
		}
	})
	return sync.OnceFunc(func() { e.OnBatch(nil); close(gate) })
}

func checkSendContext(c *check) {
	c.start()
	c.meet()
	ended, cancel := context.WithCancel(c.tb.Context())
	cancel()
	err := c.within("Send with a ctx that has ended", func() error {
		return c.eps[0].Provider.Send(ended, c.frames(0, laneLoose, 1, smallFrame))
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		c.errorf("Send with a ctx that has ended: %v; want nil or an error that wraps context.Canceled", err)
	}

	// While the receiver stands still, Send may wait for it, but not longer than its ctx. Each has a ctx of its own: on a slow machine
	// one for all would end before anything waits.
	release := c.hold(c.eps[1])
	defer release()
	batch := c.frames(0, laneLoose, 50, c.largeFrame())
	for sent, ended := 0, 0; ended < fullTimes && sent < c.network.FloodBytes; sent += 50 * c.largeFrame() {
		ctx, cancel := context.WithTimeout(c.tb.Context(), 2*c.network.Settle)
		err := c.within("Send to a receiver that stands still, with a ctx that ends", func() error {
			return c.eps[0].Provider.Send(ctx, batch)
		})
		ended = inRow(ended, ctx.Err())
		cancel()
		if errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge) {
			c.fatalf("Send to a receiver that stands still: %v", err)
		}
	}
	release()
	c.reaches(0, 1, "after it had stood still")
	c.carry(0, c.frames(0, laneAll, 10, smallFrame))
}

// fullTimes is how often in a row the ctx of a Send must end before the suite takes it that Send waits for a receiver. Once may be
// because the machine is slow.
const fullTimes = 3

// inRow counts failures in a row.
func inRow(n int, err error) int {
	if err == nil {
		return 0
	}
	return n + 1
}

// largeFrame is the length of frames in a flood.
func (c *check) largeFrame() int {
	if limit := c.caps.MaxFrameBytes; limit > 0 {
		return min(limit, 16<<10)
	}
	return 16 << 10
}

func checkCloseFlushes(c *check) {
	c.start()
	c.meet()
	frames := c.frames(0, laneAll, 100, smallFrame)
	awaited := c.await(1, frames)
	defer awaited.stop()
	if err := c.send(0, frames...); err != nil {
		c.errorf("Send: %v", err)
	}
	if err := c.within("Close", c.eps[0].Close); err != nil {
		c.errorf("Close: %v", err)
	}
	if missing := awaited.missingBut(c.lossOf(len(frames)), c.network.Patience); missing != nil {
		c.errorf("%d of %d frames that Send had accepted right before Close did not arrive", len(missing), len(frames))
	}
}

func checkCloseTwice(c *check) {
	c.start()
	c.meet()
	var closers sync.WaitGroup
	for range 4 {
		closers.Go(func() {
			if err := c.eps[0].Provider.Close(); err != nil {
				c.errorf("one of several concurrent calls of Close: %v", err)
			}
		})
	}
	c.within("one of several concurrent calls of Close", func() error { closers.Wait(); return nil })
	if err := c.within("a further Close", c.eps[0].Close); err != nil {
		c.errorf("a further Close: %v; want nil", err)
	}
}

func checkCloseUnstarted(c *check) {
	for range 2 {
		if err := c.within("Close without Start", c.eps[0].Close); err != nil {
			c.errorf("Close without Start: %v; want nil", err)
		}
	}
	err := c.within("Start after Close", func() error { return c.eps[0].Start(c.tb.Context()) })
	if !errors.Is(err, provider.ErrClosed) {
		c.errorf("Start after Close: %v; want ErrClosed", err)
	}
}

func checkSendAfterClose(c *check) {
	c.start()
	c.meet()
	e := c.eps[0]
	if err := c.within("Close", e.Close); err != nil {
		c.errorf("Close: %v", err)
	}
	for _, frames := range [][][]byte{nil, c.frames(0, laneLoose, 3, smallFrame)} {
		if err := c.send(0, frames...); !errors.Is(err, provider.ErrClosed) {
			c.errorf("Send of %d frames after Close: %v; want ErrClosed", len(frames), err)
		}
		if u, ok := e.Provider.(provider.Unicaster); ok {
			if err := c.sendTo(u, c.eps[1].Stream())(frames); !errors.Is(err, provider.ErrClosed) {
				c.errorf("SendTo of %d frames after Close: %v; want ErrClosed", len(frames), err)
			}
		}
	}
	if w, ok := e.Provider.(provider.MemberWatcher); ok {
		// The Broker's loop may be about to say it when Close comes.
		c.within("SetMembers after Close", func() error { w.SetMembers(provider.Members{Self: e.Stream()}); return nil })
	}
}

func checkCloseEndsWaitingSend(c *check) {
	c.start()
	c.meet()
	release := c.hold(c.eps[1])
	defer release()

	// One goroutine sends until it is told that the Provider is closed. Whether it
	// waits inside Send or comes back to it, the answer is the same.
	e := c.eps[0]
	batch := c.frames(0, laneLoose, 50, c.largeFrame())
	full, result := make(chan struct{}), make(chan error, 1)
	go func() {
		filled := sync.OnceFunc(func() { close(full) })
		for sent := 0; ; sent += 50 * c.largeFrame() {
			if sent >= c.network.FloodBytes {
				filled()
				c.yield()
			}
			last := e.closed.Load()
			err := e.Provider.Send(context.Background(), batch)
			if last || errors.Is(err, provider.ErrClosed) {
				result <- err
				return
			}
		}
	}()
	waiting := time.NewTimer(c.network.Settle) // a Send that blocks never gets to say that it is full
	defer waiting.Stop()
	select {
	case <-full:
	case <-waiting.C:
	}
	c.quiet() // it is inside Send again
	if err := c.within("Close while Send is called", e.Close); err != nil {
		c.errorf("Close while Send is called: %v", err)
	}
	err := c.within("Send after Close", func() error { return <-result })
	if !errors.Is(err, provider.ErrClosed) {
		c.errorf("a goroutine that calls Send again and again heard %v after Close; want ErrClosed", err)
	}
	release()
}

func checkCloseWaitsForDeliver(c *check) {
	c.start()
	c.meet()
	e := c.eps[1]
	entered := make(chan struct{}, 1)
	gate := make(chan struct{})
	var running, ended sync.WaitGroup
	running.Add(1)
	first := sync.OnceFunc(func() {
		entered <- struct{}{}
		<-gate
		running.Done()
	})
	e.OnBatch(func(b provider.Batch) {
		first()
		if b.Done != nil {
			b.Done()
		}
	})
	// Until it has entered: a lossy transport may need more than one.
	stop := make(chan struct{})
	ended.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.protect(func() { c.send(0, c.frames(0, laneLoose, 1, smallFrame)...) })
				c.yield()
			}
		}
	})
	defer ended.Wait()
	defer close(stop)
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	patience := time.NewTimer(c.network.Patience)
	defer patience.Stop()
	select {
	case <-entered:
	case <-patience.C:
		c.fatalf("nothing was delivered")
	}

	closed := make(chan error, 1)
	go func() { closed <- e.Close() }()
	settle := time.NewTimer(c.network.Settle)
	defer settle.Stop()
	select {
	case <-closed:
		c.errorf("Close returned while a Deliver was running")
		open()
		return
	case <-settle.C:
	}
	open()
	if err := c.within("Close after Deliver has returned", func() error { return <-closed }); err != nil {
		c.errorf("Close: %v", err)
	}
}

func checkCloseUnderLoad(c *check) {
	c.start()
	c.meet()
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for _, from := range []int{1, 2} {
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.protect(func() {
						if err := c.send(from, c.frames(from, laneLoose, 5, smallFrame)...); err != nil {
							c.errorf("Send while another instance closes: %v", err)
						}
					})
				}
			}
		})
	}
	if !c.eps[0].wait(c.network.Patience, func() bool { return c.eps[0].count > 50 }) {
		c.errorf("nothing was delivered")
	}
	if err := c.within("Close under load", c.eps[0].Close); err != nil {
		c.errorf("Close under load: %v", err)
	}
	c.quiet() // a Deliver after Close is seen by examine
	close(stop)
	senders.Wait()
}

func checkCloseOfOne(c *check) {
	c.start()
	c.meet()
	if err := c.within("Close", c.eps[2].Close); err != nil {
		c.errorf("Close: %v", err)
	}
	c.carry(0, c.frames(0, laneAll, 100, smallFrame), 1) // before the others know
	c.introduce()
	c.carry(0, c.frames(0, laneAll, 100, smallFrame), 1)
	c.carry(1, c.frames(1, laneAll, 100, smallFrame), 0)
}
