package providertest

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// A Relay is the network between one instance and the server of a transport over TCP: it
// passes on what connections to it carry, and can be cut. Its goroutines count as
// nobody's leak. It is safe for concurrent use.
type Relay struct {
	listener net.Listener
	to       string
	flow     sync.RWMutex // held for reading while something passes

	mu    sync.Mutex // guards the fields below
	cut   bool
	held  bool
	conns map[net.Conn]bool
	tasks sync.WaitGroup
}

// NewRelay starts a Relay to the address of a server, which need not be there yet. It ends with the test.
func NewRelay(tb testing.TB, server string) *Relay {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &Relay{listener: l, to: server, conns: make(map[net.Conn]bool)}
	r.tasks.Go(r.accept)
	tb.Cleanup(func() {
		l.Close()
		r.Cut()
		r.Release()
		r.tasks.Wait()
	})
	return r
}

// ofRelay reports whether a goroutine, given as its stack trace, is a Relay's.
func ofRelay(stack string) bool { return strings.Contains(stack, "providertest.(*Relay)") }

// Addr is where to connect instead of to the server: host:port on the loopback interface.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Cut closes all connections, in the middle of whatever they carry, and new ones as soon as they come.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		c.Close()
	}
	clear(r.conns)
}

// Heal ends Cut.
func (r *Relay) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// Hold lets connections live and passes nothing on, in neither direction, until Release: a network that drops everything without
// a word.
func (r *Relay) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		r.held = true
		r.flow.Lock()
	}
}

// Release ends Hold.
func (r *Relay) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held {
		r.held = false
		r.flow.Unlock()
	}
}

func (r *Relay) accept() {
	for {
		from, err := r.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", r.to)
		if err != nil {
			from.Close()
			continue
		}
		if r.add(from, to) {
			r.tasks.Go(func() { r.carry(from, to) })
			r.tasks.Go(func() { r.carry(to, from) })
		}
	}
}

// add remembers both ends of a connection, or closes them while r is cut.
func (r *Relay) add(ends ...net.Conn) bool {
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

func (r *Relay) carry(to, from net.Conn) {
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
