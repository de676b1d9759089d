package engine

import (
	"math"
	"time"
)

// Flow control has receivers pace the sender, so that what is on its way to each of them
// fits into what drops the rest: the buffer of a transport such as datagrams, which is
// [Config.Window], and the queues of its subscribers, which [Machine.SetRoom] tells. It is
// on where one of the two is set.
//
// A receiver lends each stream a credit: how much may be on its way to it beyond what it has
// acknowledged. It shares its buffer equally among the streams that it has just heard
// data of. The sender takes no frame that goes beyond the credit of a receiver that counts;
// an event in fragments that exceeds it goes when nothing else is on its way.
const (
	firstCredit = 128 << 10   // where none was told lately
	creditFor   = time.Second // how long a credit is good for, and a stream shares in the buffer
	ackPart     = 4           // what arrives is acknowledged after this part of the credit,
	ackMost     = 1 << 20     // or after so much where the credit is twice that
)

// FrameCharge is what a frame counts for against a credit and in [Config.Window] beside its own
// bytes: kernels charge a buffer for more than what is in it.
const FrameCharge = 1280

// A credit is what a receiver has told that it lends this instance.
type credit struct {
	bytes int       // charges included; 0: no limit
	at    time.Time // when it was told last; zero: never
}

// A loan is what this instance lends another's stream.
type loan struct {
	bytes int       // without what arrived beyond the mark
	at    time.Time // when it was told last; zero: never
	used  int       // bytes, charges included, that have arrived since the last ACK
	mean  int       // of what a frame counts for, lately
}

// SetWindow sets [Config.Window] anew.
func (m *Machine) SetWindow(bytes int) { m.cfg.Window = bytes }

// SetRoom tells how many bytes of frames, charges included, subscribers can take. Below
// the length of a frame nothing is acknowledged, for a credit alone stops nobody: when nothing is
// on its way something may always be sent. How long to keep that up is the caller's
// business. A room of 0 is none; without a call there is no limit.
func (m *Machine) SetRoom(now time.Time, bytes int, fx *Effects) {
	was := m.crowded()
	m.spare, m.limited = bytes, true
	if was && !m.crowded() {
		m.sayACK(now, len(m.peers), fx)
	}
}

// crowded reports whether subscribers have no room for another frame.
func (m *Machine) crowded() bool { return m.limited && m.spare < m.chargeMost() }

// window returns how much may be on its way to this instance; 0 is any amount.
func (m *Machine) window() int {
	switch {
	case !m.limited:
		return m.cfg.Window
	case m.cfg.Window == 0:
		return max(1, m.spare)
	}
	return max(1, min(m.cfg.Window, m.spare))
}

// Shut reports whether the credit of receivers keeps back what [Machine.Take] left.
// [Effects.Send] tells when that has changed.
func (m *Machine) Shut() bool { return !m.send.shutAt.IsZero() }

// least returns the credit of who has told none lately: who was silent may
// have lent the same bytes to others since.
func (m *Machine) least() int { return min(firstCredit, m.window()) }

// chargeMost is what a frame counts for at most.
func (m *Machine) chargeMost() int { return m.cfg.FrameBytes + FrameCharge }

// need returns how much room there must be before the ready frame i may be taken, and where the
// frames end that are taken with it. The fragments of an event are taken together: a mark
// between them would be no baseline, and a new stream could not go on with them.
func (m *Machine) need(i int) (charge, end int) {
	ready := m.send.ready
	for end = i; end < len(ready); end++ {
		charge += len(ready[end].Bytes) + FrameCharge
		if ready[end].Count > 0 {
			end++
			break
		}
	}
	return max(charge, m.chargeMost()), end
}

// roomFor returns how much more may be on its way to p. Whatever its credit, that much is
// enough for what comes next when nothing is.
func (m *Machine) roomFor(now time.Time, p *peer, need int) int {
	limit := p.credit.bytes
	switch {
	case p.credit.at.IsZero():
		limit = m.least()
	case limit == 0:
		return math.MaxInt
	case now.Sub(p.credit.at) >= creditFor:
		limit = min(limit, m.least())
	}
	frames := m.send.taken.Frame - min(p.acked.Frame, m.send.taken.Frame)
	if frames == 0 {
		return max(limit, need)
	}
	return limit - int(m.send.total-p.ackedEnd) - int(frames)*FrameCharge
}

