package engine

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// What the others do for a sender that has fallen silent: they tell each other
// how far it had come, and repair its frames from what they kept.

// silent reports whether p has not been heard for so long that somebody else
// must speak for it.
func (m *Machine) silent(now time.Time, p *peer) bool {
	idle := m.idleHeartbeat()
	if idle == 0 {
		return false // nobody speaks while idle
	}
	since := p.heardAt
	if since.IsZero() {
		since = p.addedAt
	}
	return now.Sub(since) >= 3*max(idle, heartbeatIdle)
}

// heard notes a verified frame of p itself. Repairs are no sign of life, because
// others may have sent them, and neither are control frames that are old.
func (p *peer) heard(now time.Time, h *wire.Header) {
	switch {
	case h.Type.Control():
		if h.Number <= p.control.high {
			return
		}
	case p.state != peerJoining && h.Number <= p.high.Frame:
		return
	}
	p.heardAt, p.digests, p.digestAt = now, 0, time.Time{}
	if !p.linger.IsZero() { // its row is gone, and it lives
		p.linger = now.Add(resetFor)
	}
}

// A keeping holds sealed frames of another's stream, as they were received,
// ascending by number.
type keeping struct {
	frames []kept
	bytes  int
}

type kept struct {
	number uint64
	frame  []byte
	at     time.Time
	again  *resent // nil: nobody asked
}

// keep remembers a sealed frame of p for those who miss it when p cannot answer.
// The room is shared equally by all streams.
func (m *Machine) keep(now time.Time, p *peer, number uint64, frame []byte) {
	if m.cfg.CacheBytes == 0 {
		return
	}
	p.kept.add(kept{number: number, frame: frame, at: now})
	p.kept.trim(now, m.cfg.CacheBytes/(len(m.peers)+len(m.past)))
	if m.trimAt.IsZero() && m.idleHeartbeat() == 0 { // else our heartbeats see to it
		m.trimAt = now.Add(keptFor)
	}
}

func (k *keeping) add(f kept) {
	i := len(k.frames)
	if i > 0 && k.frames[i-1].number >= f.number {
		var found bool
		if i, found = k.find(f.number); found {
			return
		}
	}
	k.frames = slices.Insert(k.frames, i, f)
	k.bytes += len(f.frame)
}

func (k *keeping) find(number uint64) (int, bool) {
	return slices.BinarySearchFunc(k.frames, number, func(f kept, n uint64) int { return cmp.Compare(f.number, n) })
}

func (k *keeping) trim(now time.Time, most int) {
	n := 0
	for n < len(k.frames) && (k.bytes > most || now.Sub(k.frames[n].at) > keptFor) {
		k.bytes -= len(k.frames[n].frame)
		n++
	}
	if n > 0 {
		clear(k.frames[:n])
		k.frames = k.frames[n:]
	}
}

// trimKept drops kept frames that are too old, or too many now that there are
// more streams.
func (m *Machine) trimKept(now time.Time) {
	share := m.cfg.CacheBytes / max(1, len(m.peers)+len(m.past))
	for _, p := range m.peers {
		p.kept.trim(now, share)
	}
	for s, k := range m.past {
		if k.trim(now, share); len(k.frames) == 0 {
			delete(m.past, s)
		}
	}
}

// trimKeptAtTimes does it where no heartbeat does, as long as there is something kept.
func (m *Machine) trimKeptAtTimes(now time.Time) {
	if m.trimAt.IsZero() || now.Before(m.trimAt) {
		return
	}
	m.trimAt = time.Time{}
	m.trimKept(now)
	if len(m.past) > 0 || slices.ContainsFunc(m.peers, func(p *peer) bool { return len(p.kept.frames) > 0 }) {
		m.trimAt = now.Add(keptFor)
	}
}

// heardNAKOfAnother answers asker, which misses frames that we kept of another's
// stream, if it is our turn.
func (m *Machine) heardNAKOfAnother(now time.Time, asker *peer, k *keeping, nak wire.NAK, number uint64, fx *Effects) {
	if !m.turn(asker, nak.Stream, number) {
		return
	}
	for _, r := range nak.Ranges {
		i, _ := k.find(r.First)
		for ; i < len(k.frames) && k.frames[i].number <= r.Last; i++ {
			f := &k.frames[i]
			if f.again == nil {
				f.again = new(resent)
			}
			if !m.resend(now, f.again, f.frame, asker.stream) {
				return
			}
		}
	}
	m.resendSome(now, fx)
}

// turn reports whether this instance is among the few that answer a NAK about
// another's stream. Who they are changes with every NAK, so that whoever has the frames is
// asked in the end, and nobody needs to wait and listen whether another
// answers.
func (m *Machine) turn(asker *peer, about site.StreamID, number uint64) bool {
	rank, count := 0, 1 // of this instance, among those who can answer
	for _, q := range m.peers {
		if q == asker || q.stream == about || !q.open() {
			continue
		}
		count++
		if compareStreams(q, m.cfg.Stream) < 0 {
			rank++
		}
	}
	start := int(number % uint64(count))
	return (rank-start+count)%count < answerers+count/16
}

