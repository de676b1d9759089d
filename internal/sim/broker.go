package sim

import (
	"slices"
	"time"
)

// A broker network is a message broker that delivers at least once: each
// instance has a queue there, its own frames come back to it, and frames that were
// not acknowledged in time come again.
type broker struct {
	wires
	delay, jitter time.Duration
	again         float64 // probability that an acknowledgement comes too late
	down          bool
	recent        [][]byte // of which the broker may not know, after a restart, that they were acknowledged
	waiting       map[*instance][][]byte
}

const maxRecent = 64

func (n *broker) send(from, _ *instance, frames [][]byte) error {
	if n.down {
		return errBusy
	}
	n.recent = append(n.recent, frames...)
	n.recent = n.recent[max(0, len(n.recent)-maxRecent):]
	for _, f := range frames {
		n.w.tally.sends(from, f, 1)
	}
	for _, in := range n.joined {
		if in.dead {
			continue
		}
		for _, f := range frames {
			n.queue(from, in, f)
		}
	}
	return nil
}

// queue hands a frame to one instance, or keeps it until the instance can be
// reached.
func (n *broker) queue(from, in *instance, frame []byte) {
	if in != from && (n.isCut(from, in) || n.isCut(in, from)) {
		n.waiting[in] = append(n.waiting[in], frame)
		return
	}
	n.deliver(in, frame, n.delay+time.Duration(n.random.Int64N(int64(n.jitter)+1)))
	if n.random.Float64() < n.again {
		n.deliver(in, frame, 20*n.delay+time.Duration(n.random.Int64N(int64(time.Second))))
	}
}

// flush delivers what waits for instances.
func (n *broker) flush() {
	for _, in := range n.joined {
		for _, f := range n.waiting[in] {
			n.deliver(in, f, n.delay)
		}
		delete(n.waiting, in)
	}
}

func (n *broker) cut(from, to *process, by int) {
	n.wires.cut(from, to, by)
	if by < 0 {
		n.flush()
	}
}

// restart brings the broker back: the last frames come again, to everybody.
func (n *broker) restart() {
	n.down = false
	for _, f := range slices.Clone(n.recent) {
		for _, in := range n.joined {
			if !in.dead {
				n.deliver(in, f, n.delay+time.Duration(n.random.Int64N(int64(n.jitter)+1)))
			}
		}
	}
}
