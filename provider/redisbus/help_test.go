package redisbus

import (
	"net"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// newTest makes a Provider that the test closes.
func newTest(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}

// eventually polls cond until it is true, and returns false when that takes longer than patience.
func eventually(cond func() bool) bool {
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// A relay is the network between one instance and the server.
type relay struct {
	ln   net.Listener
	to   string
	flow sync.RWMutex // who holds it for writing stops what passes

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	tasks sync.WaitGroup
}

// startRelay starts a relay to an address; the test ends it.
func startRelay(tb testing.TB, to string) *relay {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &relay{ln: ln, to: to, conns: make(map[net.Conn]bool)}
	r.tasks.Go(r.accept)
	tb.Cleanup(func() {
		ln.Close()
		r.setCut(true)
		r.tasks.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		from, err := r.ln.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", r.to)
		if err != nil {
			from.Close()
			continue
		}
		if !r.add(from, to) {
			continue
		}
		r.tasks.Go(func() { r.carry(from, to) })
		r.tasks.Go(func() { r.carry(to, from) })
	}
}

// add remembers both ends, or closes them while the link is cut.
func (r *relay) add(ends ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range ends {
		if r.cut {
			c.Close()
		} else {
			r.conns[c] = true
		}
	}
	return !r.cut
}

func (r *relay) carry(to, from net.Conn) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		r.flow.RLock()
		if err == nil {
			_, err = to.Write(b[:n])
		}
		r.flow.RUnlock()
		if err != nil {
			break
		}
	}
	to.Close()
	from.Close()
	r.mu.Lock()
	delete(r.conns, from)
	r.mu.Unlock()
}

// setCut cuts the link, or mends it.
func (r *relay) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	if cut {
		for c := range r.conns {
			c.Close()
		}
		clear(r.conns)
	}
}
