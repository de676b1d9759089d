package sim

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
)

// A network carries frames between the instances that joined it, as a provider
// does: what it has accepted may still be lost.
type network interface {
	base() *wires
	// send takes frames for everybody, or for one instance, if it can.
	send(from, to *instance, frames [][]byte) error
	// cut makes a cut one way when by is 1, and mends it when it is -1.
	cut(from, to *process, by int)
}

var errBusy = errors.New("sim: the network accepts nothing just now")

// wires are what all networks have in common.
type wires struct {
	w            *world
	name         string
	random       *rand.Rand
	frameBytes   int
	window       int           // as a provider tells it of its buffer
	reorderDelay time.Duration // as capabilities declare it
	idle         time.Duration // between heartbeats while idle, as capabilities declare it
	sharedLoss   bool          // as capabilities declare it
	toAll        bool          // no instance can be reached alone
	joined       []*instance
	cuts         map[[2]*process]int // by from and to; how many cuts lie on it
}

func (n *wires) base() *wires { return n }

func (n *wires) join(in *instance) { n.joined = append(n.joined, in) }

func (n *wires) isCut(from, to *instance) bool {
	return len(n.cuts) > 0 && n.cuts[[2]*process{from.process, to.process}] > 0
}

func (n *wires) cut(from, to *process, by int) { n.cuts[[2]*process{from, to}] += by }

// deliver has a frame arrive after a while.
func (n *wires) deliver(to *instance, frame []byte, after time.Duration) {
	n.w.tally.brings(to, frame)
	n.w.agenda.add(n.w.now+after, happening{to: to, frame: frame})
}

// others calls do for everybody who hears what from sends, in the order in which they
// joined.
func (n *wires) others(from, to *instance, do func(*instance)) {
	if to != nil && !n.toAll {
		if !to.dead {
			do(to)
		}
		return
	}
	for _, in := range n.joined {
		if in != from && !in.dead {
			do(in)
		}
	}
}

// configure takes what the network demands of an instance that is on it.
func (n *wires) configure(cfg *engine.Config) {
	cfg.FrameBytes = min(cfg.FrameBytes, n.frameBytes)
	if n.window > 0 && (cfg.Window == 0 || n.window < cfg.Window) {
		cfg.Window = n.window
	}
	cfg.RepairDelay = max(cfg.RepairDelay, n.reorderDelay)
	cfg.SharedLoss = cfg.SharedLoss || n.sharedLoss
	cfg.ReachesOne = cfg.ReachesOne && !n.toAll
}

// idleHeartbeat returns what the networks of one instance demand together: who
// must speak on one speaks on all.
func idleHeartbeat(networks []network) time.Duration {
	often := time.Duration(-1)
	for _, n := range networks {
		switch d := n.base().idle; {
		case d == 0:
			return 0
		case d > 0 && (often < 0 || d < often):
			often = d
		}
	}
	return often
}
