package cms

import (
	"context"
	"sync"
)

// memoLimit bounds the entries of one memo. The demonstration has a few dozen
// pages; the limit is there because slugs come from outside.
const memoLimit = 1024

// A memo is an in-memory cache that loads what it lacks and forgets what it is
// told to forget. It is safe for concurrent use.
//
// It never keeps a value whose load began before the last drop. Without that
// rule: a request reads revision 3, another instance publishes revision 4, the
// event drops an entry that is not there yet, and then the request stores
// revision 3, which nothing would ever drop again.
type memo[K comparable, V any] struct {
	mu      sync.Mutex
	entries map[K]V
	drops   uint64 // grows with every drop and clear
}

// get returns the value of key and whether it was there already. Otherwise it
// calls load, without holding a lock, and keeps the value unless something was
// dropped meanwhile. Errors are not kept.
func (m *memo[K, V]) get(ctx context.Context, key K, load func(context.Context) (V, error)) (v V, hit bool, err error) {
	m.mu.Lock()
	v, hit = m.entries[key]
	began := m.drops
	m.mu.Unlock()
	if hit {
		return v, true, nil
	}
	if v, err = load(ctx); err != nil {
		return v, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drops == began {
		m.putLocked(key, v)
	}
	return v, false, nil
}

// fill loads many entries at once, under the same rule as get.
func (m *memo[K, V]) fill(load func() (map[K]V, error)) error {
	m.mu.Lock()
	began := m.drops
	m.mu.Unlock()
	all, err := load()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drops != began {
		return nil // get will load one by one
	}
	for k, v := range all {
		m.putLocked(k, v)
	}
	return nil
}

// putLocked keeps v, in place of an arbitrary entry when the memo is full. m.mu
// is held.
func (m *memo[K, V]) putLocked(key K, v V) {
	if m.entries == nil {
		m.entries = make(map[K]V)
	}
	if _, there := m.entries[key]; !there && len(m.entries) >= memoLimit {
		for k := range m.entries {
			delete(m.entries, k)
			break
		}
	}
	m.entries[key] = v
}

// drop forgets the entries of the keys given.
func (m *memo[K, V]) drop(keys ...K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drops++
	for _, k := range keys {
		delete(m.entries, k)
	}
}

// clear forgets everything.
func (m *memo[K, V]) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drops++
	clear(m.entries)
}

// len returns how many entries there are.
func (m *memo[K, V]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries)
}
