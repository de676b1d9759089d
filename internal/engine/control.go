package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// say adds a control frame to fx. Control frames are truths that may be lost,
// repeated or replayed without harm, so nobody keeps them.
func (m *Machine) say(now time.Time, to site.StreamID, c wire.Control, fx *Effects) {
	h := m.header(now, c.Type())
	m.send.control++
	h.Number = m.send.control
	fx.Control = append(fx.Control, Control{Frame: wire.ControlFrame(h, c, m.cfg.TrailerBytes), To: to})
}

// listRoom returns how many entries of the size given fit into one control
// frame beside fixed bytes; at least one.
func (m *Machine) listRoom(entry, fixed int) int {
	const lengths = 16 // of the lists, and of an empty extension area
	room := m.cfg.FrameBytes - wire.HeaderLen - m.cfg.TrailerBytes - fixed - lengths
	return max(1, min(room/entry, wire.MaxList))
}

func (m *Machine) acceptControl(now time.Time, p *peer, h wire.Header, body []byte, fx *Effects) Verdict {
	if !p.control.hear(h.Number) {
		return Duplicate // some are answered, and nobody who replays them is
	}
	c, err := wire.ReadControl(h.Type, body)
	if err != nil {
		return Undecodable
	}
	switch c := c.(type) {
	case wire.Heartbeat:
		m.exists(now, p, c.Mark, fx)
		m.ackHeartbeat(now, p, c)
	case wire.Hello:
		m.hello(now, p, c)
	case wire.State:
		m.state(now, p, c, fx)
	case wire.ACK:
		m.acked(now, p, c, fx)
	case wire.NAK:
		m.nak(now, p, c, h.Number, fx)
	case wire.Gone:
		return m.gone(now, p, c, fx)
	case wire.Digest:
		m.heardDigest(now, c, fx)
	case wire.Witness:
		m.witness(p.site, p.stream, c, fx)
	case wire.Bye:
		p.linger = time.Time{}
		m.endPeer(now, p, c.Mark, 0, fx)
	case wire.Reset:
		if c.Old == m.cfg.Stream {
			m.foundCopy(fx) // it noticed first
		} else if old := m.byStream[c.Old]; old == nil {
			m.closedReset(p, c, fx)
		} else if old.site != p.site || old == p {
			return Inconsistent
		} else if c.Doubtful {
			m.disown(now, old, fx)
		} else {
			old.linger = time.Time{}
			m.endPeer(now, old, c.Mark, ReasonReset, fx)
		}
	}
	if !p.counts && p.open() && m.caughtUp(now, p) {
		p.counts = true
	}
	return Accepted
}

// exists records that p's stream reaches to mark, by the word of its sender or
// of its row.
func (m *Machine) exists(now time.Time, p *peer, mark site.Mark, fx *Effects) {
	if p.state == peerJoining {
		p.report = later(p.report, mark)
		return
	}
	if p.window.exists(now, mark) {
		m.planRepair(now, p)
	}
}

// nak hears p ask for frames again.
func (m *Machine) nak(now time.Time, p *peer, nak wire.NAK, number uint64, fx *Effects) {
	if r := m.send.of(nak.Stream); r != nil {
		m.heardNAKOfOurs(now, p, r, nak, fx)
		return
	}
	k := m.past[nak.Stream]
	if q := m.byStream[nak.Stream]; q != nil {
		m.heardNAK(now, q, nak)
		k = &q.kept
	}
	if nak.Anyone && k != nil {
		m.heardNAKOfAnother(now, p, k, nak, number, fx)
	}
}

// acked takes what p acknowledges: of this stream, that p has it; of others, that
// it exists.
func (m *Machine) acked(now time.Time, p *peer, a wire.ACK, fx *Effects) {
	for _, e := range a.Entries {
		if q := m.byStream[e.Stream]; q != nil && q != p {
			m.exists(now, q, e.Mark, fx)
			continue
		}
		m.wordOfOurs(e.Stream, e.Mark, fx)
		if e.Stream != m.cfg.Stream || e.Mark.Frame < p.acked.Frame || e.Mark.Frame > m.send.taken.Frame {
			continue
		}
		p.credit = credit{int(e.Credit), now}
		if e.Mark.Frame == p.acked.Frame {
			continue
		}
		p.acked, p.ackedEnd, p.ackedAt = e.Mark, m.send.endOf(e.Mark.Frame), now
		fx.Space = true
		m.trimRing(now)
	}
	m.reopen(now, fx)
}

// endOf returns how many bytes the stream has up to and including a frame, as
// exactly as the ring still tells.
func (s *sender) endOf(number uint64) uint64 {
	if len(s.ring.frames) == 0 {
		return s.total
	}
	if f := s.ring.find(number); f != nil {
		return f.end
	}
	low := s.ring.frames[0]
	return low.end - uint64(len(low.Bytes))
}

