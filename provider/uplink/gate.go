package uplink

import (
	"sync"

	"github.com/carillon-go/carillon/provider"
)

// A gate lets nothing through to the Broker once it is shut.
type gate struct {
	mu     sync.RWMutex // held for reading while something passes
	isShut bool
}

// guard returns env with this gate before everything that tells the Broker something.
func (g *gate) guard(env provider.Env) provider.Env {
	deliver, disconnected, reconnected := env.Deliver, env.Disconnected, env.Reconnected
	env.Deliver = func(b provider.Batch) {
		g.mu.RLock()
		defer g.mu.RUnlock()
		if !g.isShut {
			deliver(b)
		}
	}
	env.Disconnected = func(why error) {
		g.mu.RLock()
		defer g.mu.RUnlock()
		if !g.isShut {
			disconnected(why)
		}
	}
	env.Reconnected = func() {
		g.mu.RLock()
		defer g.mu.RUnlock()
		if !g.isShut {
			reconnected()
		}
	}
	return env
}

// shut shuts g, and waits for what is passing.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = true
}
