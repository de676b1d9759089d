package providertest

import (
	"io"
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
	flow     [2]sync.RWMutex // by direction: held for reading while something passes

	mu    sync.Mutex // guards the fields below
	cut   bool
	held  [2]bool
	conns map[net.Conn]direction // of which each is the end
	tasks sync.WaitGroup
}

// A direction is a way through a Relay.
type direction int

const (
	toServer direction = iota
	toInstance
)

// NewRelay starts a Relay to the address of a server, which need not be there yet. It ends with the test.
func NewRelay(tb testing.TB, server string) *Relay {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &Relay{listener: l, to: server, conns: make(map[net.Conn]direction)}
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
func (r *Relay) Hold() { r.hold(toServer, toInstance) }

// HoldAnswers is Hold for what the server says alone.
func (r *Relay) HoldAnswers() { r.hold(toInstance) }

func (r *Relay) hold(ways ...direction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, way := range ways {
		if !r.held[way] {
			r.held[way] = true
			r.flow[way].Lock()
		}
	}
}

// Release ends Hold and HoldAnswers.
func (r *Relay) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for way := range r.held {
		if r.held[way] {
			r.held[way] = false
			r.flow[way].Unlock()
		}
	}
}

// Say tells the instance something over each of its connections, as the server might. What the server says at the same moment comes
// before or behind it, if it is said in one piece.
func (r *Relay) Say(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, end := range r.conns {
		if end == toInstance {
			io.WriteString(c, text) // it may have been closed in this moment
		}
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
			r.tasks.Go(func() { r.carry(toInstance, from, to) })
			r.tasks.Go(func() { r.carry(toServer, to, from) })
		}
	}
}

// add remembers both ends of a connection, or closes them while r is cut.
func (r *Relay) add(instance, server net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		instance.Close()
		server.Close()
		return false
	}
	r.conns[instance], r.conns[server] = toInstance, toServer
	return true
}

func (r *Relay) carry(way direction, to, from net.Conn) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		r.flow[way].RLock()
		if err == nil {
			_, err = to.Write(b[:n])
		}
		r.flow[way].RUnlock()
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
