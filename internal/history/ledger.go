package history

import (
	"fmt"
	"time"
)

// told is what became of one event at one instance. The zero value is nothing.
type told uint8

const (
	_ told = iota
	wasRaised
	wasMissed
)

func (t told) String() string { return [...]string{"nothing", "Raised", "Missed"}[t] }

// A ledger is what one instance was told of the events of another.
type ledger struct {
	told []told          // by number
	at   []time.Duration // when
	last map[string]lastOrdered
}

// lastOrdered is the Ordered event of its name that was Raised last.
type lastOrdered struct {
	stream *stream
	seq    uint64
}

func (l *ledger) get(seq uint64) told {
	if seq < uint64(len(l.told)) {
		return l.told[seq]
	}
	return 0
}

// knew reports whether anything was told of a stream before its row was erased.
func (l *ledger) knew(s *stream) bool {
	for seq := s.first; seq < uint64(len(l.told)); seq++ {
		if l.told[seq] != 0 && l.at[seq] < s.erased {
			return true
		}
	}
	return false
}

// tell enters that in was told of event seq of from, and looks at everything
// that can be judged at once.
func (c *Checker) tell(in, from *instance, seq uint64, what told, r *Record) {
	l := in.told[from]
	if l == nil {
		l = &ledger{last: map[string]lastOrdered{}}
		in.told[from] = l
	}
	for uint64(len(l.told)) <= seq {
		l.told, l.at = append(l.told, 0), append(l.at, 0)
	}
	if was := l.told[seq]; was != 0 {
		c.violate(Twice, in, r, from, seq, fmt.Sprintf("%s now, %s at %v", what, was, l.at[seq]))
		return
	}
	l.told[seq], l.at[seq] = what, r.At

	e := &from.events[seq]
	if in.quiet && min(e.left, e.seen) < in.opening && from.ended > in.inStep {
		c.violate(Baseline, in, r, from, seq, fmt.Sprintf("%s, but sent before %v, when it had not joined", what, in.opening))
	}
	// Of one who was killed it may become known at any time, by a replay for one.
	if out := max(from.isOut(e), in.since(e.name)); out != never && c.calm != never && !from.silentEnd && r.At > max(out, c.calm, in.thawed)+c.settle {
		c.violate(Tardy, in, r, from, seq, fmt.Sprintf("%s, but sent at %v, and faults stopped at %v", what, out, c.calm))
	}
	if what == wasMissed {
		c.repairable(in, from, seq, r)
	}
	if e.ordered {
		c.ordered(in, from, l, seq, what, r)
	}
}

// ordered holds an Ordered event against the last one told of its name.
func (c *Checker) ordered(in, from *instance, l *ledger, seq uint64, what told, r *Record) {
	s, name := c.streams[r.Stream], from.events[seq].name
	if was, ok := l.last[name]; ok && was.stream == s && was.seq > seq && l.at[was.seq] <= r.At {
		c.violate(Disordered, in, r, from, seq, fmt.Sprintf("%s after event %d", what, was.seq))
		return
	}
	if what == wasRaised {
		l.last[name] = lastOrdered{s, seq}
	}
}

// repairable looks whether an event told as missed could have been repaired in
// the time since faults have stopped.
func (c *Checker) repairable(in, from *instance, seq uint64, r *Record) {
	switch r.Reason {
	case "timeout", "peer-lost":
	case "evicted":
		if c.repair.Evicts {
			return
		}
	default:
		return
	}
	e, s := &from.events[seq], c.streams[r.Stream]
	out, since := from.isOut(e), in.since(e.name)
	if c.calm == never || since == never || out < since || e.doubtful || s.erased != never {
		return
	}
	open := r.At - max(c.calm, in.thawed, from.thawed, out, since)
	switch {
	case c.repair.Within > 0 && open > c.repair.Within && from.over > r.At && from.streamOf(uint64(len(from.events))) == s:
		c.violate(Unrepaired, in, r, from, seq, fmt.Sprintf("its sender lives, and for %v nothing was in the way", open))
	case c.repair.Left > 0 && open > c.repair.Left && from.over <= r.At && c.survivorHas(in, from, seq, r.At):
		c.violate(Unrepaired, in, r, from, seq, fmt.Sprintf("others have it, and for %v nothing was in the way", open))
	}
}
