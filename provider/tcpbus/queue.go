package tcpbus

import "sync"

// frameOverhead is what a frame counts for beside its own bytes, so that a
// queue of tiny frames is bounded as well.
const frameOverhead = 64

// A queue holds references to the frames that wait for one peer, and to those
// that are being written. It is safe for concurrent use.
type queue struct {
	maxBytes int
	wake     chan struct{} // the reader waits for a token when there is nothing

	mu    sync.Mutex // guards the fields below
	ring  [][]byte   // frames[head:] wait; what lies before is nil
	head  int
	bytes int    // of the frames that wait, overhead included; at most maxBytes
	drops uint64 // frames that did not fit
}

func newQueue(maxBytes int) *queue {
	return &queue{maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// put appends frames, and counts as dropped those that do not fit. It wakes nobody.
func (q *queue) put(frames [][]byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range frames {
		if q.bytes+len(f)+frameOverhead > q.maxBytes {
			q.drops++
			continue
		}
		q.bytes += len(f) + frameOverhead
		q.ring = append(q.ring, f)
	}
}

// peek appends the first frames to dst without removing them: as many as have
// maxBytes together, one at least if there is one.
func (q *queue) peek(dst [][]byte, maxBytes int) [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, f := range q.ring[q.head:] {
		n += len(f) + frameOverhead
		if n > maxBytes && len(dst) > 0 {
			break
		}
		dst = append(dst, f)
	}
	return dst
}

// drop removes the first n frames.
func (q *queue) drop(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := q.head; i < q.head+n; i++ {
		q.bytes -= len(q.ring[i]) + frameOverhead
		q.ring[i] = nil // the array lives on, the frame need not
	}
	q.head += n
	switch {
	case q.head == len(q.ring):
		// An array that a long absence made large is not kept for the quiet time after it.
		if q.ring, q.head = q.ring[:0], 0; cap(q.ring) > 1024 {
			q.ring = nil
		}
	case q.head > len(q.ring)/2:
		n := copy(q.ring, q.ring[q.head:])
		clear(q.ring[n:])
		q.ring, q.head = q.ring[:n], 0
	}
}

func (q *queue) empty() bool {
	frames, _ := q.size()
	return frames == 0
}

// size returns how many frames wait and what they count for in bytes.
func (q *queue) size() (frames, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ring) - q.head, q.bytes
}

// dropped returns how many frames did not fit so far.
func (q *queue) dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drops
}
