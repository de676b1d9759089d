package tcpbus

import (
	"bytes"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// A leaky is a connection that takes so many bytes and then breaks.
type leaky struct {
	net.Conn
	takes int
	took  []byte
}

func (l *leaky) SetWriteDeadline(time.Time) error { return nil }

func (l *leaky) Write(b []byte) (int, error) {
	n := min(len(b), l.takes-len(l.took))
	l.took = append(l.took, b[:n]...)
	if n < len(b) {
		return n, errors.New("broken")
	}
	return n, nil
}

// The queue belongs to the peer: wherever a connection breaks, what it did not take
// whole goes to the next one, and what it took does not.
func TestConn_LeavesInTheQueueWhatWasNotTakenWhole(t *testing.T) {
	const frames, length = 9, 20
	p := newTest(t, Config{})
	raw, _ := pair(t)
	for broken := range frames * (prefixLen + length) {
		pe := &peer{queue: newQueue(1 << 20)}
		for i := range frames {
			pe.queue.put([][]byte{numbered(uint64(i), length)})
		}
		c := p.newConnLocked(pe, raw, &leaky{takes: broken}, true)
		if err := c.drain(nil); err == nil {
			t.Fatalf("broken after %d bytes: no error", broken)
		}
		left := numbers(t, pe.queue.peek(nil, 1<<20))
		if want := broken / (prefixLen + length); len(left) != frames-want || left[0] != uint64(want) {
			t.Fatalf("broken after %d bytes: left in the queue %v, want from %d on", broken, left, want)
		}
	}
}

// A gated is a connection whose first Write announces itself, waits, and then breaks after
// taking so many bytes.
type gated struct {
	leaky
	entered, release chan struct{}
}

func (g *gated) Write(b []byte) (int, error) {
	close(g.entered)
	<-g.release
	return g.leaky.Write(b)
}

func (g *gated) CloseWrite() error { return nil }

// A recorder is a connection that passes on what is written to it.
type recorder struct {
	net.Conn
	wrote chan []byte
}

func (r *recorder) SetWriteDeadline(time.Time) error { return nil }
func (r *recorder) CloseWrite() error                { return nil }

func (r *recorder) Write(b []byte) (int, error) {
	r.wrote <- bytes.Clone(b)
	return len(b), nil
}

// The writer of a new connection takes nothing from the queue that the writer of
// the old one may still hand over.
func TestConn_WriterWaitsForTheOneBefore(t *testing.T) {
	const length = 20
	p := newTest(t, Config{})
	raw, _ := pair(t)
	pe := &peer{queue: newQueue(1 << 20)}
	for i := range 3 {
		pe.queue.put([][]byte{numbered(uint64(i), length)})
	}
	first := &gated{leaky{takes: prefixLen + length}, make(chan struct{}), make(chan struct{})}
	second := &recorder{wrote: make(chan []byte, 10)}
	before := p.newConnLocked(pe, raw, first, true)
	after := p.newConnLocked(pe, raw, second, true)
	after.before = before
	var writers sync.WaitGroup
	writers.Go(func() { before.write(nil) })
	<-first.entered
	writers.Go(func() { after.write(nil) })
	select {
	case b := <-second.wrote:
		t.Errorf("written to the new connection while the old one writes: %x", b)
	case <-time.After(50 * time.Millisecond): // what must not happen
	}
	close(first.release)
	if got, want := <-second.wrote, encodeFrames(numbered(1, length), numbered(2, length)); !bytes.Equal(got, want) {
		t.Errorf("written to the new connection\n got %x\nwant %x", got, want)
	}
	after.end(modeStop, patience)
	writers.Wait()
	for _, c := range []*conn{before, after} {
		c.kill.Stop()
	}
}

// A Deliver that keeps its goroutine holds up neither what follows on its connection nor the connection that
// takes its place, and may end its goroutine.
func TestConn_GoesOnWithoutAGoroutineThatIsKept(t *testing.T) {
	noLeaks(t)
	gate := make(chan struct{})
	defer close(gate)
	var keep atomic.Int32
	a := start(t, Config{}, streamID(1))
	b := start(t, Config{}, streamID(2), withDeliver(func(b provider.Batch) {
		if b.Resume == nil {
			t.Error("the goroutine is not lent")
		} else if keep.Add(-1) >= 0 {
			b.Resume()
			<-gate
			runtime.Goexit() // what is in b is not noted
		}
	}))
	introduce(a, b)
	awaitConnected(t, a, b)
	for n := range 2 {
		keep.Store(1)
		a.send(t, []byte("is kept"))
		eventually(t, "kept", func() bool { return keep.Load() <= 0 })
		a.send(t, numbered(uint64(2*n), 20))
		b.awaitExactly(t, 2*n+1)
		was := b.conn(a)
		a.conn(b).raw.Close()
		eventually(t, "a new connection", func() bool { c := b.conn(a); return c != nil && c != was })
		awaitConnected(t, a, b)
		a.send(t, numbered(uint64(2*n+1), 20))
		b.awaitExactly(t, 2*n+2)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
