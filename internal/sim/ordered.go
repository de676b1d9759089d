package sim

import "time"

// An ordered network has a connection between each two instances: nothing is
// lost or overtaken, until it breaks. Then what was on its way is lost, and what
// is sent until it is made again.
type ordered struct {
	wires
	delay, jitter time.Duration
	links         map[[2]*instance]*link
}

// A link is one direction of a connection.
type link struct {
	last time.Duration // when the last frame sent arrives
	made time.Duration // no frame sent before arrives any more
}

const reconnectAfter = 50 * time.Millisecond

func (n *ordered) send(from, to *instance, frames [][]byte) error {
	n.others(from, to, func(in *instance) {
		l := n.links[[2]*instance{from, in}]
		if l == nil {
			l = &link{}
			n.links[[2]*instance{from, in}] = l
		}
		if n.isCut(from, in) || n.isCut(in, from) {
			l.made = n.w.now + reconnectAfter
			return
		}
		if n.w.now < l.made {
			return
		}
		for _, f := range frames {
			at := max(l.last, n.w.now+n.delay+time.Duration(n.random.Int64N(int64(n.jitter)+1)))
			l.last = at
			n.w.tally.sends(from, f, 1)
			n.w.tally.brings(in, f)
			sent := n.w.now
			n.w.agenda.add(at, happening{do: func() {
				if sent >= l.made {
					in.arrive(f)
				}
			}})
		}
	})
	return nil
}

// cut breaks connections that it lies on, both ways.
func (n *ordered) cut(from, to *process, by int) {
	n.wires.cut(from, to, by)
	n.breakBetween(from, to)
}

// breakBetween resets the connections between two processes: what is on its way is
// lost.
func (n *ordered) breakBetween(a, b *process) {
	for pair, l := range n.links {
		if p, q := pair[0].process, pair[1].process; p == a && q == b || p == b && q == a {
			l.made = max(l.made, n.w.now+reconnectAfter)
		}
	}
}
