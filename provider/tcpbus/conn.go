package tcpbus

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// A conn is a connection with a proof. Two goroutines run it, one for each
// direction at a time; either may end first, and the other then ends soon.
//
// Every end but a failure is a half-close: this end stops between two frames,
// says so, and reads until the other end has done the same. Closing at once
// would let the kernel answer what is still on its way with a reset, and a reset
// throws away what the other end has not read.
type conn struct {
	p       *Provider
	peer    *peer
	raw     *net.TCPConn
	stream  net.Conn      // raw, or TLS over it
	dialled bool          // by this end
	self    site.StreamID // ours when the connection was made

	number    uint64 // ascending in the order in which connections were made
	before    *conn  // read to its end first; nil when there was none. Used by read and write alone
	reconnect bool   // the Broker is told that frames may be lost

	mode      atomic.Uint32
	wake      chan struct{} // poked when mode changed
	readDone  chan struct{} // closed when nothing more is delivered
	writeDone chan struct{} // closed when nothing more is taken from the queue

	// writing is held to write to stream and to take from the peer's queue. The goroutine that writes
	// lets go of it only while there is nothing to do.
	writing sync.Mutex
	out     *frameWriter // guarded by writing; nil before the greeting was written, and at the end
	taken   [][]byte     // guarded by writing; memory for the frames of one write

	kill *time.Timer // closes raw; guarded by the Provider's mu

	// Why a direction failed, nil after an orderly end. Each is written by its own goroutine
	// before the channel above is closed.
	readErr, writeErr error
}

// The modes of a conn. They only grow.
const (
	modeRun   uint32 = iota
	modeFlush        // write what is queued, then end
	modeStop         // end after the write that runs
)

// newConnLocked returns a conn for connectedLocked. p.mu is held.
func (p *Provider) newConnLocked(pe *peer, raw *net.TCPConn, stream net.Conn, dialled bool) *conn {
	return &conn{
		p: p, peer: pe, raw: raw, stream: stream, dialled: dialled, self: p.self,
		wake:      make(chan struct{}, 1),
		readDone:  make(chan struct{}),
		writeDone: make(chan struct{}),
	}
}

func (c *conn) address() string { return c.raw.RemoteAddr().String() }

// endLocked makes c end in this mode, and within this time at the latest. p.mu is
// held.
func (c *conn) endLocked(mode uint32, within time.Duration) {
	if c.mode.Load() < mode {
		c.mode.Store(mode)
	}
	poke(c.wake)
	if c.kill != nil {
		c.kill.Stop() // the latest word counts: flush for a grace, then the other end stops
	}
	c.kill = time.AfterFunc(within, func() { c.raw.Close() })
}

// lingerLocked makes c end after this time, if the other end does not end it sooner.
// p.mu is held.
func (c *conn) lingerLocked(within time.Duration) {
	if c.kill != nil {
		c.kill.Stop()
	}
	c.kill = time.AfterFunc(within, func() { c.end(modeStop, c.p.lim.drain) })
}

// end is endLocked.
func (c *conn) end(mode uint32, within time.Duration) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.endLocked(mode, within)
}

// abandonLocked ends c, whose other end has no use for it any more: a
// write that runs is cut off. p.mu is held.
func (c *conn) abandonLocked(within time.Duration) {
	c.raw.CloseWrite() // under TLS too: a goodbye would wait for the write that is to be cut off
	c.raw.SetWriteDeadline(time.Now())
	c.endLocked(modeStop, within)
}

// read delivers what arrives until the stream ends.
func (c *conn) read() {
	if c.before != nil {
		<-c.before.readDone
	}
	if c.reconnect {
		c.p.env.Reconnected()
	}
	c.readOn(newFrameReader(c.stream, maxFrameBytes), c.address())
}

