package engine

import (
	"cmp"
	"slices"

	"github.com/carillon-go/carillon/internal/wire"
)

// fragmentCost is what a fragment takes beside its body: the rest of its frame, which is kept
// with it, and what says what it is. Without it, chunks of one byte would cost nothing.
const fragmentCost = 192

// A partial is an event that arrives in fragments. Its frames have consecutive
// numbers, so any one of them tells where all of them are.
type partial struct {
	ordinal     uint64
	first, last uint64 // its frames
	size        int
	chunks      []wire.Fragment
	bytes       int
	held        int  // bytes that the chunks take, with the frames they came in
	dead        bool // told as missed; kept until its frames have passed
	unseen      bool // it began before the baseline: nobody is told of it
}

// acceptFragment takes a fragment whose frame is new.
func (m *Machine) acceptFragment(p *peer, h wire.Header, body []byte, fx *Effects) Verdict {
	f, err := wire.ReadFragment(body, h.Count)
	if err == nil && (f.Size > m.cfg.MaxEventBytes+wire.HeaderLen || uint64(f.Index) >= h.Number) {
		err = wire.ErrMalformed
	}
	if err != nil {
		i, found := p.findPart(h.Ordinal)
		if !found {
			p.parts = slices.Insert(p.parts, i, &partial{ordinal: h.Ordinal, first: h.Number, last: h.Number})
		}
		m.kill(p, p.parts[i], ReasonUndecodable, fx)
		return Undecodable
	}
	part := m.part(p, h, f, fx)
	if part.dead {
		return Accepted
	}
	if part.size != f.Size || part.first != h.Number-uint64(f.Index) || part.bytes+len(f.Chunk) > part.size {
		m.kill(p, part, ReasonUndecodable, fx)
		return Undecodable
	}
	part.chunks = append(part.chunks, f)
	part.bytes += len(f.Chunk)
	part.held += len(body) + fragmentCost
	if uint64(len(part.chunks)) < part.last-part.first+1 {
		for p.partBytes() > m.cfg.HoldBytes+m.cfg.MaxEventBytes {
			m.kill(p, p.parts[slices.IndexFunc(p.parts, func(q *partial) bool { return !q.dead })], ReasonOverflow, fx)
		}
		return Accepted
	}

	slices.SortFunc(part.chunks, func(a, b wire.Fragment) int { return a.Index - b.Index })
	record := make([]byte, 0, part.size)
	for _, c := range part.chunks {
		record = append(record, c.Chunk...)
	}
	events, order, err := wire.DecodeRecord(record)
	if err != nil || len(record) != part.size {
		m.kill(p, part, ReasonUndecodable, fx)
		return Undecodable
	}
	p.parts = slices.DeleteFunc(p.parts, func(q *partial) bool { return q == part })
	if !m.subscribes() {
		return Accepted
	}
	m.tell(p, Item{Site: p.site, Stream: p.stream, Ordinal: part.ordinal, Clock: h.Clock, Events: events, order: order}, part.last, fx)
	return Accepted
}

// part returns the partial that the fragment f belongs to. A new one whose
// earlier frames are neither here nor still missing was lost before this
// fragment came: it is dead from the start.
func (m *Machine) part(p *peer, h wire.Header, f wire.Fragment, fx *Effects) *partial {
	i, found := p.findPart(h.Ordinal)
	if found {
		return p.parts[i]
	}
	first := h.Number - uint64(f.Index)
	part := &partial{ordinal: h.Ordinal, first: first, last: first + uint64(f.Total) - 1, size: f.Size}
	p.parts = slices.Insert(p.parts, i, part)
	switch {
	case first <= p.base.Frame:
		part.dead, part.unseen = true, true
	case !p.allMissing(first, h.Number):
		m.kill(p, part, ReasonTimeout, fx)
	}
	return part
}

// findPart returns where the partial of an event is, or belongs.
func (p *peer) findPart(ordinal uint64) (int, bool) {
	return slices.BinarySearchFunc(p.parts, ordinal, func(q *partial, ord uint64) int { return cmp.Compare(q.ordinal, ord) })
}

// allMissing reports whether every frame from first up to but not including end
// lies in an open gap.
func (w *window) allMissing(first, end uint64) bool {
	for first < end {
		i := w.find(first)
		if i < 0 {
			return false
		}
		first = w.gaps[i].last + 1
	}
	return true
}

// kill tells the event of part as missed, once.
func (m *Machine) kill(p *peer, part *partial, why Reason, fx *Effects) {
	if part.dead {
		return
	}
	part.dead, part.chunks, part.bytes, part.held = true, nil, 0, 0
	m.miss(p, part.ordinal, part.ordinal+1, why, fx)
}

// killParts kills the events of which the gap g, just given up, held a
// fragment. It returns the first ordinal in g that is not told by that.
func (m *Machine) killParts(p *peer, g gap, why Reason, fx *Effects) uint64 {
	ord := g.ord
	for _, part := range p.parts {
		if part.first > g.last || part.last < g.first {
			continue
		}
		m.kill(p, part, why, fx)
		if part.ordinal == ord && ord < g.next {
			ord++ // its last fragment, which carries the count, was in the gap too
		}
	}
	return ord
}

// prune forgets the dead of whose frames none can come any more.
func (p *peer) prune() {
	if len(p.parts) == 0 {
		return
	}
	p.parts = slices.DeleteFunc(p.parts, func(q *partial) bool {
		i := p.from(q.first)
		return q.dead && q.last <= p.high.Frame && (i == len(p.gaps) || p.gaps[i].first > q.last)
	})
}

func (p *peer) partBytes() (n int) {
	for _, q := range p.parts {
		n += q.held
	}
	return n
}