// heartbeatSoon has the next heartbeats said in quick succession: what was just
// sent may be the last for a while, and its loss shows in nothing else.
func (m *Machine) heartbeatSoon(now time.Time) {
	if !m.started || m.finished {
		return
	}
	m.heartbeatIn = heartbeatFirst
	if m.dear() {
		m.heartbeatIn = heartbeatLast
	}
	m.heartbeatAt = now.Add(m.heartbeatIn)
}

// dear reports whether every message costs money. Then little is said after an event that few others follow.
func (m *Machine) dear() bool { return m.cfg.IdleHeartbeat != 0 }

// idleHeartbeat returns how often an idle instance speaks; 0 is never.
func (m *Machine) idleHeartbeat() time.Duration {
	switch {
	case m.cfg.IdleHeartbeat > 0:
		return m.cfg.IdleHeartbeat
	case m.cfg.IdleHeartbeat < 0:
		return 0
	}
	return max(heartbeatIdle, time.Duration(len(m.peers))*10*time.Millisecond)
}

// SetWays says that other transports are in use from now on.
func (m *Machine) SetWays(now time.Time, w Ways) {
	m.cfg.Ways = w
	m.heartbeatSoon(now) // and then as often as they want it
}

// Speak has a heartbeat said soon, so that others hear on which ways this instance is heard.
func (m *Machine) Speak(now time.Time) {
	if m.heartbeatSoon(now); !m.heartbeatAt.IsZero() {
		m.heartbeatAt = now.Add(heartbeatFirst)
	}
}

func (m *Machine) sayHeartbeat(now time.Time, fx *Effects) {
	s := &m.send
	beat := wire.Heartbeat{Mark: s.handed}
	if len(s.ring.frames) > 0 {
		beat.Low = s.ring.frames[0].Number
	}
	m.say(now, site.StreamID{}, beat, fx)
	fx.Control[len(fx.Control)-1].Idle = m.heartbeatIn >= heartbeatIdle
	m.sayResets(now, fx)
	m.trimKept(now)
	m.planDigests(now, fx)
	switch idle := m.idleHeartbeat(); {
	case m.heartbeatIn < heartbeatIdle:
		m.heartbeatAt = now.Add(m.heartbeatIn)
		m.heartbeatIn *= 2
	case idle == 0:
		m.heartbeatAt = time.Time{}
	default:
		m.heartbeatAt = now.Add(idle)
	}
}

// ackSoon has what arrived acknowledged in a moment.
func (m *Machine) ackSoon(now time.Time) { m.ackIn(now, ackShare) }

// ackLater is ackSoon for what more may follow. While it does, who sends it needs
// no word from us but that a part of its ring can go.
func (m *Machine) ackLater(now time.Time) { m.ackIn(now, ackFlow) }

// ackIn plans an ACK in such a time that all members together say one in each share: everybody may
// have to hear them. It is up to a quarter sooner or later, since all hear the same at
// once. A few need none of this.
func (m *Machine) ackIn(now time.Time, share time.Duration) {
	every := ackEvery
	if m.dear() && m.ackFrames < ackDearFrames && m.ackBytes < ackDearBytes {
		every = ackDear
	}
	if !m.many() {
		m.ackAt = earlier(m.ackAt, now.Add(every))
		return
	}
	d := max(every, time.Duration(len(m.peers))*share)
	if soonest := now.Add(d * 3 / 4); m.ackAt.IsZero() || m.ackAt.After(soonest) {
		m.ackAt = earlier(m.ackAt, soonest.Add(time.Duration(m.rand.Int64N(int64(d/2)))))
	}
}

// ackHeartbeat has p's data acknowledged after its heartbeat, when no more follows
// that would be acknowledged too. What was acknowledged before is so again while p keeps a frame that
// is covered by it: p may not have heard it.
func (m *Machine) ackHeartbeat(now time.Time, p *peer, b wire.Heartbeat) {
	idle := now.Sub(p.dataAt)
	if idle >= ackAgain || m.many() && idle < ackPause {
		return
	}
	if b.Low > 0 && b.Low <= p.ackedTo.Frame {
		p.ackDue = true
	}
	if p.owesACK() {
		m.ackSoon(now)
	}
}

// owesACK reports whether something of p is to be acknowledged.
func (p *peer) owesACK() bool {
	return p.state != peerJoining && (p.ackDue || p.loan.used > 0 || p.low() != p.ackedTo)
}

// sayACKs says what is due. Where everybody hears the ACKs of many, one frame is said at a
// time, or what each hears when all send would grow with the square of their number.
func (m *Machine) sayACKs(now time.Time, fx *Effects) {
	if !m.many() || m.apart() {
		m.sayACK(now, len(m.peers), fx)
		return
	}
	if m.sayACK(now, ackShort, fx); slices.ContainsFunc(m.peers, (*peer).owesACK) {
		m.ackSoon(now)
	}
}