// readOn is read, on one goroutine after the other: the one that Deliver keeps has nothing more to do with c.
func (c *conn) readOn(frames *frameReader, from string) {
	kept, err := c.deliver(frames, from)
	if kept {
		return
	}
	if err == io.EOF {
		c.end(modeStop, c.p.lim.drain)
	} else {
		c.readErr = err
		c.raw.Close()
		c.end(modeStop, c.p.lim.drain)
	}
	close(c.readDone)
	<-c.writeDone
	c.p.ended(c)
	c.p.tasks.Done()
}

// deliver returns io.EOF when the other end said that it is done, or that Deliver has kept this
// goroutine and another one reads.
func (c *conn) deliver(frames *frameReader, from string) (kept bool, err error) {
	var resumed atomic.Bool
	resume := func() {
		resumed.Store(true)
		frames.frames = nil // the slice is that of the Deliver that goes on
		go c.readOn(frames, from)
	}
	for {
		batch, err := frames.next()
		if err != nil {
			return false, err
		}
		c.p.env.Deliver(provider.Batch{Frames: batch, From: from, Resume: resume})
		if resumed.Load() {
			return true, nil
		}
	}
}

// write sends greeting and then the queue of the peer.
func (c *conn) write(greeting []byte) {
	defer close(c.writeDone)
	if c.before != nil {
		<-c.before.writeDone // it may still be removing from the queue what it wrote
	}
	err := c.drain(greeting)
	if err == nil {
		err = c.sayGoodbye()
	}
	if err != nil {
		c.writeErr = err
		c.raw.CloseWrite()
	}
	c.end(modeStop, c.p.lim.drain)
}

// drain returns nil when the mode tells it to end, or why a write failed.
func (c *conn) drain(greeting []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if len(greeting) > 0 {
		c.stream.SetWriteDeadline(time.Now().Add(c.p.cfg.PeerTimeout))
		if _, err := c.stream.Write(greeting); err != nil {
			return err
		}
	}
	c.out = newFrameWriter(c.stream, c.p.cfg.PeerTimeout)
	defer func() { c.out = nil }()
	for {
		mode, most := c.mode.Load(), writeBytes
		if mode == modeStop {
			if c.out.begun == 0 {
				return nil
			}
			most = 0 // the frame that was begun, and no other
		}
		more, err := c.writeSome(most, c.out.write)
		switch {
		case err != nil:
			return fmt.Errorf("tcp: write to %s: %w", c.address(), err)
		case more:
		case mode == modeFlush:
			return nil
		default:
			c.writing.Unlock()
			select {
			case <-c.peer.queue.wake:
			case <-c.wake:
			}
			c.writing.Lock()
		}
	}
}

// writeSome writes about that many bytes of the queue, one frame at least, and reports
// whether there were any. c.writing is held.
func (c *conn) writeSome(most int, write func([][]byte) (int, error)) (more bool, err error) {
	q := c.peer.queue
	c.taken = q.peek(c.taken[:0], most)
	if len(c.taken) == 0 {
		return false, nil
	}
	whole, err := write(c.taken)
	q.drop(whole)
	clear(c.taken)
	return true, err
}

// writeNow writes of the queue what the kernel takes at once, so that no other goroutine
// has to be woken for it. It leaves the rest to that other one: what would have to wait, what
// failed, and all of it where that goroutine writes already.
func (c *conn) writeNow() {
	if c.writing.TryLock() {
		if c.out != nil && c.out.now != nil && c.mode.Load() == modeRun {
			for more, n := true, 0; more && n < writeRounds; n++ {
				var err error
				if more, err = c.writeSome(writeBytes, c.out.writeNow); err != nil || c.out.begun > 0 {
					break
				}
			}
		}
		c.writing.Unlock()
	}
	if !c.peer.queue.empty() {
		poke(c.peer.queue.wake)
	}
}

// sayGoodbye tells the other end that no frame follows.
func (c *conn) sayGoodbye() error {
	c.stream.SetWriteDeadline(time.Now().Add(c.p.lim.drain))
	half, ok := c.stream.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("tcp: a connection that cannot be closed in one direction")
	}
	return half.CloseWrite()
}
