package mqttbus

import (
	"bufio"
	"net"
	"sync"
	"time"
)

const (
	readBuffer = 64 << 10 // bytes
	keepBuffer = 4 << 20  // bytes; a larger buffer is not used again

	// closeWithin is how long closing a connection may take, so that what was written still goes out.
	closeWithin = 500 * time.Millisecond
)

// A conn is a connection that takes what is written to it at once, and sends it from a goroutine of its own: so nobody who writes
// waits for the network, and what is written meanwhile leaves in one piece. What waits is bounded by those who write: by the quota that the server
// gives for messages, and by what it has sent for acknowledgements.
//
// paho locks what it writes a packet to, since it writes it in parts.
type conn struct {
	net.Conn
	under net.Conn // what Conn is made of, where that is TLS; else Conn
	guard guard

	mu      sync.Mutex
	waiting []byte // what is to be sent
	err     error  // why nothing is sent any more
	closing bool

	wake  chan struct{} // holds a token while there may be something to do
	sent  chan struct{} // closed when the goroutine has ended
	close sync.Once
}

// newConn returns a conn over c, which itself may be TLS over under, for packets of limit bytes at most. Close ends it.
func newConn(c, under net.Conn, limit int) *conn {
	w := &conn{
		Conn: c, under: under,
		guard: guard{from: bufio.NewReaderSize(promptReader{c, acknowledger(under)}, readBuffer), limit: limit},
		wake:  make(chan struct{}, 1),
		sent:  make(chan struct{}),
	}
	go w.send()
	return w
}

// A promptReader acknowledges what it has read.
type promptReader struct {
	net.Conn
	acknowledge func()
}

// Read implements [io.Reader].
func (r promptReader) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.acknowledge()
	return n, err
}

// Read implements [net.Conn].
func (c *conn) Read(b []byte) (int, error) { return c.guard.Read(b) }

// Lock implements [sync.Locker].
func (c *conn) Lock() { c.mu.Lock() }

// Unlock implements [sync.Locker].
func (c *conn) Unlock() {
	c.mu.Unlock()
	c.poke()
}

// Write implements [net.Conn]. The lock is held.
func (c *conn) Write(b []byte) (int, error) {
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closing:
		return 0, net.ErrClosed
	}
	c.waiting = append(c.waiting, b...)
	return len(b), nil
}

func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// send sends what waits, until Close.
func (c *conn) send() {
	defer close(c.sent)
	var b []byte
	for {
		c.mu.Lock()
		b, c.waiting = c.waiting, b[:0]
		closing := c.closing
		c.mu.Unlock()
		switch {
		case len(b) > 0:
			if _, err := c.Conn.Write(b); err != nil {
				c.mu.Lock()
				c.err = err
				c.mu.Unlock()
				c.Conn.Close() // who reads shall notice
				return
			}
			if cap(b) > keepBuffer {
				b = nil
			}
		case closing:
			return
		default:
			<-c.wake
		}
	}
}

// Close implements [net.Conn]. What was written is sent, if that takes no longer than closeWithin.
func (c *conn) Close() error {
	c.close.Do(func() {
		c.mu.Lock()
		c.closing = true
		c.mu.Unlock()
		c.poke()
		defer time.AfterFunc(closeWithin, func() { c.under.Close() }).Stop() // TLS would say goodbye for five seconds
		c.Conn.SetWriteDeadline(time.Now().Add(closeWithin))
		<-c.sent
		c.Conn.Close()
	})
	return nil
}
