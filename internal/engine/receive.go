package engine

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// Precheck says, before the cost of checking its tag is spent, what would become
// of a frame with this header. It changes nothing: the header is not proven yet.
// Anything but Accepted means that the frame can be dropped.
func (m *Machine) Precheck(h wire.Header) Verdict {
	p := m.byStream[h.Stream]
	switch {
	case p == nil && m.isClosed(h.Stream):
		if m.beyondEnd(&h) {
			return Accepted
		}
		return ClosedStream
	case p != nil && h.Type.Control() && p.control.heard(h.Number):
		return Duplicate
	case p == nil || h.Type.Control() || p.state == peerJoining:
		return Accepted
	}
	return p.check(h.Number)
}

// Drop counts a frame that its caller dropped because of what [Machine.Precheck]
// said of it.
func (m *Machine) Drop(v Verdict) { m.counts[v]++ }

// Receive takes a frame whose tag is right and that is not of the own stream: as
// it came, and its body in the clear, which may alias the frame. Neither may
// change ever after; items in fx alias the body. Frames that cannot be judged
// yet are held and judged later, so the counts, not the verdicts, tell what
// became of everything.
func (m *Machine) Receive(now time.Time, h wire.Header, frame, body []byte, fx *Effects) Verdict {
	m.notice(now)
	p := m.byStream[h.Stream]
	v := Accepted
	switch {
	case p == nil && h.Type == wire.TypeWitness:
		v = m.strangersWitness(h, body, fx)
	case p == nil && m.isClosed(h.Stream):
		v = ClosedStream
		if m.beyondEnd(&h) {
			m.wentOn(h.Site, h.Stream, site.Mark{Frame: h.Number, Next: h.Ordinal + uint64(h.Count)}, fx)
		}
	case p == nil:
		v = m.holdUnknown(now, h, frame, body, fx)
	case p.site != h.Site:
		v = Inconsistent
	default:
		p.heard(now, &h)
		if p.state == peerJoining && !h.Type.Control() {
			v = m.held.add(&m.cfg, h, frame, body)
			break
		}
		v = m.accept(now, p, h, frame, body, fx)
	}
	m.counts[v]++
	return v
}

// Counts returns how many frames met each verdict. A frame that was held counts
// again with what became of it.
func (m *Machine) Counts() [numVerdicts]uint64 { return m.counts }

// accept takes a frame of a known stream.
func (m *Machine) accept(now time.Time, p *peer, h wire.Header, frame, body []byte, fx *Effects) Verdict {
	if h.Type.Control() {
		return m.acceptControl(now, p, h, body, fx)
	}
	gaps := len(p.gaps)
	if i := p.find(h.Number); i >= 0 {
		m.repaired(now, p, &p.gaps[i])
	}
	v := p.observe(now, h.Number, h.Ordinal, uint64(h.Count))
	if len(p.gaps) > gaps {
		m.planRepair(now, p)
	}
	if v != Accepted {
		return v
	}
	m.keep(now, p, h.Number, frame)
	p.dataAt = now
	m.ackLater(now)
	m.ackFrames++
	if m.ackBytes += len(body); (m.ackBytes > m.cfg.RingBytes/4 || m.ackFrames > m.cfg.RingFrames/4) && !m.crowded() {
		m.sayACK(now, len(m.peers), fx)
	}
	m.lend(now, p, len(frame), fx)
	if h.Type == wire.TypeFragment {
		v = m.acceptFragment(p, h, body, fx)
	} else {
		v = m.acceptEvents(p, h, body, fx)
	}
	m.release(p, fx)
	p.prune()
	m.maybeForget(now, p, fx)
	return v
}

// acceptEvents turns a frame of whole events into items. One that does not
// decode is missed as a whole: events are told from the first on, so a frame is
// read to its end before any of it is told.
func (m *Machine) acceptEvents(p *peer, h wire.Header, body []byte, fx *Effects) Verdict {
	events, ordered, err := wire.Decode(body, h.Count)
	switch {
	case err != nil:
		m.miss(p, h.Ordinal, h.Ordinal+uint64(h.Count), ReasonUndecodable, fx)
		return Undecodable
	case !m.subscribes():
	case ordered:
		m.acceptOrdered(p, h, body, events, fx)
	default:
		fx.Items = append(fx.Items, Item{Site: p.site, Stream: p.stream, Clock: h.Clock, Ordinal: h.Ordinal, Events: events})
	}
	return Accepted
}

// acceptOrdered takes the events of a frame of which some are Ordered. Each is
// an item of its own, since some may have to wait and others not.
func (m *Machine) acceptOrdered(p *peer, h wire.Header, body []byte, events wire.Events, fx *Effects) {
	var e wire.Event
	r := wire.ReadEvents(body, h.Count)
	for i := range events.Len() {
		r.Next(&e) // it was decoded before, so there is one, without an error
		m.tell(p, Item{Site: p.site, Stream: p.stream, Clock: h.Clock, Ordinal: h.Ordinal + uint64(i),
			Events: events.Slice(i, i+1), order: e.Order}, h.Number, fx)
	}
}

func (m *Machine) subscribes() bool { return m.cfg.Role&site.RoleSubscribe != 0 }

// miss tells that the events with ordinals ord to next-1 will not be told.
func (m *Machine) miss(p *peer, ord, next uint64, why Reason, fx *Effects) {
	if ord >= next {
		return
	}
	p.missed += next - ord
	if m.subscribes() {
		fx.Items = append(fx.Items, Item{Site: p.site, Stream: p.stream, Ordinal: ord, Missed: &Missed{
			Site: p.site, Stream: p.stream, Reason: why, First: ord, Last: next - 1, Count: next - ord, Exact: true}})
	}
}

