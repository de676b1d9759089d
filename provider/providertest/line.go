package providertest

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// maxWaiting bounds the frames that wait in a line.
const maxWaiting = 1 << 16

// A line runs functions when they are due, one after the other, those due at
// the same time in the order in which they came. It has one goroutine, from newLine to
// stop. It is safe for concurrent use.
type line struct {
	wake chan struct{}   // holds a token after a change
	ctx  context.Context // ends with stop; what the functions get
	end  context.CancelFunc
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex // guards the fields below; not held while a function runs
	waiting waitingHeap
	frames  int // in waiting
	count   uint64
	running bool
	hurry   bool          // everything is due now
	empty   chan struct{} // not nil while flush waits; closed when nothing waits or runs
}

// waiting is one function in a line.
type waiting struct {
	due    time.Time
	number uint64 // in the order of put
	frames int
	fn     func(context.Context)
}

func newLine() *line {
	l := &line{wake: make(chan struct{}, 1), done: make(chan struct{})}
	l.ctx, l.end = context.WithCancel(context.Background())
	go l.run()
	return l
}

// put adds fn, which moves so many frames. False means that too many wait.
func (l *line) put(due time.Time, frames int, fn func(context.Context)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.frames+frames > maxWaiting {
		return false
	}
	l.count++
	l.frames += frames
	heap.Push(&l.waiting, waiting{due, l.count, frames, fn})
	l.signal()
	return true
}

func (l *line) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// idle reports that nothing waits and nothing runs.
func (l *line) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.idleLocked()
}

func (l *line) idleLocked() bool { return len(l.waiting) == 0 && !l.running }

// run runs what is due until stop.
func (l *line) run() {
	defer close(l.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		fn, wait, any := l.next()
		if fn != nil {
			if l.ctx.Err() != nil {
				return
			}
			fn(l.ctx)
			continue
		}
		var due <-chan time.Time
		if any {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-l.ctx.Done():
			return
		case <-l.wake:
		case <-due:
		}
	}
}

// next takes out what is due, or says how long to wait for it if anything waits. Taking
// means that the one before has ended.
func (l *line) next() (fn func(context.Context), wait time.Duration, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
	if len(l.waiting) == 0 {
		if l.empty != nil {
			close(l.empty)
			l.empty = nil
		}
		return nil, 0, false
	}
	if wait = time.Until(l.waiting[0].due); wait > 0 && !l.hurry {
		return nil, wait, true
	}
	w := heap.Pop(&l.waiting).(waiting)
	l.frames -= w.frames
	l.running = true
	return w.fn, 0, true
}

// flush runs everything that waits without further delay, and returns when it has run or
// ctx has ended.
func (l *line) flush(ctx context.Context) {
	l.mu.Lock()
	l.hurry = true
	if l.idleLocked() {
		l.mu.Unlock()
		return
	}
	if l.empty == nil {
		l.empty = make(chan struct{})
	}
	empty := l.empty
	l.signal()
	l.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// stop forgets what waits, and returns when what runs has ended. Stopping twice
// is fine.
func (l *line) stop() {
	l.end()
	<-l.done
}

// waitingHeap has what is due first at index 0.
type waitingHeap []waiting

func (h waitingHeap) Len() int      { return len(h) }
func (h waitingHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h waitingHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].number < h[j].number
	}
	return h[i].due.Before(h[j].due)
}
func (h *waitingHeap) Push(x any) { *h = append(*h, x.(waiting)) }
func (h *waitingHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = waiting{}
	*h = old[:len(old)-1]
	return w
}
