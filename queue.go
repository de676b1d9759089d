package carillon

import (
	"sync"
	"sync/atomic"
	"time"
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
// a goroutine that exists only while there is something to hand over, or on one that it is lent. It is
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
	offer  *offer // of a goroutine to run on; nil: every run has one of its own

	load burden // of what waits; grows with mu held

	mu      sync.Mutex // guards the fields below; not held while calling out
	entries []T
	active  bool // a goroutine runs it, or is about to
	events  int  // pushed since it became active
	pace    pace

	// Of the goroutine alone.
	batch []T
	at    int       // of batch; what lies before was handled
	since time.Time // when the run began that pace is to be told of; zero: none
	loan  loan
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
		if q.offer == nil || !q.offer.take(q, q.pace.quick()) {
			go q.run()
		}
	}
	q.events += events
	return true
}

// take begins with what was pushed meanwhile, or says false when there is nothing
// and the goroutine must end.
func (q *queue[T]) take() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		q.active = false
		if !q.since.IsZero() && q.events <= lendEvents {
			q.pace.ran(time.Since(q.since))
		}
		q.events, q.since = 0, time.Time{}
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
	if q.offer != nil {
		q.since = time.Now()
	}
	for q.at < len(q.batch) || q.take() {
		q.next()
	}
	ended = true
}

// next handles one entry of those that were taken.
func (q *queue[T]) next() {
	q.handle(&q.batch[q.at])
	var none T
	q.batch[q.at] = none
	q.at++
}

// runLent is run on a goroutine of somebody else, for what waits now. What is pushed meanwhile has a goroutine of
// its own. If handle ends the goroutine, or takes too long, resume is called.
func (q *queue[T]) runLent(from *loans, resume func()) {
	since := time.Now()
	from.begin(&q.loan, since, resume)
	ended := false
	defer func() {
		from.end(&q.loan, ended) // first, as the next run of q may be lent again
		q.leave(ended, since)
	}()
	for q.take(); q.at < len(q.batch); {
		q.next()
	}
	ended = true
}

// leave ends a run on a goroutine that was lent at that time.
func (q *queue[T]) leave(ended bool, since time.Time) {
	q.mu.Lock()
	if ended {
		q.pace.ran(time.Since(since))
	} else {
		q.pace.failed()
	}
	q.mu.Unlock()
	if ended && !q.take() {
		q.group.end()
		return
	}
	go q.run()
}

// many reports whether more waits than a goroutine is lent for.
func (q *queue[T]) many() bool {
	events, _ := q.load.get()
	return events > lendEvents
}

// backlogged reports whether what is added now may have to wait for long.
func (q *queue[T]) backlogged() bool {
	_, bytes := q.load.get()
	return bytes > backlogBytes
}
