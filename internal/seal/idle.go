package seal

import "sync"

// maxIdle is how many states a key keeps for its next users: as many goroutines
// as are likely to use one stream at the same time.
const maxIdle = 4

// idle keeps what is needed during one operation, so that operations one after
// the other allocate nothing. (A [sync.Pool] is per type, and these belong to
// one key.) It is safe for concurrent use.
type idle[T any] struct {
	create func() *T

	mu   sync.Mutex
	free [maxIdle]*T
	n    int
}

func (p *idle[T]) get() *T {
	p.mu.Lock()
	if p.n > 0 {
		p.n--
		v := p.free[p.n]
		p.mu.Unlock()
		return v
	}
	p.mu.Unlock()
	return p.create()
}

func (p *idle[T]) put(v *T) {
	p.mu.Lock()
	if p.n < maxIdle {
		p.free[p.n] = v
		p.n++
	}
	p.mu.Unlock()
}
