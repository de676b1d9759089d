package providertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// RunBenchmarks measures a transport: how many frames a second reach one
// and four receivers, by length of frame and batch, and how long one frame
// takes there and back. Every frame is waited for, a window of 64 KiB at most being under way,
// so that the figures are those of a transport that loses nothing; frames that a lossy
// one loses anyway are reported as lost/op.
//
// Compare figures from one machine only.
func RunBenchmarks(b *testing.B, h Harness) {
	for _, receivers := range []int{1, 4} {
		for _, size := range []int{200, 1000, 16 << 10} {
			for _, batch := range []int{1, 32} {
				b.Run(fmt.Sprintf("throughput/receivers=%d/bytes=%d/batch=%d", receivers, size, batch), func(b *testing.B) {
					benchmarkThroughput(b, h, receivers, size, batch)
				})
			}
		}
	}
	b.Run("roundtrip/send", func(b *testing.B) { benchmarkRoundTrip(b, h, false) })
	b.Run("roundtrip/sendto", func(b *testing.B) { benchmarkRoundTrip(b, h, true) })
}

// benchmarked starts n endpoints that count and remember nothing.
func benchmarked(b *testing.B, h Harness, n int) *check {
	network := h.Network(b, n)
	c := &check{
		tb: b, rule: "benchmark", network: network.withDefaults(), caps: network.Providers[0].Capabilities(),
		id: uint64(time.Now().UnixNano()), numbers: make(map[lane]uint64), sent: make(map[frameID]bool), floods: make(map[string]int),
	}
	for _, p := range network.Providers {
		c.eps = append(c.eps, NewEndpoint(b, p, provider.Env{Route: c.network.Route}))
	}
	b.Cleanup(func() {
		c.protect(c.closeAll)
		for _, p := range c.problems {
			b.Error(p)
		}
	})
	c.protect(func() { c.start(); c.meet() })
	if len(c.problems) > 0 {
		b.Fatal(c.problems[0])
	}
	for _, e := range c.eps {
		e.mu.Lock()
		e.forget, e.frames = true, nil
		e.mu.Unlock()
	}
	return c
}

// windowBytes is how much is under way at most.
const windowBytes = 64 << 10

func benchmarkThroughput(b *testing.B, h Harness, receivers, size, batch int) {
	c := benchmarked(b, h, receivers+1)
	if limit := c.caps.MaxFrameBytes; limit > 0 && size > limit {
		b.Skipf("frames have at most %d bytes", limit)
	}
	p, others := c.eps[0].Provider, c.eps[1:]
	base := make([]int, len(others))
	for i, e := range others {
		e.mu.Lock()
		base[i] = e.count
		e.mu.Unlock()
	}
	frames := c.frames(0, laneLoose, batch, size)
	window := max(1, windowBytes/(batch*size)) * batch
	lost := 0
	// catchUp waits until no receiver lacks more than slack of the frames sent.
	catchUp := func(sent, slack int) {
		for i, e := range others {
			if e.wait(c.lossPatience(), func() bool { return e.count-base[i] >= sent-slack }) {
				continue
			}
			e.mu.Lock()
			missing := sent - (e.count - base[i])
			base[i] -= missing // counted as lost, and not waited for again
			e.mu.Unlock()
			lost += missing
			if !c.network.Lossy {
				b.Fatalf("%d of %d frames did not arrive", missing, sent)
			}
		}
	}
	b.SetBytes(int64(size * batch))
	b.ReportAllocs()
	sent := 0
	for b.Loop() {
		if err := p.Send(b.Context(), frames); err != nil {
			b.Fatal(err)
		}
		sent += batch
		if sent%window == 0 {
			catchUp(sent, window/2)
		}
	}
	catchUp(sent, 0)
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "frames/s")
	if c.network.Lossy {
		b.ReportMetric(float64(lost)/float64(b.N), "lost/op")
	}
}

// lossPatience is how long to wait before a frame counts as lost.
func (c *check) lossPatience() time.Duration {
	if c.network.Lossy {
		return c.network.Settle
	}
	return c.network.Patience
}

func benchmarkRoundTrip(b *testing.B, h Harness, unicast bool) {
	c := benchmarked(b, h, 2)
	send := func(from, to int) func(context.Context, [][]byte) error {
		p := c.eps[from].Provider
		if !unicast {
			return p.Send
		}
		u, ok := p.(provider.Unicaster)
		if !ok {
			b.Skip("no provider.Unicaster")
		}
		stream := c.eps[to].Stream()
		return func(ctx context.Context, frames [][]byte) error { return u.SendTo(ctx, stream, frames) }
	}
	there, back := send(0, 1), send(1, 0)
	pings, pongs := c.frames(0, laneLoose, 1, smallFrame), c.frames(1, laneLoose, 1, smallFrame)
	arrived := make(chan struct{}, 1024)
	c.eps[1].OnBatch(func(batch provider.Batch) {
		if batch.Done != nil {
			batch.Done()
		}
		if err := back(b.Context(), pongs); err != nil {
			b.Error(err)
		}
	})
	c.eps[0].OnBatch(func(batch provider.Batch) {
		if batch.Done != nil {
			batch.Done()
		}
		arrived <- struct{}{}
	})
	timeout := time.NewTimer(c.network.Patience)
	defer timeout.Stop()
	lost := 0
	b.ReportAllocs()
	for b.Loop() {
		timeout.Reset(c.lossPatience())
		if err := there(b.Context(), pings); err != nil {
			b.Fatal(err)
		}
		select {
		case <-arrived:
		case <-timeout.C:
			if lost++; !c.network.Lossy {
				b.Fatal("no answer")
			}
		}
	}
	if c.network.Lossy {
		b.ReportMetric(float64(lost)/float64(b.N), "lost/op")
	}
}
