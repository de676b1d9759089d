package sim

import (
	"bytes"
	"time"
)

// A datagram network loses, doubles, delays, reorders and corrupts, each frame
// for itself.
type datagram struct {
	wires
	weather
	bad map[[2]*process]bool // links in a burst of losses
}

// Weather says how bad a network is. Probabilities are per frame and receiver
// unless it is said otherwise.
type weather struct {
	loss    float64       // independently at each receiver
	shared  float64       // for all receivers at once
	burst   float64       // probability that a burst of losses begins; it ends with burstEnd
	double  float64       // delivered again
	corrupt float64       // delivered with a bit changed
	reorder float64       // delayed by up to 20 times as much
	delay   time.Duration // least time on the way
	jitter  time.Duration // most time beyond it
}

const (
	burstEnd  = 0.1 // probability that a burst ends, per frame
	burstLoss = 0.9
)

func (n *datagram) send(from, to *instance, frames [][]byte) error {
	for _, f := range frames {
		n.w.tally.sends(from, f, 1)
		lost := n.random.Float64() < n.shared
		if lost && n.w.tally == nil {
			continue
		}
		n.others(from, to, func(in *instance) {
			switch {
			case n.isCut(from, in):
			case lost || n.lost(from, in):
				n.w.tally.loses(in, f, n.w.now)
			default:
				n.fly(in, f)
			}
		})
	}
	return nil
}

func (n *datagram) lost(from, to *instance) bool {
	if n.burst > 0 {
		link := [2]*process{from.process, to.process}
		if n.bad[link] {
			n.bad[link] = n.random.Float64() >= burstEnd
		} else {
			n.bad[link] = n.random.Float64() < n.burst
		}
		if n.bad[link] && n.random.Float64() < burstLoss {
			return true
		}
	}
	return n.loss > 0 && n.random.Float64() < n.loss
}

func (n *datagram) fly(to *instance, frame []byte) {
	for {
		f, d := frame, n.delay
		if n.jitter > 0 {
			d += time.Duration(n.random.Int64N(int64(n.jitter)))
		}
		if n.reorder > 0 && n.random.Float64() < n.reorder {
			d += time.Duration(n.random.Int64N(int64(20*(n.delay+n.jitter) + 1)))
		}
		if n.corrupt > 0 && n.random.Float64() < n.corrupt {
			f = bytes.Clone(frame)
			f[n.random.IntN(len(f))] ^= 1 << n.random.IntN(8)
		}
		n.deliver(to, f, d)
		if n.double == 0 || n.random.Float64() >= n.double {
			return
		}
	}
}
