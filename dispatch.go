package carillon

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/site"
)

// slabLen is how many arrivals are allocated at once.
const slabLen = 64

// itemLocked tells subscribers of an item, or keeps it until Enable. left is how many items
// of the same call there are, this one included. b.mu is held.
func (b *Broker) itemLocked(it *engine.Item, left int) {
	switch {
	case b.closing.Load():
		if it.Missed == nil {
			b.drops.add(DropClosing, 1)
		}
	case b.enabled:
		b.tellLocked(it, left)
	default:
		b.holdLocked(it)
	}
}

func (b *Broker) tellLocked(it *engine.Item, left int) {
	if it.Missed != nil {
		b.tellMissedLocked(b.missedOf(it.Missed))
		return
	}
	b.counts.received.Add(1)
	id := ID(it.Event.ID)
	e := b.lookup(id)
	var subs []*raisedSub
	if e != nil {
		e.received.Add(1)
		subs = load(&e.raised)
	}
	taps := load(&b.taps)
	backlog := slices.ContainsFunc(subs, func(s *raisedSub) bool { return s.queue.backlogged() }) ||
		slices.ContainsFunc(taps, func(s *tapSub) bool { return s.queue.backlogged() })
	if backlog {
		it.Event.Payload = slices.Clone(it.Event.Payload)
	}
	if len(taps) > 0 {
		b.tapLocked(taps, e, it, len(subs) > 0)
	}
	if e == nil {
		b.drops.add(DropUnasked, 1)
		return
	}
	if len(subs) == 0 {
		return
	}

	if backlog {
		b.slab = make([]arrival, 1) // or this one would keep its neighbours alive
	} else if len(b.slab) == 0 {
		b.slab = make([]arrival, min(left, slabLen))
	}
	a := &b.slab[0]
	b.slab = b.slab[1:]
	a.ev, a.source, a.raiser = e, b.rows.source(it.Site, it.Stream), it.Event.Raiser
	a.ordinal, a.clock, a.payload = it.Ordinal, it.Clock, it.Event.Payload
	for _, s := range subs {
		if s.pushLocked(a) {
			continue
		}
		b.drops.add(DropLocalQueue, 1)
		told := b.tellMissed(e, &Missed{
			Event: id, Known: true, Source: *a.source, First: a.ordinal, Last: a.ordinal,
			Count: 1, Exact: true, Reason: MissedLocalQueue, Reports: 1,
		})
		if e.ordered() {
			s.after = told
		}
	}
}

func (b *Broker) tapLocked(taps []*tapSub, e *Event, it *engine.Item, wanted bool) {
	r := Received{
		Event: it.Event.ID, Raiser: it.Event.Raiser, Payload: it.Event.Payload, Wanted: wanted,
		Source: *b.rows.source(it.Site, it.Stream), Ordinal: it.Ordinal, Sent: time.UnixMicro(it.Clock),
	}
	if e != nil {
		if def := e.def.Load(); def != nil {
			r.Name = def.name
		}
	}
	for _, s := range taps {
		if !s.queue.push(r, entryBytes+len(r.Payload)) {
			b.drops.add(DropTapQueue, 1)
		}
	}
}

// missedReasons says what the machine's reasons are called here.
var missedReasons = [...]MissedReason{
	engine.ReasonTimeout: MissedTimeout, engine.ReasonOverflow: MissedOverflow,
	engine.ReasonUndecodable: MissedUndecodable, engine.ReasonReset: MissedReset,
	engine.ReasonEvicted: MissedEvicted, engine.ReasonPeerLost: MissedPeerLost,
}

func (b *Broker) missedOf(m *engine.Missed) *Missed {
	return &Missed{
		Event: m.Event, Known: m.Known, Source: *b.rows.source(m.Site, m.Stream),
		First: m.First, Last: m.Last, Count: m.Count, Exact: m.Exact,
		Reason: missedReasons[m.Reason], Reports: 1,
	}
}

// tellDoubtLocked has the OnInDoubt functions told of d. b.mu is held.
func (b *Broker) tellDoubtLocked(d engine.InDoubt) {
	if !b.enabled || b.closing.Load() {
		return
	}
	for _, s := range load(&b.doubts) {
		// A function with a full queue has been told, and not listened yet.
		s.queue.push(*b.rows.source(d.Site, d.Stream), entryBytes)
	}
}

