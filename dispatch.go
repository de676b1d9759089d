package carillon

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/site"
)

// itemLocked tells subscribers of an item, or keeps it until Enable. b.mu is held.
func (b *Broker) itemLocked(it *engine.Item) {
	switch {
	case b.closing.Load():
		if it.Missed == nil {
			b.drops.add(DropClosing, uint64(it.Events.Len()))
		}
	case b.enabled:
		b.tellLocked(it)
	default:
		b.holdLocked(it)
	}
}

func (b *Broker) tellLocked(it *engine.Item) {
	if it.Missed != nil {
		b.tellMissedLocked(b.missedOf(it.Missed))
		return
	}
	source := b.rows.source(it.Site, it.Stream)
	for from, end := 0, 0; from < it.Events.Len(); from = end {
		end = it.Events.Run(from)
		b.tellRunLocked(&parcel{source: source, ordinal: it.Ordinal + uint64(from), clock: it.Clock, events: it.Events.Slice(from, end)})
	}
}

// tellRunLocked tells subscribers and taps of p, whose event it finds. b.mu is held.
func (b *Broker) tellRunLocked(p *parcel) {
	id, n, payload := ID(p.events.ID(0)), p.events.Len(), p.events.PayloadBytes()
	e := b.lookup(id)
	var subs []*raisedSub
	if e != nil {
		e.received.Add(uint64(n))
		subs = load(&e.raised)
	}
	taps := load(&b.taps)
	if len(subs)+len(taps) > 0 && p.events.BodyBytes() > 2*payload &&
		(slices.ContainsFunc(subs, func(s *raisedSub) bool { return s.queue.backlogged() }) ||
			slices.ContainsFunc(taps, func(s *tapSub) bool { return s.queue.backlogged() })) {
		p.events = p.events.Clone()
	}
	if len(taps) > 0 {
		b.tapLocked(taps, e, p, len(subs) > 0)
	}
	if e == nil {
		b.counts.unasked.Add(uint64(n))
		b.drops.add(DropUnasked, uint64(n))
		return
	}
	p.ev, p.bytes = e, queueBytes(n, payload)
	if len(subs) > 1 {
		p.shared = make([]decoded, n)
	}
	if len(subs) > 0 {
		b.crowd.queued += p.bytes
	}
	for _, s := range subs {
		taken := s.pushLocked(p)
		if taken == n {
			continue
		}
		b.drops.add(DropLocalQueue, uint64(n-taken))
		told := b.tellMissed(e, &Missed{
			Event: id, Known: true, Source: *p.source, First: p.ordinal + uint64(taken), Last: p.ordinal + uint64(n-1),
			Count: uint64(n - taken), Exact: true, Reason: MissedLocalQueue, Reports: 1,
		})
		if e.ordered() {
			s.after = told
		}
	}
}

func (b *Broker) tapLocked(taps []*tapSub, e *Event, p *parcel, wanted bool) {
	r := Received{Event: p.events.ID(0), Wanted: wanted, Source: *p.source, Sent: time.UnixMicro(p.clock)}
	if e != nil {
		if def := e.def.Load(); def != nil {
			r.Name = def.name
		}
	}
	for i := range p.events.Len() {
		r.Raiser, r.Payload, r.Ordinal = p.events.Raiser(i), p.events.Payload(i), p.ordinal+uint64(i)
		for _, s := range taps {
			if !s.queue.push(tapped{Received: r}, 1, entryBytes+len(r.Payload)) {
				b.drops.add(DropTapQueue, 1)
			}
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
		s.queue.push(doubted{from: *b.rows.source(d.Site, d.Stream)}, 1, entryBytes)
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
	items  []engine.Item
	events int // in items
	bytes  int

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
	bytes := queueBytes(it.Events.Len(), it.Events.PayloadBytes())
	if !h.full && h.bytes+bytes <= b.cfg.HoldBytes {
		if it.Events.BodyBytes() > 2*bytes { // most of the frame is nothing that counts
			it.Events = it.Events.Clone()
		}
		h.items = append(h.items, *it)
		h.events += it.Events.Len()
		h.bytes += bytes
		return
	}
	h.full = true
	if it.Missed != nil {
		h.miss(b.missedOf(it.Missed))
		return
	}
	source := b.rows.source(it.Site, it.Stream)
	for from, end := 0, 0; from < it.Events.Len(); from = end {
		end = it.Events.Run(from)
		n := uint64(end - from)
		b.drops.add(DropNotEnabled, n)
		h.miss(&Missed{
			Event: it.Events.ID(from), Known: true, Source: *source, First: it.Ordinal + uint64(from), Last: it.Ordinal + uint64(end-1),
			Count: n, Exact: true, Reason: MissedOverflow, Reports: 1,
		})
	}
}

// miss counts m, for which there is no room.
func (h *holdBack) miss(m *Missed) {
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
	for i := range h.items {
		b.tellLocked(&h.items[i])
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