// sayACK acknowledges most streams at most, beginning after the one that was the last before.
func (m *Machine) sayACK(now time.Time, most int, fx *Effects) {
	m.ackAt, m.ackBytes, m.ackFrames = time.Time{}, 0, 0
	from, share := 0, m.share(now)
	if most < len(m.peers) {
		from, _ = slices.BinarySearchFunc(m.peers, m.ackedLast, func(p *peer, s site.StreamID) int {
			return cmp.Or(compareStreams(p, s), -1) // the one after it
		})
	}
	var entries []wire.ACKEntry
	for i := range m.peers {
		p := m.peers[(from+i)%len(m.peers)]
		if low := p.low(); p.owesACK() && len(entries) < most {
			p.ackedTo, p.ackDue = low, false
			entries = append(entries, wire.ACKEntry{Stream: p.stream, Mark: low, Credit: m.creditOf(now, p, share)})
			m.ackedLast = p.stream
		}
	}
	if len(entries) == 1 || m.apart() {
		for _, e := range entries {
			m.say(now, e.Stream, wire.ACK{Entries: []wire.ACKEntry{e}}, fx)
		}
		return
	}
	for part := range slices.Chunk(entries, m.listRoom(wire.MaxACKEntryLen, 0)) {
		m.say(now, site.StreamID{}, wire.ACK{Entries: part}, fx)
	}
}

// apart reports whether what is for several is better said to each of them than
// once to all: so many others are here who would hear it too.
func (m *Machine) apart() bool { return m.cfg.ReachesOne && m.many() }

// Tick does what is due at now. Call it when [Machine.Next] has come.
func (m *Machine) Tick(now time.Time, fx *Effects) {
	m.notice(now)
	m.sayHello(now, fx)
	m.settleJoin(now, fx)
	if at := m.join.stateAt; !at.IsZero() && !now.Before(at) {
		m.sayState(now, fx)
	}
	if !m.heartbeatAt.IsZero() && !now.Before(m.heartbeatAt) {
		m.sayHeartbeat(now, fx)
	}
	m.trimKeptAtTimes(now)
	m.expire(now, fx)
	for _, p := range m.gappy {
		m.sayNAKs(now, p, fx)
		m.doubt(now, p, fx)
	}
	m.unwatch()
	m.resendSome(now, fx)
	m.sayDigest(now, fx)
	if !m.ackAt.IsZero() && !now.Before(m.ackAt) && !m.crowded() {
		m.sayACKs(now, fx)
	}
	if at := m.held.retryAt; !at.IsZero() && !now.Before(at) {
		m.held.retryAt = time.Time{}
		m.ask(now, fx)
	}
	if !m.send.stalledAt.IsZero() && !m.paced(now) {
		fx.Space = true
	}
	m.reopen(now, fx)
}

// Next returns when Tick next has something to do; the zero Time means not
// before another input.
func (m *Machine) Next() time.Time {
	at := earlier(m.joinNext(), m.join.stateAt)
	at = earlier(at, m.heartbeatAt)
	if !m.crowded() {
		at = earlier(at, m.ackAt)
	}
	at = earlier(at, m.held.retryAt)
	at = earlier(at, m.again.nextAt)
	at = earlier(at, m.digestAt)
	at = earlier(at, m.trimAt)
	if !m.send.stalledAt.IsZero() {
		at = earlier(at, m.stallNext())
	}
	at = earlier(at, m.send.shutEnd)
	for _, p := range m.gappy {
		if len(p.gaps) > 0 {
			at = earlier(at, p.gaps[0].since.Add(m.cfg.MissedAfter))
		}
		at = earlier(at, p.askAt)
		at = earlier(at, p.doubtAt)
	}
	return at
}

// earlier returns the earlier of two times, of which the zero Time means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Bye says goodbye with the final mark. The machine is silent from then on.
func (m *Machine) Bye(now time.Time, fx *Effects) {
	if m.finished {
		return
	}
	m.finished = true
	m.heartbeatAt, m.join.stateAt, m.digestAt = time.Time{}, time.Time{}, time.Time{}
	if m.started {
		m.sayResets(now, fx)
		m.say(now, site.StreamID{}, wire.Bye{Mark: m.send.taken}, fx)
	}
}

// Drained reports whether everything raised was handed on, and every live
// receiver has acknowledged it.
func (m *Machine) Drained(now time.Time) bool {
	s := &m.send
	if m.Pending() || s.handed != s.taken {
		return false
	}
	silence := 3 * max(m.idleHeartbeat(), heartbeatIdle)
	for _, p := range m.peers {
		if p.open() && p.counts && now.Sub(p.heardAt) < silence && p.acked.Frame < s.taken.Frame {
			return false
		}
	}
	return true
}
