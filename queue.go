package carillon

import (
	"sync"
	"sync/atomic"
)

// entryBytes is what an entry of a queue costs beside its payload.
const entryBytes = 256

// backlogBytes is how much may wait in a queue before what is added must not hold on to
// more memory than its own. An event keeps the frame alive in which it came.
const backlogBytes = 64 << 10

// A queue hands what is pushed to handle, one after the other and in order, on
// a goroutine that exists only while there is something to hand over. It is
// safe for concurrent use.
type queue[T any] struct {
	limit  int     // bytes
	handle func(T) // may panic only by runtime.Goexit
	group  *running

	bytes atomic.Int64 // of what waits; changed with mu held

	mu      sync.Mutex // guards the fields below; not held while calling out
	entries []queued[T]
	head    int  // of entries; what lies before it was handed over
	active  bool // the goroutine exists
}

type queued[T any] struct {
	value T
	bytes int
}

// push adds v, which counts for that many bytes, or returns false because q is full. Whatever its
// size, an empty queue takes it. It never blocks.
func (q *queue[T]) push(v T, bytes int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head < len(q.entries) && int(q.bytes.Load())+bytes > q.limit {
		return false
	}
	if q.head > 64 && q.head >= len(q.entries)/2 {
		n := copy(q.entries, q.entries[q.head:])
		clear(q.entries[n:])
		q.entries, q.head = q.entries[:n], 0
	}
	q.entries = append(q.entries, queued[T]{v, bytes})
	q.bytes.Add(int64(bytes))
	if !q.active {
		q.active = true
		q.group.begin()
		go q.run()
	}
	return true
}

// next removes the first entry, or says false when there is none and the
// goroutine must end.
func (q *queue[T]) next() (v T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == len(q.entries) {
		q.active = false
		q.head = 0
		if cap(q.entries) > 1024 {
			q.entries = nil
		}
		q.entries = q.entries[:0]
		return v, false
	}
	e := &q.entries[q.head]
	v = e.value
	q.bytes.Add(-int64(e.bytes))
	*e = queued[T]{}
	q.head++
	return v, true
}

func (q *queue[T]) run() {
	ended := false
	defer func() {
		if !ended { // handle ended the goroutine, as t.FailNow does
			go q.run()
			return
		}
		q.group.end()
	}()
	for {
		v, ok := q.next()
		if !ok {
			ended = true
			return
		}
		q.handle(v)
	}
}

// backlogged reports whether what is added now may have to wait for long.
func (q *queue[T]) backlogged() bool { return q.bytes.Load() > backlogBytes }

// waiting returns how much waits in q.
func (q *queue[T]) waiting() (entries, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.entries) - q.head, int(q.bytes.Load())
}
