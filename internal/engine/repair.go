package engine

import (
	"math"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// An asking is how far the repair of one gap has come. It is kept when the gap
// is split. The zero asking has not been planned.
type asking struct {
	at        time.Time // when to ask next
	asked     time.Time // when it was asked for last; zero: never
	tries     uint8
	postponed uint8 // how often somebody else's NAK put it off
	doubted   bool  // subscribers were told that something is missing
}

// planRepair gives every new gap of p its time. The first frames that are
// missing are asked for a moment after the gap was noticed: they may have been
// overtaken, and when many miss the same, one NAK is enough.
func (m *Machine) planRepair(now time.Time, p *peer) {
	m.watch(p)
	for i := len(p.gaps) - 1; i >= 0; i-- {
		g := &p.gaps[i]
		if !g.at.IsZero() {
			break // the ones below were planned before
		}
		g.at = now.Add(m.cfg.RepairDelay + m.backoff(p.askTime()))
		p.askAt = earlier(p.askAt, g.at)
		p.doubtAt = earlier(p.doubtAt, g.since.Add(doubtAfter))
	}
}

// watch has Tick look after p, which has gaps. It looks after no others: with many
// members, a look at each for every frame would cost more than the frame.
func (m *Machine) watch(p *peer) {
	if i, found := slices.BinarySearchFunc(m.gappy, p.stream, compareStreams); !found {
		m.gappy = slices.Insert(m.gappy, i, p)
	}
}

// unwatch ends that for the peers that need no look any more.
func (m *Machine) unwatch() {
	m.gappy = slices.DeleteFunc(m.gappy, func(p *peer) bool { return len(p.gaps) == 0 && p.askAt.IsZero() && p.doubtAt.IsZero() })
}

// askTime returns the time over which the first NAKs for a loss are spread.
func (p *peer) askTime() time.Duration {
	return min(max(askFirst, 4*p.rtt), askMost)
}

// backoff returns a random time of at most t that is rarely short when the site
// has many members, so that few of those who miss the same ask for it at once
// (RFC 5401, section 4.3.2: truncated exponential).
func (m *Machine) backoff(t time.Duration) time.Duration {
	lambda := math.Log(float64(len(m.peers)+1)) + 1
	x := m.rand.Float64()*lambda + lambda/(math.Exp(lambda)-1)
	d := time.Duration(float64(t) / lambda * math.Log(x*(math.Exp(lambda)-1)/lambda))
	return min(max(d, 0), t)
}

// askAgain plans the next NAK for a gap that was asked for now.
func (m *Machine) askAgain(now time.Time, p *peer, g *gap) {
	t := min(p.askTime()<<min(g.tries, 8), askMost)
	g.asked = now
	g.tries = min(g.tries+1, math.MaxUint8-1)
	g.at = now.Add(t/2 + m.backoff(t/2))
}

// sayNAKs asks for what is due of p's gaps.
func (m *Machine) sayNAKs(now time.Time, p *peer, fx *Effects) {
	if p.askAt.IsZero() || now.Before(p.askAt) {
		return
	}
	p.askAt = time.Time{}
	room := min(wire.MaxRanges, m.listRoom(wire.MaxRangeLen, len(p.stream)+1))
	most := room * nakFrames
	anyone := m.silent(now, p) || p.state == peerClosing
	var ranges []wire.Range
	for i := range p.gaps {
		g := &p.gaps[i]
		if !now.Add(askSlack).Before(g.at) && len(ranges) < most {
			ranges = append(ranges, wire.Range{First: g.first, Last: g.last})
			anyone = anyone || g.tries >= askAnyone
			m.askAgain(now, p, g)
		}
		if g.at.After(now) {
			p.askAt = earlier(p.askAt, g.at)
		} else { // no room for it in these NAKs
			p.askAt = now.Add(askSlack)
		}
	}
	to := p.stream
	if anyone || m.together() {
		to = site.StreamID{}
	}
	for len(ranges) > 0 {
		n := min(room, len(ranges))
		m.asked++
		m.say(now, to, wire.NAK{Stream: p.stream, Anyone: anyone, Ranges: ranges[:n]}, fx)
		ranges = ranges[n:]
	}
}

// together reports whether NAKs and repairs go to everybody: so many are here
// that those who lose the same should not each ask for it.
func (m *Machine) together() bool { return m.cfg.SharedLoss && m.many() }

// many reports whether so many others are here that it matters what each of them says.
func (m *Machine) many() bool { return len(m.peers) > fewPeers }

// heardNAK puts off our own NAKs for frames that another instance has just
// asked for: the answer will come to us too.
func (m *Machine) heardNAK(now time.Time, p *peer, nak wire.NAK) {
	if !m.together() {
		return
	}
	for _, r := range nak.Ranges {
		for i := p.from(r.First); i < len(p.gaps) && p.gaps[i].last <= r.Last; i++ {
			g := &p.gaps[i]
			if g.first < r.First || g.postponed >= 2 || g.at.IsZero() {
				continue
			}
			g.postponed++
			g.at = now.Add(p.askTime()/2 + m.backoff(p.askTime()/2))
		}
	}
}

// repaired counts a frame that arrives for gap g, and measures how long repair
// takes if it was asked for once: of more it is not known which of them was
// answered.
func (m *Machine) repaired(now time.Time, p *peer, g *gap) {
	if g.tries > 0 {
		m.repairs++
	}
	if g.tries != 1 {
		return
	}
	took := now.Sub(g.asked)
	if p.rtt == 0 {
		p.rtt = took
	}
	p.rtt += (took - p.rtt) / 8
}

// RepairState is what was done about losses, and what is kept against them.
type RepairState struct {
	Asked, Repaired, Resent uint64
	RingFrames, RingBytes   int
	RingAge                 time.Duration // of the oldest frame; 0 without one
	KeptBytes               int           // of others' frames
	Window                  time.Duration // how long a frame can be repaired, at the pace of the last seconds
}

// Repair returns what was done about losses so far.
func (m *Machine) Repair(now time.Time) RepairState {
	r := &m.send.ring
	s := RepairState{Asked: m.asked, Repaired: m.repairs, Resent: m.resent, RingFrames: len(r.frames), RingBytes: r.bytes, Window: m.cfg.MissedAfter}
	if len(r.frames) > 0 {
		s.RingAge = now.Sub(r.frames[0].at)
	}
	if pace := m.pace(now); pace > 0 {
		s.Window = min(s.Window, time.Duration(float64(m.cfg.RingBytes)/pace*float64(time.Second)))
	}
	for _, p := range m.peers {
		s.KeptBytes += p.kept.bytes
	}
	for _, k := range m.past {
		s.KeptBytes += k.bytes
	}
	return s
}

// gone gives up what p cannot repair any more.
func (m *Machine) gone(now time.Time, p *peer, g wire.Gone, fx *Effects) Verdict {
	for i := p.from(g.Frames.First); i < len(p.gaps) && p.gaps[i].first <= g.Frames.Last; i = p.from(g.Frames.First) {
		lost, from := p.gaps[i], len(fx.Items)
		if lost.first < g.Frames.First {
			lost.first, lost.ord = g.Frames.First, g.FirstOrdinal
		}
		if lost.last > g.Frames.Last {
			lost.last, lost.next = g.Frames.Last, g.NextOrdinal
		}
		if whole := &p.gaps[i]; lost.ord < whole.ord || lost.next > whole.next || lost.ord > lost.next {
			return Inconsistent
		}
		if lost.first > p.gaps[i].first && lost.last < p.gaps[i].last && p.full() {
			return Full
		}
		p.cut(i, lost.first, lost.last, lost.ord, lost.next)
		p.lose(lost.first, lost.last)
		m.missRuns(p, m.killParts(p, lost, ReasonEvicted, fx), lost.next, g, fx)
		lost.blur(fx.Items[from:])
		m.release(p, fx)
	}
	p.prune()
	m.ackSoon(now)
	m.maybeForget(now, p, fx)
	return Accepted
}

// missRuns tells that the events ord to next-1 are lost, by their names as far
// as g gives them.
func (m *Machine) missRuns(p *peer, ord, next uint64, g wire.Gone, fx *Effects) {
	if !g.Complete {
		m.miss(p, ord, next, ReasonEvicted, fx)
		return
	}
	at := g.FirstOrdinal
	for _, e := range g.Events {
		from, to := max(at, ord), min(at+e.Count, next)
		at += e.Count
		if from >= to {
			continue
		}
		m.miss(p, from, to, ReasonEvicted, fx)
		if m.subscribes() {
			lost := fx.Items[len(fx.Items)-1].Missed
			lost.Event, lost.Known = e.ID, true
		}
	}
	m.miss(p, max(at, ord), next, ReasonEvicted, fx)
}

// doubt tells of gaps that have been open for so long that what they hide may
// matter to somebody before it is repaired or given up.
func (m *Machine) doubt(now time.Time, p *peer, fx *Effects) {
	if p.doubtAt.IsZero() || now.Before(p.doubtAt) {
		return
	}
	p.doubtAt = time.Time{}
	told := false
	for i := range p.gaps {
		g := &p.gaps[i]
		switch at := g.since.Add(doubtAfter); {
		case g.doubted:
		case now.Before(at):
			p.doubtAt = earlier(p.doubtAt, at)
		default:
			g.doubted = true
			told = told || g.ord < g.next
		}
	}
	if !told {
		return
	}
	if again := now.Add(doubtAfter); !p.doubtAt.IsZero() && p.doubtAt.Before(again) {
		p.doubtAt = again
	}
	if m.subscribes() {
		fx.InDoubt = append(fx.InDoubt, InDoubt{Site: p.site, Stream: p.stream})
	}
}
