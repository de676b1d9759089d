package carillon

import "sync"

// A broadcast wakes everybody who waits. It belongs to a lock, which is held
// for both methods. The zero broadcast is ready; signalling one for which
// nobody waits costs nothing.
type broadcast struct{ ch chan struct{} }

// wait returns a channel that the next signal closes.
func (w *broadcast) wait() <-chan struct{} {
	if w.ch == nil {
		w.ch = make(chan struct{})
	}
	return w.ch
}

func (w *broadcast) signal() {
	if w.ch != nil {
		close(w.ch)
		w.ch = nil
	}
}

// poke leaves one token in a channel of capacity 1.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// running counts goroutines that call subscribers. Unlike a [sync.WaitGroup] it can be waited
// for with a bound, and grow again meanwhile.
type running struct {
	mu   sync.Mutex // guards the fields below
	n    int
	zero broadcast
}

func (r *running) begin() {
	r.mu.Lock()
	r.n++
	r.mu.Unlock()
}

func (r *running) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 {
		r.zero.signal()
	}
}

// idle returns a channel that is closed when nothing runs, or nil if nothing
// runs now.
func (r *running) idle() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 {
		return nil
	}
	return r.zero.wait()
}
