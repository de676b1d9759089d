// Package cable puts a switch between an instance and its network, so that one
// can watch what happens when the network goes away.
package cable

import (
	"context"
	"sync/atomic"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// A Cable is a provider that passes everything on to another one until it is
// cut; from then on frames vanish in both directions, as in a network that is
// down, without an error to anybody. It is safe for concurrent use.
type Cable struct {
	provider.Provider
	*line
}

// A line is what cables that are cut together have in common.
type line struct {
	cut     atomic.Bool
	mute    atomic.Bool
	in, out atomic.Uint64 // frames that vanished
}

var (
	_ provider.Unicaster     = (*Cable)(nil)
	_ provider.Advertiser    = (*Cable)(nil)
	_ provider.MemberWatcher = (*Cable)(nil)
)

// New returns a cable in front of p, connected. The Broker gets the Cable, and closes
// p by closing it.
func New(p provider.Provider) *Cable { return &Cable{p, new(line)} }

// Beside returns a cable in front of p, another way into the same network: the two are cut, muted and healed together, and
// what vanishes in either is counted in both.
func (c *Cable) Beside(p provider.Provider) *Cable { return &Cable{p, c.line} }

// Cut makes frames vanish from now on. It reports whether they did not before.
func (c *Cable) Cut() bool { return !c.cut.Swap(true) }

// Heal lets frames pass again. It reports whether they did not before.
func (c *Cable) Heal() bool { return c.cut.Swap(false) }

// Mute makes what the instance sends vanish while on, though it hears the others:
// nobody can be asked for what was lost.
func (c *Cable) Mute(on bool) { c.mute.Store(on) }

// IsCut reports whether frames vanish.
func (c *Cable) IsCut() bool { return c.cut.Load() }

// Lost returns how many frames have vanished on their way in and out.
func (c *Cable) Lost() (in, out uint64) { return c.in.Load(), c.out.Load() }

// Start implements [provider.Provider].
func (c *Cable) Start(ctx context.Context, env provider.Env) error {
	deliver := env.Deliver
	env.Deliver = func(b provider.Batch) {
		if !c.cut.Load() {
			deliver(b)
			return
		}
		c.in.Add(uint64(len(b.Frames)))
		if b.Done != nil {
			b.Done()
		}
	}
	return c.Provider.Start(ctx, env)
}

// Send implements [provider.Provider].
func (c *Cable) Send(ctx context.Context, frames [][]byte) error {
	if c.cut.Load() || c.mute.Load() {
		c.out.Add(uint64(len(frames)))
		return nil
	}
	return c.Provider.Send(ctx, frames)
}

// SendTo implements [provider.Unicaster]. Where the other provider does not, no
// instance is reachable alone.
func (c *Cable) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	if c.cut.Load() || c.mute.Load() {
		c.out.Add(uint64(len(frames)))
		return nil
	}
	if u, ok := c.Provider.(provider.Unicaster); ok {
		return u.SendTo(ctx, to, frames)
	}
	return provider.ErrUnreachable
}

// Addresses implements [provider.Advertiser].
func (c *Cable) Addresses() []string {
	if a, ok := c.Provider.(provider.Advertiser); ok {
		return a.Addresses()
	}
	return nil
}

// SetMembers implements [provider.MemberWatcher].
func (c *Cable) SetMembers(m provider.Members) {
	if w, ok := c.Provider.(provider.MemberWatcher); ok {
		w.SetMembers(m)
	}
}