// planDigests has what we know of silent senders told: whoever heard their last
// frames makes the others ask for them, and whoever did not is told by those who
// did.
func (m *Machine) planDigests(now time.Time, fx *Effects) {
	for _, p := range m.peers {
		if p.state == peerJoining || !p.digestAt.IsZero() || !m.silent(now, p) {
			continue
		}
		m.revealParts(now, p, fx)
		m.planDigest(now, &p.digestAt)
	}
}

// revealParts takes one fragment of an event for the word that all exist: they were numbered
// at once.
func (m *Machine) revealParts(now time.Time, p *peer, fx *Effects) {
	for _, part := range p.parts {
		m.exists(now, p, site.Mark{Frame: part.last, Next: part.ordinal + 1}, fx)
	}
}

func (m *Machine) planDigest(now time.Time, at *time.Time) {
	*at = now.Add(time.Duration(m.rand.Int64N(int64(digestSpread))))
	m.digestAt = earlier(m.digestAt, *at)
}

// sayDigest tells what is known of the streams whose time has come.
func (m *Machine) sayDigest(now time.Time, fx *Effects) {
	if m.digestAt.IsZero() || now.Before(m.digestAt) {
		return
	}
	m.digestAt = time.Time{}
	var entries []wire.StreamMark
	idle := true // until there is one that was not said often enough
	for _, p := range m.peers {
		if !p.digestAt.IsZero() && !now.Before(p.digestAt) {
			m.nextDigest(now, p)
			idle = idle && p.saidTimes > digestTimes
			entries = append(entries, wire.StreamMark{Stream: p.stream, Mark: p.high})
		}
		m.digestAt = earlier(m.digestAt, p.digestAt)
	}
	if !m.endingsAt.IsZero() && !now.Before(m.endingsAt) {
		for s := range m.endings {
			entries = append(entries, wire.StreamMark{Stream: s, Mark: m.closed[s].mark})
		}
		slices.SortFunc(entries, func(a, b wire.StreamMark) int { return bytes.Compare(a.Stream[:], b.Stream[:]) })
		m.endings, m.endingsAt = nil, time.Time{}
		idle = false
	}
	m.digestAt = earlier(m.digestAt, m.endingsAt)
	for part := range slices.Chunk(entries, m.listRoom(wire.MaxStreamMarkLen, 0)) {
		m.say(now, site.StreamID{}, wire.Digest{Entries: part}, fx)
		fx.Control[len(fx.Control)-1].Idle = idle
	}
}

// nextDigest counts what was said of p, by us or by another that knows as much.
// It is said again as long as p is silent: somebody may be cut off.
func (m *Machine) nextDigest(now time.Time, p *peer) {
	p.digests++
	p.toldAt, p.digestAt = now, time.Time{}
	if p.said != p.high {
		p.said, p.saidTimes = p.high, 0
	}
	p.saidTimes++
	if !m.silent(now, p) {
		return
	}
	again := digestAgain
	if p.digests >= digestTimes {
		again = digestLater
	}
	p.digestAt = now.Add(again + time.Duration(m.rand.Int64N(int64(digestSpread))))
}

// heardDigest takes what another knows of streams that are silent. Who knows as
// much need not say so too, and who knows more tells it.
func (m *Machine) heardDigest(now time.Time, d wire.Digest, fx *Effects) {
	for _, e := range d.Entries {
		m.wordOfOurs(e.Stream, e.Mark, fx)
		p := m.byStream[e.Stream]
		if p == nil {
			m.heardDigestOfClosed(now, e)
			continue
		}
		// All hear the same silence, and each looks for it with its own heartbeats.
		// Who is told of it before need not find it.
		told := p.state != peerJoining && p.digestAt.IsZero() && m.silent(now, p)
		if told {
			m.revealParts(now, p, fx)
		}
		switch {
		case p.state == peerJoining:
		case e.Mark.Frame < p.high.Frame:
			if now.Sub(p.toldAt) >= digestAgain && (p.digestAt.IsZero() || p.digestAt.After(now.Add(digestSpread))) {
				m.planDigest(now, &p.digestAt)
			}
		case told || !p.digestAt.IsZero():
			m.nextDigest(now, p)
		}
		m.exists(now, p, e.Mark, fx)
	}
}

// heardDigestOfClosed has the end of a stream told to somebody who does not know
// yet that it has ended, and further on.
func (m *Machine) heardDigestOfClosed(now time.Time, e wire.StreamMark) {
	end, closed := m.closed[e.Stream]
	switch {
	case !closed || !end.known():
	case e.Mark.Frame >= end.mark.Frame:
		delete(m.endings, e.Stream)
	case len(m.endings) < maxEndings:
		if m.endings == nil {
			m.endings = map[site.StreamID]bool{}
			m.planDigest(now, &m.endingsAt)
		}
		m.endings[e.Stream] = true
	}
}