// tellMissedLocked has everybody told of m whom it concerns, and the subscribers
// of Ordered events told nothing that follows it before. b.mu is held.
func (b *Broker) tellMissedLocked(m *Missed) {
	var e *Event
	if m.Known {
		if e = b.lookup(m.Event); e == nil {
			b.countMissed(nil, m)
			return
		}
	}
	told := b.tellMissed(e, m)
	if len(told) == 0 {
		return
	}
	for _, o := range b.orderedEvents {
		if e != nil && o != e {
			continue
		}
		for _, s := range load(&o.raised) {
			s.after = told
		}
	}
}

// tellMissed has the OnMissed functions of e told of m, or those of all events if e is
// nil. It takes no lock of the Broker.
func (b *Broker) tellMissed(e *Event, m *Missed) []ticket {
	b.countMissed(e, m)
	list := &b.missed
	if e != nil {
		list = &e.missed
	}
	subs := load(list)
	if len(subs) == 0 {
		return nil
	}
	tickets := make([]ticket, len(subs))
	for i, s := range subs {
		tickets[i] = s.add(m)
	}
	return tickets
}

// countMissed counts m and leaves it to the log.
func (b *Broker) countMissed(e *Event, m *Missed) {
	b.counts.lost.Add(m.Count)
	if e != nil {
		e.lost.Add(m.Count)
	}
	b.misses.add(m)
}

// A holdBack keeps what arrives between Open and Enable.
type holdBack struct {
	items []engine.Item
	bytes int

	isolated bool // for longer than a lease

	// From the first item for which there was no room, nothing more is kept, so
	// that what is told stays in order: events are counted by ID, within
	// a bound, and told as missed at Enable.
	full   bool
	missed map[ID]*Missed
	other  *Missed // of events beyond the bound, and of those whose ID is not known
}

// maxHeldIDs bounds the IDs that a holdBack tells apart when it is full.
const maxHeldIDs = 1024

func (b *Broker) holdLocked(it *engine.Item) {
	h := &b.hold
	bytes := entryBytes + len(it.Event.Payload)
	if !h.full && h.bytes+bytes <= b.cfg.HoldBytes {
		h.items = append(h.items, *it)
		h.bytes += bytes
		return
	}
	h.full = true
	var m *Missed
	if it.Missed != nil {
		m = b.missedOf(it.Missed)
	} else {
		b.drops.add(DropNotEnabled, 1)
		m = &Missed{
			Event: it.Event.ID, Known: true, Source: *b.rows.source(it.Site, it.Stream), First: it.Ordinal, Last: it.Ordinal,
			Count: 1, Exact: true, Reason: MissedOverflow, Reports: 1,
		}
	}
	if was := h.missed[m.Event]; m.Known && was != nil {
		was.merge(m)
		return
	}
	switch {
	case m.Known && len(h.missed) < maxHeldIDs:
		if h.missed == nil {
			h.missed = map[ID]*Missed{}
		}
		h.missed[m.Event] = m
	case h.other == nil:
		m.Event, m.Known = ID{}, false
		h.other = m
	default:
		h.other.merge(m)
	}
}

// releaseHeldLocked tells what was kept. b.mu is held.
func (b *Broker) releaseHeldLocked() {
	h := b.hold
	b.hold = holdBack{}
	b.slab = nil
	for i := range h.items {
		b.tellLocked(&h.items[i], len(h.items)-i)
	}
	for _, m := range h.missed {
		b.tellMissedLocked(m)
	}
	if h.isolated {
		b.tellMissedLocked(&Missed{Reason: MissedIsolated, Reports: 1})
	}
	if h.other != nil {
		b.tellMissedLocked(h.other)
	}
}

// source returns who sends the stream. The answer is shared and read-only.
func (t *memberTable) source(s site.ID, stream site.StreamID) *Source {
	if src := t.sources[stream]; src != nil {
		return src
	}
	return &Source{Site: s, Stream: stream}
}
