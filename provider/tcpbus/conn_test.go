package tcpbus

import (
	"errors"
	"net"
	"testing"
	"time"
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