// giveUp ends p's oldest gap: its events are missed, and what waited for them
// waits no longer.
func (m *Machine) giveUp(p *peer, why Reason, fx *Effects) {
	g, from := p.window.giveUp(), len(fx.Items)
	m.miss(p, m.killParts(p, g, why, fx), g.next, why, fx)
	g.blur(fx.Items[from:])
}

// blur takes the misses of g for approximate if some of them may concern what
// was sent before this instance began to listen.
func (g *gap) blur(items []Item) {
	for i := range items {
		if items[i].Missed != nil && g.old {
			items[i].Missed.Exact = false
		}
	}
}

// expire gives up every gap that has been open for too long.
func (m *Machine) expire(now time.Time, fx *Effects) {
	for i := len(m.gappy) - 1; i >= 0; i-- { // backwards: maybeForget removes
		p := m.gappy[i]
		due := func() bool { return len(p.gaps) > 0 && now.Sub(p.gaps[0].since) >= m.cfg.MissedAfter }
		if !due() {
			continue
		}
		why := ReasonTimeout
		switch {
		case p.ended != 0:
			why = p.ended
		case m.silent(now, p):
			why = ReasonPeerLost
		}
		for due() {
			m.giveUp(p, why, fx)
			m.release(p, fx)
		}
		p.prune()
		m.ackSoon(now)
		m.maybeForget(now, p, fx)
	}
}

// A holding keeps verified frames that cannot be judged yet, because their
// stream is not known or has no baseline, within one bound for all.
type holding struct {
	frames []heldFrame // in the order of arrival
	bytes  int

	// The member table is asked for unknown streams one read at a time, with a
	// bound on the rate: whoever holds the secret could make up streams without
	// end.
	asking  bool
	tokens  int
	tokenAt time.Time                   // when the last token was earned
	retryAt time.Time                   // when to ask again; zero: nothing to ask
	absent  map[site.StreamID]time.Time // until when the table's "not here" is believed
}

type heldFrame struct {
	header  wire.Header
	frame   []byte
	body    []byte
	unknown bool // its stream was not known
	asked   bool // a read of the member table that began after its arrival is under way
}

func (h *holding) add(cfg *Config, hd wire.Header, frame, body []byte) Verdict {
	if len(h.frames) >= cfg.HoldFrames || h.bytes+len(body) > cfg.HoldBytes {
		return HoldOverflow
	}
	h.frames = append(h.frames, heldFrame{header: hd, frame: frame, body: body})
	h.bytes += len(body)
	return Held
}

// unknown reports whether a frame is held of a stream that is not among peers.
func (h *holding) unknown(peers map[site.StreamID]*peer) bool {
	return slices.ContainsFunc(h.frames, func(f heldFrame) bool { return peers[f.header.Stream] == nil })
}

// take removes and returns the frames of one stream.
func (h *holding) take(s site.StreamID) []heldFrame {
	var out []heldFrame
	h.frames = slices.DeleteFunc(h.frames, func(f heldFrame) bool {
		if f.header.Stream != s {
			return false
		}
		out = append(out, f)
		h.bytes -= len(f.body)
		return true
	})
	return out
}

// holdUnknown keeps a frame of a stream that the member table may know by now,
// and has the table asked.
func (m *Machine) holdUnknown(now time.Time, hd wire.Header, frame, body []byte, fx *Effects) Verdict {
	h := &m.held
	if until, ok := h.absent[hd.Stream]; ok {
		if now.Before(until) {
			return UnknownStream
		}
		delete(h.absent, hd.Stream)
	}
	v := h.add(&m.cfg, hd, frame, body)
	if v != Held {
		return v
	}
	h.frames[len(h.frames)-1].unknown = true
	m.ask(now, fx)
	return Held
}

// ask has the member table read, unless a read is under way or the rate is used
// up; then later. A read answers for the frames that arrived before it began.
func (m *Machine) ask(now time.Time, fx *Effects) {
	h := &m.held
	if h.asking || !m.started {
		return
	}
	if earned := int(now.Sub(h.tokenAt) / askEvery); h.tokens < askBurst && earned > 0 {
		h.tokens = min(askBurst, h.tokens+earned)
		h.tokenAt = now
	}
	if h.tokens == 0 {
		h.retryAt = h.tokenAt.Add(askEvery)
		return
	}
	if h.tokens == askBurst {
		h.tokenAt = now
	}
	h.tokens--
	h.asking, h.retryAt = true, time.Time{}
	for i := range h.frames {
		h.frames[i].asked = h.frames[i].unknown
	}
	fx.AskMembers = true
}

// AskFailed says that the read which [Effects.AskMembers] asked for failed.
func (m *Machine) AskFailed(now time.Time) {
	m.held.asking = false
	m.held.retryAt = now.Add(askEvery)
}

// judgeUnknown drops the frames whose stream the read just taken does not show.
func (m *Machine) judgeUnknown(now time.Time, fx *Effects) {
	h := &m.held
	h.asking = false
	more := false
	h.frames = slices.DeleteFunc(h.frames, func(f heldFrame) bool {
		switch {
		case !f.unknown:
			return false
		case !f.asked:
			more = true
			return false
		}
		h.bytes -= len(f.body)
		if h.absent == nil || len(h.absent) >= m.cfg.HoldFrames {
			h.absent = map[site.StreamID]time.Time{}
		}
		h.absent[f.header.Stream] = now.Add(unknownFor)
		if m.isClosed(f.header.Stream) {
			m.counts[ClosedStream]++
		} else {
			m.counts[UnknownStream]++
			if !slices.Contains(fx.Strangers, f.header.Stream) {
				fx.Strangers = append(fx.Strangers, f.header.Stream)
			}
		}
		return true
	})
	if more {
		m.ask(now, fx)
	}
}
