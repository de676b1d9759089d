package seal

import (
	"sync"

	"github.com/carillon-go/carillon/site"
)

// cacheHalf is half of how many derived keys an Opener remembers, for about 2 KiB each.
const cacheHalf = 2048

// keyOf is a stream under a key.
type keyOf struct {
	key    *ringKey
	stream site.StreamID
}

// A cache remembers derived keys, those used lately rather than others: what was
// used since the last turn is in young, and a turn, which comes when young is full,
// forgets what was only in old. It is safe for concurrent use.
type cache struct {
	mu         sync.RWMutex
	young, old map[keyOf]frameKey // guarded by mu; at most cacheHalf each
}

// get returns the key remembered, or nil.
func (c *cache) get(k keyOf) frameKey {
	c.mu.RLock()
	f, ok := c.young[k]
	if ok {
		c.mu.RUnlock()
		return f
	}
	f = c.old[k]
	c.mu.RUnlock()
	if f != nil {
		c.put(k, f)
	}
	return f
}

func (c *cache) put(k keyOf, f frameKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= cacheHalf {
		c.old, c.young = c.young, make(map[keyOf]frameKey)
	}
	c.young[k] = f
}

// len returns how many keys are remembered, those in both halves twice.
func (c *cache) len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.young) + len(c.old)
}