// room returns how much may be taken now. A receiver that has kept it below what is needed for
// too long, or makes no progress, stops counting until it has caught up.
func (m *Machine) room(now time.Time, need int) int {
	room := math.MaxInt
	if m.window() == 0 {
		return room
	}
	for _, p := range m.peers {
		p.short = false
		if !p.counts {
			continue
		}
		r := m.roomFor(now, p, need)
		if r < need {
			if since := m.send.shutAt; !since.IsZero() && !now.Before(m.stallEnd(since, p)) {
				p.counts = false
				p.evicted++
				continue
			}
			p.short = true
		}
		room = min(room, r)
	}
	return room
}

// planShut notes when room will next change by itself, after it was looked at.
func (m *Machine) planShut() {
	s := &m.send
	s.shutEnd = time.Time{}
	if !m.Shut() {
		return
	}
	for _, p := range m.peers {
		if p.short {
			s.shutEnd = earlier(s.shutEnd, m.stallEnd(s.shutAt, p))
		}
	}
}

// allowed returns how many of the frames that are ready may be taken now, and whether
// the one being built may follow them.
func (m *Machine) allowed(now time.Time) (n int, last bool) {
	s := &m.send
	need, end := m.need(0)
	room := m.room(now, need)
	for n < len(s.ready) && room >= need {
		for ; n < end; n++ {
			room -= len(s.ready[n].Bytes) + FrameCharge
		}
		need, end = m.need(n)
	}
	last = n == len(s.ready) && room >= need
	switch {
	case last || n == len(s.ready) && s.build.Count() == 0:
		s.shutAt = time.Time{}
	case n > 0 || s.shutAt.IsZero():
		s.shutAt = now
	}
	m.planShut()
	return n, last
}

// reopen has what the window kept back taken, if there is room now.
func (m *Machine) reopen(now time.Time, fx *Effects) {
	if !m.Shut() {
		return
	}
	if need, _ := m.need(0); m.room(now, need) >= need {
		fx.Send = true
	}
	m.planShut()
}

// caughtUp reports whether p is near enough to the end of the stream to count.
func (m *Machine) caughtUp(now time.Time, p *peer) bool {
	return !m.behind(p) && (m.window() == 0 || m.roomFor(now, p, m.chargeMost()) >= m.chargeMost())
}

// lend counts a frame that arrived of p, and acknowledges what has arrived when that is a good part
// of what p may send: waiting for longer would make p wait.
func (m *Machine) lend(now time.Time, p *peer, bytes int, fx *Effects) {
	if m.window() == 0 {
		return
	}
	l := &p.loan
	charge := bytes + FrameCharge
	l.used += charge
	l.mean += (charge - l.mean) / 16
	if l.mean < FrameCharge { // the first one
		l.mean = charge
	}
	told := l.bytes
	if l.at.IsZero() || now.Sub(l.at) >= creditFor {
		told = m.least()
	}
	due := told / ackPart
	if told >= 2*ackMost {
		due = max(due, ackMost)
	}
	if l.used >= due && !m.crowded() {
		m.sayACK(now, len(m.peers), fx)
	}
}

// share returns what each stream is lent.
func (m *Machine) share(now time.Time) int {
	window := m.window()
	if window == 0 {
		return 0
	}
	active := 0
	for _, p := range m.peers {
		if !p.dataAt.IsZero() && now.Sub(p.dataAt) < creditFor {
			active++
		}
	}
	return max(1, window/max(1, active))
}

// creditOf returns the credit to tell p, of which bytes are lent. What arrived beyond a gap
// is in the buffer no more, though it cannot be acknowledged yet.
func (m *Machine) creditOf(now time.Time, p *peer, bytes int) uint64 {
	if bytes == 0 {
		return 0
	}
	p.loan.bytes, p.loan.at, p.loan.used = bytes, now, 0
	beyond := p.high.Frame - p.low().Frame
	for _, g := range p.gaps {
		beyond -= g.last - g.first + 1
	}
	return uint64(bytes) + beyond*uint64(p.loan.mean)
}
