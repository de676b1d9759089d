package pgbus

import (
	"context"
	"sync"
	"time"
)

// A waker interrupts the one who waits for notifications. The zero waker is ready for use, and may be poked by anybody.
type waker struct {
	mu      sync.Mutex
	pending bool
	cancel  context.CancelFunc // of who waits; nil: nobody does
}

// poke makes the next call of taken return true, and ends the wait until then.
func (w *waker) poke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = true
	if w.cancel != nil {
		w.cancel()
	}
}

// taken reports whether there was a poke since it was last called.
func (w *waker) taken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.pending
	w.pending = false
	return was
}

// wait returns a context for a wait of at most d, which ends with a poke from now on. Whoever calls it looks at taken afterwards, so that no
// poke is missed, and calls done in the end.
func (w *waker) wait(ctx context.Context, d time.Duration) (_ context.Context, done func()) {
	ctx, cancel := context.WithTimeout(ctx, d)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = cancel
	return ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cancel = nil
		cancel()
	}
}
