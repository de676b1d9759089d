package history

import (
	"fmt"
	"time"
)

// Verdict ends the history and judges it. The Checker takes no more records.
func (c *Checker) Verdict() Verdict {
	for _, in := range c.instances {
		for i := range in.unplaced {
			r := &in.unplaced[i]
			if s := c.streams[r.Stream]; s.run != nil {
				c.tellMissed(in, s, r)
				continue
			}
			r.Stream = Stream{} // nobody was Raised anything of it: which events it held is not known
			in.merged = append(in.merged, *r)
		}
		if in.inStep == never || len(in.subscribed) == 0 {
			continue
		}
		counts := newTally(in)
		for _, from := range c.instances {
			if from != in && in.hears(from) {
				c.judge(in, from, counts)
			}
		}
		c.judgeCounts(in, counts)
	}
	return c.verdict
}

// judge looks for events of from that in was told nothing of.
func (c *Checker) judge(in, from *instance, counts *tally) {
	l := in.told[from]
	if l == nil {
		l = &ledger{}
	}
	later := never // when in was told of a later event of the same stream
	var of *stream
	for seq := uint64(len(from.events)); seq > 0; {
		seq--
		e := &from.events[seq]
		if s := from.streamOf(seq); s != of {
			of, later = s, never
		}
		switch what := l.get(seq); {
		case what == wasRaised:
			later = min(later, l.at[seq])
			continue
		case what == wasMissed:
			continue
		}
		counts.left++
		if !e.accepted && e.seen == never {
			continue // it was killed while it raised
		}
		out := max(from.isOut(e), 0)
		since := in.since(e.name)
		if out < since || out >= in.over || e.doubtful || of != nil && of.contested != never && out > of.contested-c.settle {
			continue
		}
		if counts.excused(of, seq, out) {
			continue
		}
		due, why := c.due(in, from, seq, out, since, later)
		switch {
		case due == never || of != nil && of.erased < out+c.settle && !l.knew(of):
			c.verdict.Lost++
		case !c.judged(in, due):
			c.verdict.Pending++
		case counts.covered(of, seq, out):
		default:
			v := Violation{Rule: Silent, At: due, Instance: in.name, From: from.name, Seq: seq,
				Note: fmt.Sprintf("raised at %v and neither Raised nor Missed by then, %s", e.raised, why)}
			if of != nil {
				v.Stream, v.Ordinal = of.id, seq-of.first
			}
			c.verdict.add(v)
		}
	}
}

// due returns by when in must have been told of an event, and why; never, if it
// cannot know that the event exists.
func (c *Checker) due(in, from *instance, seq uint64, out, since, later time.Duration) (time.Duration, string) {
	due, why := never, ""
	if later != never {
		// Whatever goes wrong meanwhile, a gap that it has seen cannot stay open.
		due, why = max(later, out, in.thawed)+c.settle, fmt.Sprintf("though it was told at %v of a later one", later)
	}
	if c.calm == never {
		return due, why
	}
	calm := max(out, since, c.calm, in.thawed) + c.settle
	if calm < due && (!from.silentEnd || from.over > calm || c.survivorHas(in, from, seq, calm)) {
		return calm, fmt.Sprintf("though faults stopped at %v", c.calm)
	}
	return due, why
}

// survivorHas reports whether another instance that lives until then was told
// of an event, so that it can reveal it to in. One that joined when all was well
// again can have been told of a dead sender's only by who plays old frames to it,
// at any time.
func (c *Checker) survivorHas(in, from *instance, seq uint64, until time.Duration) bool {
	for _, q := range c.instances {
		if q == in || q.over < until || q.opening > c.calm {
			continue
		}
		if l := q.told[from]; l != nil && l.get(seq) == wasRaised && in.hears(q) {
			return true
		}
	}
	return false
}

// judged reports whether the history shows in alive and running at that time.
func (c *Checker) judged(in *instance, at time.Duration) bool {
	return at <= c.now && at < in.over && !in.frozen
}
