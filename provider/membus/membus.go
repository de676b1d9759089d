// Package membus carries frames between Brokers of one process, without sockets. It is
// for tests and for programs that run several instances of a site in one
// process.
//
// # Configuration
//
// [New] makes a Bus, and [Bus.Provider] one Provider per instance. There is
// nothing to set. Every Provider on a Bus hears every other one, whatever its site.
//
// # Delivery
//
// Frames are handed over by reference, in order, each once. An instance does
// not hear itself. A receiver has a queue and one goroutine of its own,
// so a slow one delays nobody; when its queue is full, what comes next is
// dropped for this receiver alone, counted and logged. [Provider.Cut] and [Provider.Heal]
// take an instance off the Bus and put it back.
//
// # Limits
//
// Frames may have any length. A queue holds 32 MiB and 65,536 frames; a
// batch for an empty queue is taken whatever its size.
//
// # Requirements
//
// None. Everything works inside a testing/synctest bubble, provided that the
// instances on one Bus are in the same bubble.
package membus

import (
	"fmt"
	"slices"
	"sync"

	"github.com/carillon-go/carillon/site"
)

const (
	maxQueueBytes  = 32 << 20 // per receiver
	maxQueueFrames = 1 << 16  // per receiver
)

// A Bus connects the Providers made from it. It is safe for concurrent use and
// starts no goroutine itself. Use [New] to make one.
type Bus struct {
	maxBytes, maxFrames int // limits of each receiver's queue

	mu       sync.RWMutex // guards the fields below; not held while calling out
	made     int
	attached []*Provider // started and not closed; copied on write, so a reader may keep it
}

// New returns a Bus with nobody on it.
func New() *Bus {
	return &Bus{maxBytes: maxQueueBytes, maxFrames: maxQueueFrames}
}

// Provider returns a new Provider on b, for one instance.
func (b *Bus) Provider() *Provider {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made++
	return &Provider{
		bus:   b,
		addr:  fmt.Sprintf("mem:%d", b.made),
		queue: queue{maxBytes: b.maxBytes, maxFrames: b.maxFrames},
	}
}

func (b *Bus) attach(p *Provider) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attached = append(slices.Clip(b.attached), p)
}

func (b *Bus) detach(p *Provider) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attached = slices.DeleteFunc(slices.Clone(b.attached), func(q *Provider) bool { return q == p })
}

// receivers returns all that are on the Bus. The slice is not to be changed.
func (b *Bus) receivers() []*Provider {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.attached
}

// find returns the Provider whose instance said last that it is stream.
func (b *Bus) find(stream site.StreamID) *Provider {
	for _, p := range b.receivers() {
		if self := p.self.Load(); self != nil && *self == stream {
			return p
		}
	}
	return nil
}
