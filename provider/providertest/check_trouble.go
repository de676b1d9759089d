package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/carillon-go/carillon/provider"
)

// Provider 2 stands still. What provider 1 hears is sent in portions, each
// awaited, so that a receiver that keeps up loses nothing, while everything
// piles up before the one that does not.
func checkSlowReceiver(c *check) {
	c.start()
	c.meet()
	for _, e := range c.eps {
		e.mu.Lock()
		e.forget = true
		e.mu.Unlock()
	}
	release := c.hold(c.eps[2])
	defer release()
	size := c.largeFrame()
	patience := c.network.Patience
	if c.caps.BackPressure {
		patience = c.network.Settle // Send may wait, and is not waited for
	}
	portion := max(1, (128<<10)/size)
	for sent := 0; sent < c.network.FloodBytes; sent += portion * size {
		frames := c.frames(0, laneLoose, portion, size)
		awaited := c.await(1, frames)
		ctx, cancel := context.WithTimeout(c.tb.Context(), patience)
		err := c.within("Send while one receiver stands still", func() error { return c.eps[0].Provider.Send(ctx, frames) })
		cancel()
		if c.caps.BackPressure && errors.Is(err, context.DeadlineExceeded) {
			awaited.stop()
			break // it waits instead of dropping, which is what it claims
		}
		if err != nil {
			c.fatalf("Send after %d bytes, while one receiver of two stands still: %v", sent, err)
		}
		missing := awaited.missingBut(c.lossOf(len(frames)), c.network.Patience)
		awaited.stop()
		if missing != nil {
			c.fatalf("after %d bytes, while one receiver stands still, %d of %d frames do not reach the other", sent, len(missing), len(frames))
		}
	}
	release()
	for _, e := range c.eps {
		e.mu.Lock()
		e.forget = false
		e.mu.Unlock()
	}
	// The slow one is still there: it hears what comes once it has caught up.
	c.reaches(0, 2, "after it had stood still")
	c.carry(0, c.frames(0, laneAll, 10, smallFrame))
}

func checkPrompt(c *check) {
	if !c.caps.Prompt {
		return
	}
	if c.caps.BackPressure {
		c.errorf("Capabilities claim Prompt, and BackPressure, which is to wait")
	}
	c.start()
	c.meet()
	release := c.hold(c.eps[1])
	defer release()
	batch := c.frames(0, laneLoose, 50, c.largeFrame())
	for sent := 0; sent < c.network.FloodBytes; sent += 50 * c.largeFrame() {
		// No ctx ends, and the receiver stands still: what waits for it does not return.
		if err := c.within("Send to a receiver that stands still", func() error {
			return c.eps[0].Provider.Send(c.tb.Context(), batch)
		}); err != nil {
			c.fatalf("Send to a receiver that stands still: %v", err)
		}
	}
}

func checkBackPressure(c *check) {
	if !c.caps.BackPressure {
		return
	}
	c.start()
	c.meet()
	release := c.hold(c.eps[1])
	defer release()
	size := c.largeFrame()
	accepted := make(map[string]bool)
	for sent, ended := 0, 0; ended < fullTimes && sent < c.network.FloodBytes; sent += size {
		f := c.frame(0, laneLoose, size)
		ctx, cancel := context.WithTimeout(c.tb.Context(), c.network.Settle)
		err := c.within("Send", func() error { return c.eps[0].Provider.Send(ctx, [][]byte{f}) })
		cancel()
		if ended = inRow(ended, err); err == nil {
			accepted[string(f)] = true
		}
	}
	release()
	e := c.eps[1]
	if !e.wait(c.network.Patience, func() bool {
		for _, f := range e.frames {
			delete(accepted, string(f))
		}
		return len(accepted) == 0
	}) {
		c.errorf("%d frames that Send accepted while the receiver stood still never arrived", len(accepted))
	}
}

// What arrives while a Deliver runs waits, up to what was told, also on a transport that is lossy.
func checkReceiveBuffer(c *check) {
	c.start()
	e := c.eps[1]
	told := func() (bytes int, late bool) {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.buffer, e.bufferLate
	}
	buffer, _ := told()
	if buffer < 0 {
		c.fatalf("ReceiveBuffer(%d); want what is kept, or no call where nothing is dropped", buffer)
	}
	c.meet()
	for _, size := range []int{smallFrame, 1200, c.largeFrame()} {
		if buffer == 0 {
			break
		}
		if limit := c.caps.MaxFrameBytes; limit > 0 {
			size = min(size, limit)
		}
		release := c.hold(e)
		frames := c.frames(0, laneAll, max(1, buffer/(size+provider.FrameCharge)), size)
		awaited := c.await(1, frames)
		for batch := range slices.Chunk(frames, 64) {
			if err := c.send(0, batch...); err != nil {
				c.errorf("Send: %v", err)
			}
		}
		c.quiet()
		release()
		c.arrived(awaited, 0)
		awaited.stop()
	}
	if _, late := told(); late {
		c.errorf("ReceiveBuffer was called for the first time after Start had returned")
	}
}

