package kafkabus

import (
	"hash/fnv"
	"sync"
)

// A place is where the records of one instance go. All go to one partition, as only there they keep their order, and remain in it when partitions are
// added. The zero place has no key.
type place struct {
	mu        sync.Mutex
	name      string
	key       []byte // never changed, but replaced
	chosen    bool
	partition int
}

// move gives what is sent from now on another key. Calling it with the one that it has changes nothing.
func (p *place) move(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key != p.name {
		p.name, p.key, p.chosen = key, []byte(key), false
	}
}

// currentKey returns the key of what is sent now.
func (p *place) currentKey() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key
}

// of returns which of n partitions a record with this key goes to.
func (p *place) of(key []byte, n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if string(key) != p.name {
		return hashed(key, n) // move came after the record was made
	}
	if !p.chosen || p.partition >= n {
		p.chosen, p.partition = true, hashed(key, n)
	}
	return p.partition
}

func hashed(key []byte, n int) int {
	h := fnv.New32a()
	h.Write(key)
	return int(h.Sum32() % uint32(n))
}
