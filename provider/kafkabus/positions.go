package kafkabus

import (
	"math"
	"sync"
)

// theEnd is the position behind everything that there is.
const theEnd = math.MaxInt64

// positions are how far this instance has read. They outlive its connections, so that it goes on where it was. The zero positions have read nothing.
type positions struct {
	mu     sync.Mutex
	begun  bool // it has been looked where the topics end
	topics map[string]*position
}

type position struct {
	id   [16]byte        // a topic that was deleted and made again has another; zero: the brokers do not say
	next map[int32]int64 // by partition, the offset of the record to be read next
	bad  map[int32]int64 // what next was when reading failed
}

// resume returns where to read on in a partition that holds what is from earliest to below latest. The first time that is the end: nobody sent for this
// instance before. Afterwards it is where this instance was; or at the beginning of what is new since, which includes a partition
// that was added and a topic that was made again.
func (p *positions) resume(t string, id [16]byte, partition int32, earliest, latest int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.topics[t]
	if at == nil || at.id != id {
		if p.topics == nil {
			p.topics = make(map[string]*position)
		}
		at = &position{id: id, next: make(map[int32]int64), bad: make(map[int32]int64)}
		p.topics[t] = at
	}
	next, ok := at.next[partition]
	switch {
	case ok:
		next = max(earliest, min(next, latest))
	case p.begun:
		next = earliest
	default:
		next = latest
	}
	at.next[partition] = next
	return next
}

// begin says that every topic that is there has been looked at once.
func (p *positions) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = true
}

// advance says what is to be read next.
func (p *positions) advance(t string, partition int32, next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.topics[t]; at != nil {
		at.next[partition] = next
	}
}

// fail says that reading failed for a reason that may be in what is to be read. The second time in the same place it goes on at the end.
func (p *positions) fail(t string, partition int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.topics[t]
	if at == nil {
		return
	}
	next := at.next[partition]
	if was, ok := at.bad[partition]; ok && was == next {
		at.next[partition] = theEnd
	}
	at.bad[partition] = next
}