func checkGarbage(c *check) {
	if c.network.Garbage == nil {
		return
	}
	c.start()
	c.meet()
	c.garbage = true
	random := rand.New(rand.NewPCG(c.id, 1))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	genuine := frameID{c.id, 1 << 15, laneLoose, 1, smallFrame}.bytes() // but for the sender
	pieces := [][]byte{
		{}, {0}, {0xff}, bytes.Repeat([]byte{0}, 100), bytes.Repeat([]byte{0xff}, 100),
		[]byte("GET / HTTP/1.1\r\nHost: carillon\r\n\r\n"), []byte("CRLN"),
		genuine, genuine[:len(genuine)-1],
		noise(1), noise(7), noise(76), noise(256), noise(257), noise(1200), noise(1201), noise(9000), noise(65507), noise(1 << 20),
	}
	for range 50 {
		pieces = append(pieces, noise(random.IntN(300)))
	}
	for to := range c.eps {
		c.eps[to].mu.Lock()
		already := len(c.eps[to].frames)
		c.eps[to].mu.Unlock()
		for _, b := range pieces {
			c.within("Garbage", func() error { return c.network.Garbage(to, b) }) // a refusal is fine
		}
		c.quiet()
		if c.caps.SecureChannel {
			for _, f := range c.eps[to].Frames()[already:] {
				c.errorf("SecureChannel is claimed, and provider %d delivered %d bytes from a stranger", to, len(f))
			}
		}
	}
	c.meet()
	c.carry(0, c.frames(0, laneAll, 100, smallFrame))
	c.carry(1, c.frames(1, laneAll, 100, smallFrame))
}

func checkCutAndHealed(c *check) {
	if c.network.Cut == nil || c.network.Heal == nil {
		return
	}
	c.start()
	c.meet()
	cut := c.eps[1]
	var sentTo [][]byte // what the one that is cut off should have heard
	for round := range 2 {
		before := cut.Reconnects()
		c.network.Cut(1)
		for range 5 {
			for from := range c.eps {
				f := c.frame(from, laneLoose, smallFrame)
				err := c.send(from, f)
				switch {
				case errors.Is(err, provider.ErrClosed), errors.Is(err, provider.ErrFrameTooLarge):
					c.errorf("round %d: Send of provider %d while the link of provider 1 is cut: %v; that is final, and the link is not", round, from, err)
				case err != nil && from != 1:
					c.errorf("round %d: Send of provider %d, whose link is whole, while that of provider 1 is cut: %v", round, from, err)
				case err == nil && from != 1:
					sentTo = append(sentTo, f)
				}
			}
			// The others go on meanwhile.
			c.carry(0, c.frames(0, laneAll, 5, smallFrame), 2)
			c.quiet()
		}
		c.network.Heal(1)
		c.resume(round)
		lost := c.await(1, sentTo)
		cut.mu.Lock()
		for _, f := range cut.frames {
			delete(lost.want, string(f))
		}
		cut.mu.Unlock()
		missing := lost.missing(c.network.Settle)
		lost.stop()
		if len(missing) > 0 && !c.network.Unnoticed &&
			!cut.wait(c.network.Patience, func() bool { return cut.reconnects > before }) {
			c.errorf("round %d: %d frames were lost while the link of provider 1 was cut, and it did not call Reconnected", round, len(missing))
		}
		sentTo = nil
	}
}

// resume waits until everyone hears everyone after the link was healed.
func (c *check) resume(round int) {
	for from := range c.eps {
		for to := range c.eps {
			if from != to {
				c.reaches(from, to, fmt.Sprintf("in round %d, after the link was healed", round))
			}
		}
	}
	for i, e := range c.eps {
		if !e.wait(c.network.Patience, func() bool { return e.away == nil }) {
			c.errorf("round %d: the link is healed and frames pass, and provider %d has not called Reconnected since it called Disconnected: %v", round, i, e.away)
		}
	}
}

// reaches waits until an endpoint hears from another, from frames that it has not heard before. They are
// sent again and again: how long a transport needs to recover is its own business.
func (c *check) reaches(from, to int, when string) {
	var last error
	if !Eventually(c.network.Patience, func() bool {
		f := c.frame(from, laneLoose, smallFrame)
		last = c.send(from, f)
		return c.eps[to].Heard(f, c.network.Settle)
	}) {
		c.fatalf("%s, provider %d hears nothing from provider %d for %v (last error of Send: %v)", when, to, from, c.network.Patience, last)
	}
}

func checkDurable(c *check) {
	if c.network.Restart == nil {
		return
	}
	c.start()
	c.meet()
	// Sent by one while the other stands still, so that they are on their way when the servers stop.
	release := c.hold(c.eps[1])
	defer release()
	frames := c.frames(0, laneLoose, 100, smallFrame)
	awaited := c.await(1, frames)
	defer awaited.stop()
	for _, f := range frames { // each by itself: what is delivered is out of danger
		if err := c.send(0, f); err != nil {
			c.errorf("Send: %v", err)
		}
	}
	var restarted sync.WaitGroup
	restarted.Go(c.network.Restart)
	c.within("Restart", func() error { restarted.Wait(); return nil })
	release()
	patience := c.network.Patience
	if !c.caps.Durable {
		patience = c.network.Settle // what was lost may be lost
	}
	missing := awaited.missing(patience)
	if c.caps.Durable && len(missing) > 0 {
		c.errorf("%d of %d frames that Send had accepted did not survive the restart", len(missing), len(frames))
	}
	awaited.stop()
	for from := range c.eps {
		c.reaches(from, 1-from, "after the restart")
	}
}
