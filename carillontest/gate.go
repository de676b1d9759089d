package carillontest

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
)

// A gate is an instance's place on the bus. What arrives passes it in the order
// in which it was sent, so a marker that has passed tells that all
// before it has.
type gate struct {
	*membus.Provider
	passed chan struct{} // gets one token per marker

	mu     sync.Mutex // guards the fields below
	losing bool
	lost   map[[sha256.Size]byte]bool // frames that never arrive
}

const marker = "carillontest marker"

func newGate(bus *membus.Bus) *gate {
	return &gate{Provider: bus.Provider(), passed: make(chan struct{}, 1), lost: map[[sha256.Size]byte]bool{}}
}

func (g *gate) lose(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.losing = on
}

// arriving returns the frames without those that are lost. Repairs are the same
// bytes again, whoever sends them.
func (g *gate) arriving(frames [][]byte) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.losing && len(g.lost) == 0 {
		return frames
	}
	var left [][]byte
	for _, f := range frames {
		sum := sha256.Sum256(f)
		if g.losing {
			g.lost[sum] = true
		}
		if !g.lost[sum] {
			left = append(left, f)
		}
	}
	return left
}

// Start implements [provider.Provider].
func (g *gate) Start(ctx context.Context, env provider.Env) error {
	deliver := env.Deliver
	env.Deliver = func(b provider.Batch) {
		if len(b.Frames) == 1 && string(b.Frames[0]) == marker {
			g.passed <- struct{}{}
			return
		}
		b.Frames = g.arriving(b.Frames)
		deliver(b)
	}
	return g.Provider.Start(ctx, env)
}

// newPulse returns a place on the bus from which markers are sent.
func newPulse(bus *membus.Bus) (*membus.Provider, error) {
	p := bus.Provider()
	return p, p.Start(context.Background(), provider.Env{
		Logger: slog.New(slog.DiscardHandler), Deliver: func(provider.Batch) {}, Reconnected: func() {},
	})
}

// settle returns when everything raised so far has passed every gate, or was
// lost to a fault, or is held back by one.
func (c *Cluster) settle() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var up []instance
	for i := range c.Len() {
		it := c.at(i)
		if it.broker == nil {
			continue
		}
		up = append(up, it)
		if !it.broker.Status().Enabled {
			continue // what it raises is not sent yet
		}
		if err := it.broker.Flush(ctx); err != nil {
			c.t.Fatalf("instance %d: %v", i, err)
		}
	}
	for _, it := range up {
		if err := c.pulse.SendTo(ctx, self(it), [][]byte{[]byte(marker)}); err != nil {
			continue // it has been closed by the test
		}
		limit := time.NewTimer(patience)
		select {
		case <-it.gate.passed:
		case <-limit.C:
			c.t.Fatalf("after %v: what was sent to %v has not arrived", patience, self(it))
		}
		limit.Stop()
	}
}

func self(it instance) site.StreamID {
	for _, m := range it.broker.Members() {
		if m.Self {
			return m.Stream
		}
	}
	return site.StreamID{}
}
