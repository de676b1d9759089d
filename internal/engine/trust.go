package engine

import (
	"bytes"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// Echo reports, before its tag is checked, whether a frame of the own stream is
// what this machine sent, as far as that is still known. If not, and its tag is
// right, give it to [Machine.Own].
func (m *Machine) Echo(h wire.Header, frame []byte) bool {
	s := &m.send
	switch {
	case h.Stream != m.cfg.Stream:
		return true // one it had before
	case h.Type.Control():
		return h.Number <= s.control
	case h.Number > s.taken.Frame:
		return false
	case h.Number > s.handed.Frame:
		return true // it is being sealed just now; the next one will tell
	}
	f := s.ring.find(h.Number)
	return f == nil || bytes.Equal(f.Bytes, frame)
}

// Own takes a frame of the own stream whose tag is right. One that is no echo
// shows that another process has the same memory: a virtual machine was copied
// while it ran, or a process was restored from a snapshot.
func (m *Machine) Own(h wire.Header, frame []byte, fx *Effects) {
	if !m.Echo(h, frame) {
		m.foundCopy(fx)
	}
}

// wordOfOurs hears from somewhere how far one of the streams came. If it is ours
// and that is further than this machine knows, then a process was put back to
// an older state of its memory: what it numbers now, others have heard already
// in other frames.
func (m *Machine) wordOfOurs(stream site.StreamID, mark site.Mark, fx *Effects) {
	if stream == m.cfg.Stream && mark.Frame > m.send.taken.Frame {
		m.foundCopy(fx)
	}
}

// foundCopy gives up the own stream, because another process speaks in it. What
// that one raised cannot be told from echoes, so it is missed.
func (m *Machine) foundCopy(fx *Effects) {
	if m.cloned {
		return
	}
	m.cloned, fx.Cloned = true, true
	m.missUncounted(m.cfg.Site, m.cfg.Stream, fx)
}

// missUncounted tells that events of a stream may be missed, nobody knows how
// many.
func (m *Machine) missUncounted(s site.ID, stream site.StreamID, fx *Effects) {
	if m.subscribes() {
		fx.Items = append(fx.Items, Item{Site: s, Stream: stream, Missed: &Missed{Site: s, Stream: stream, Reason: ReasonReset}})
	}
}

// Distrust ends every other stream that keep does not name, because somebody
// else may have known the key they were sealed with: what was heard of them may
// be forged, and what was theirs may have been taken for a repetition of it. What
// their instances raise from now on comes in new streams. Afterwards give this
// instance a new stream too, with [Machine.Renumber].
func (m *Machine) Distrust(now time.Time, keep func(site.StreamID) bool, fx *Effects) {
	for i := len(m.peers) - 1; i >= 0; i-- {
		if p := m.peers[i]; !keep(p.stream) {
			m.disown(now, p, fx)
		}
	}
	for s := range m.past {
		if !keep(s) {
			delete(m.past, s)
		}
	}
	m.held.frames = slices.DeleteFunc(m.held.frames, func(f heldFrame) bool {
		if keep(f.header.Stream) {
			return false
		}
		m.held.bytes -= len(f.body)
		return true
	})
	m.again.forget()
	m.settleJoin(now, fx)
}

// disown ends p at once and tells that events of it may be missed: those of its
// gaps, those that waited for them, and others that nobody can count.
func (m *Machine) disown(now time.Time, p *peer, fx *Effects) {
	if p.state != peerJoining {
		low := p.low()
		lost := Missed{Site: p.site, Stream: p.stream, Reason: ReasonReset}
		for _, g := range p.gaps {
			lost.Count += g.next - g.ord
		}
		lost.Count += uint64(len(p.waiting))
		if lost.Count > 0 {
			lost.First, lost.Last = low.Next, p.high.Next-1
		}
		p.missed += lost.Count
		if m.subscribes() {
			fx.Items = append(fx.Items, Item{Site: p.site, Stream: p.stream, Ordinal: low.Next, Missed: &lost})
		}
	}
	m.held.take(p.stream)
	p.kept, p.parts = keeping{}, nil
	m.removePeer(p, fx)
	end := m.closed[p.stream]
	end.doubted = true
	m.closed[p.stream] = end
	if p.state == peerJoining {
		m.rememberClosed(p.site, p.stream, disowned)
	}
	m.trimRing(now)
	fx.Space = true
}

// SayWitness asks or answers whether another instance shares the site database.
func (m *Machine) SayWitness(now time.Time, w wire.Witness, fx *Effects) {
	m.say(now, site.StreamID{}, w, fx)
}

// witness hears one of those.
func (m *Machine) witness(s site.ID, from site.StreamID, w wire.Witness, fx *Effects) {
	if w.To == m.cfg.Stream {
		fx.Witnesses = append(fx.Witnesses, Heard{Site: s, Stream: from, Witness: w})
	}
}

// strangersWitness is witness for a stream that the member table does not know,
// which is what witnesses are for.
func (m *Machine) strangersWitness(h wire.Header, body []byte, fx *Effects) Verdict {
	w, err := wire.ReadWitness(body)
	if err != nil {
		return Undecodable
	}
	m.witness(h.Site, h.Stream, w, fx)
	return Accepted
}
