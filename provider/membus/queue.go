package membus

import "sync"

// item is one entry of a queue: frames that arrived together, or the
// news that the link is back.
type item struct {
	frames      [][]byte
	from        string
	reconnected bool
}

// size returns the length of all frames of it in bytes.
func (it item) size() int {
	n := 0
	for _, f := range it.frames {
		n += len(f)
	}
	return n
}

// A queue holds what one receiver has not taken yet. It is bounded in bytes and
// in frames, and safe for concurrent use.
type queue struct {
	maxBytes, maxFrames int

	mu            sync.Mutex // guards the fields below
	items         []item
	bytes, frames int    // sums over items
	dropped       uint64 // frames refused since the beginning
	closed        bool
	wake          chan struct{} // holds one token while items may be non-empty
}

// open makes q ready to take items. It is called inside Start, so
// that the channel belongs to the synctest bubble of the instance.
func (q *queue) open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake = make(chan struct{}, 1)
}

// put appends it, unless q is closed, not open, or full. What a full queue refuses is counted.
func (q *queue) put(it item) {
	size := it.size()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.wake == nil {
		return
	}
	if len(q.items) > 0 && !it.reconnected && (q.bytes+size > q.maxBytes || q.frames+len(it.frames) > q.maxFrames) {
		q.dropped += uint64(len(it.frames))
		return
	}
	q.items = append(q.items, it)
	q.bytes += size
	q.frames += len(it.frames)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next removes the first item and returns it; false means that q is empty.
func (q *queue) next() (item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return item{}, false
	}
	it := q.items[0]
	q.items[0] = item{} // the array lives on, the frames need not
	q.items = q.items[1:]
	q.bytes -= it.size()
	q.frames -= len(it.frames)
	return it, true
}

// refused returns how many frames q dropped so far because it was full.
func (q *queue) refused() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// clear forgets what waits in q.
func (q *queue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items, q.bytes, q.frames = nil, 0, 0
}

// close makes q forget what it holds and whatever comes.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items, q.bytes, q.frames, q.closed = nil, 0, 0, true
}
