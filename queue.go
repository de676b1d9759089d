package carillon

import (
	"sync"
	"sync/atomic"
)

// What waits in a queue costs beside its payload: an entry, and each event in it.
const (
	entryBytes = 256
	eventBytes = 64
)

// queueBytes returns what n events count for where they wait together.
func queueBytes(n, payloadBytes int) int { return entryBytes + n*eventBytes + payloadBytes }

// backlogBytes is how much may wait in a queue before what is added must not hold on to
// more memory than its own. An event keeps the frame alive in which it came.
const backlogBytes = 64 << 10

// A queue hands what is pushed to handle, one after the other and in order, on
// a goroutine that exists only while there is something to hand over. It is
// safe for concurrent use.
//
// That goroutine takes all that waits at once, so that pusher and goroutine
// meet at the lock once per burst and not once per entry.
type queue[T any] struct {
	limit int // bytes

	// handle is told of one entry, and takes from load what does not wait any more.
	// It may panic only by runtime.Goexit, and is then called again with the same
	// entry, of which it knows what it has done.
	handle func(*T)
	group  *running

	load burden // of what waits; grows with mu held

	mu      sync.Mutex // guards the fields below; not held while calling out
	entries []T
	active  bool // the goroutine exists

	// Of the goroutine alone.
	batch []T
	at    int // of batch; what lies before was handled
}

// A burden is a number of events and of bytes that change together, so that a goroutine
// which hands over events one by one pays for one atomic operation each.
type burden struct{ packed atomic.Int64 }

// loadBits is where the events begin. 64 GiB, and a quarter of a billion events, are more
// than any queue holds.
const loadBits = 36

func (l *burden) add(events, bytes int)  { l.packed.Add(int64(events)<<loadBits + int64(bytes)) }
func (l *burden) take(events, bytes int) { l.packed.Add(-(int64(events)<<loadBits + int64(bytes))) }

func (l *burden) get() (events, bytes int) {
	v := l.packed.Load()
	return int(v >> loadBits), int(v & (1<<loadBits - 1))
}

// push adds v, which stands for that many events and counts for that many bytes, or
// returns false because q is full. Whatever its size, an empty queue takes it. It
// never blocks.
func (q *queue[T]) push(v T, events, bytes int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, waiting := q.load.get(); waiting > 0 && waiting+bytes > q.limit {
		return false
	}
	q.entries = append(q.entries, v)
	q.load.add(events, bytes)
	if !q.active {
		q.active = true
		q.group.begin()
		go q.run()
	}
	return true
}

// take begins with what was pushed meanwhile, or says false when there is nothing
// and the goroutine must end.
func (q *queue[T]) take() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		q.active = false
		if cap(q.batch) > 1024 {
			q.batch = nil
		}
		if cap(q.entries) > 1024 {
			q.entries = nil
		}
		return false
	}
	q.batch, q.entries = q.entries, q.batch[:0]
	q.at = 0
	return true
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
	for q.at < len(q.batch) || q.take() {
		q.handle(&q.batch[q.at])
		var none T
		q.batch[q.at] = none
		q.at++
	}
	ended = true
}

// backlogged reports whether what is added now may have to wait for long.
func (q *queue[T]) backlogged() bool {
	_, bytes := q.load.get()
	return bytes > backlogBytes
}
