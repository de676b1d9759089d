package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A joiner finds out where the streams of the snapshot stand (HELLO), and tells
// those that ask where this one stands (STATE).
type joiner struct {
	startedAt time.Time
	stream    site.StreamID // of then
	joined    time.Time     // when its row was made, by the database's clock
	settledAt time.Time     // last time that silence was judged
	inStep    bool
	nonce     [16]byte
	said      int // HELLOs said so far

	asked   []question // to answer
	listed  int        // streams that the questions list
	stateAt time.Time  // when to answer; zero: nobody asked
}

// A question is a HELLO that waits for its answer.
type question struct {
	by     site.StreamID
	nonce  [16]byte
	listed []site.StreamID // of which they want to know
}

// Start takes the snapshot of open rows, read after the own row was committed,
// and begins to ask those streams where they stand. In step when every one of
// them has a baseline; at once if there are none.
func (m *Machine) Start(now time.Time, snapshot []site.Member, fx *Effects) {
	m.started, m.join.stream = true, m.cfg.Stream
	m.join.startedAt = now
	binary.BigEndian.PutUint64(m.join.nonce[:8], m.rand.Uint64())
	binary.BigEndian.PutUint64(m.join.nonce[8:], m.rand.Uint64())
	for i := range snapshot {
		row := &snapshot[i]
		if row.Stream == m.cfg.Stream {
			m.join.joined = row.Joined
		}
		if row.Stream == m.cfg.Stream || row.State != site.MemberOpen || m.byStream[row.Stream] != nil {
			continue
		}
		m.addPeer(now, row, peerJoining)
	}
	m.heartbeatSoon(now)
	m.sayHello(now, fx)
	m.settleJoin(now, fx)
	if m.held.unknown(m.byStream) {
		m.ask(now, fx) // somebody registered after the snapshot and was heard before this call
	}
}

// InStep reports whether every stream of the snapshot has a baseline.
func (m *Machine) InStep() bool { return m.join.inStep }

// sayHello says HELLO if it is time to, to those that have not answered.
func (m *Machine) sayHello(now time.Time, fx *Effects) {
	j := &m.join
	if j.said == len(helloAt) || j.inStep && j.said > 0 || now.Before(j.startedAt.Add(helloAt[j.said])) {
		return
	}
	first := j.said == 0
	for j.said < len(helloAt) && (!now.Before(j.startedAt.Add(helloAt[j.said])) || m.many() && helloAt[j.said] < m.stateSpread()*9/8) {
		j.said++ // what was asked a moment ago is still being answered
	}
	var silent []site.StreamID
	for _, p := range m.peers {
		if p.state == peerJoining {
			silent = append(silent, p.stream)
		}
	}
	to := site.StreamID{}
	if len(silent) == 1 {
		to = silent[0]
	}
	room := m.listRoom(len(site.StreamID{}), len(j.nonce))
	if !m.many() {
		for part := range slices.Chunk(silent, room) {
			m.say(now, to, wire.Hello{Nonce: j.nonce, Streams: part}, fx)
		}
		return
	}
	if len(silent) > 0 && (first || len(silent) > room-witnesses) {
		// A list of all would take more to say than it saves, and each would tell of
		// all whom it names.
		m.say(now, site.StreamID{}, wire.Hello{Nonce: j.nonce}, fx)
		if first {
			return
		}
		silent = slices.DeleteFunc(silent, func(s site.StreamID) bool { return !m.byStream[s].heardAt.IsZero() })
	}
	// Those of whom nothing was heard may be dead. Somebody who lives is asked too: it
	// tells how far they had come.
	ask := m.witnesses()
	for part := range slices.Chunk(silent, room-witnesses) {
		m.say(now, site.StreamID{}, wire.Hello{Nonce: j.nonce, Streams: slices.Concat(part, ask)}, fx)
	}
}

// witnesses returns a few who have answered, at random.
func (m *Machine) witnesses() (some []site.StreamID) {
	from := m.rand.IntN(max(1, len(m.peers)))
	for i := range m.peers {
		if p := m.peers[(from+i)%len(m.peers)]; p.state == peerOpen && !p.heardAt.IsZero() && len(some) < witnesses {
			some = append(some, p.stream)
		}
	}
	return some
}

// settleJoin gives a baseline to the streams that have been silent for long
// enough, and comes into step when none is left without.
//
// Most silent streams are the rows of instances that were killed. Waiting the
// full time for each would keep a restarted instance out of step for seconds,
// so a stream of which nothing was heard, and of which somebody else told where
// it stands, is waited for only a moment.
func (m *Machine) settleJoin(now time.Time, fx *Effects) {
	j := &m.join
	if j.inStep || !m.started {
		return
	}
	j.settledAt = now
	waited := now.Sub(j.startedAt)
	joining := 0
	for _, p := range slices.Clone(m.peers) {
		if p.state != peerJoining {
			continue
		}
		silent := p.heardAt.IsZero()
		switch {
		case waited >= baselineWait,
			silent && p.lapsed && waited >= lapsedGrace,
			silent && p.reported && waited >= helloGrace:
			m.begin(now, p, p.report, true, fx)
		default:
			joining++
		}
	}
	if joining == 0 {
		j.inStep = true
		fx.InStep = true
	}
}

// joinNext returns when settleJoin or sayHello next has something to do.
func (m *Machine) joinNext() time.Time {
	j := &m.join
	if j.inStep || !m.started {
		return time.Time{}
	}
	var at time.Time
	for _, d := range [...]time.Duration{helloGrace, lapsedGrace, baselineWait} {
		if t := j.startedAt.Add(d); j.settledAt.Before(t) {
			at = earlier(at, t)
		}
	}
	if j.said < len(helloAt) {
		at = earlier(at, j.startedAt.Add(helloAt[j.said]))
	}
	return at
}

// begin sets p's baseline, once, and takes up the frames of it that were held.
// With guessed, base is not p's own word.
func (m *Machine) begin(now time.Time, p *peer, base site.Mark, guessed bool, fx *Effects) {
	p.window.begin(base)
	p.guessed = guessed
	p.state = peerOpen
	m.ackSoon(now)
	for _, f := range m.held.take(p.stream) {
		if f.header.Site != p.site { // sealed by another site, in a name that is not its own
			m.counts[Inconsistent]++
			continue
		}
		p.heard(now, &f.header)
		m.counts[m.accept(now, p, f.header, f.frame, f.body, fx)]++
	}
}

// hello answers another's HELLO, in a moment: answers merge, and spread so that
// a newcomer is not answered by everybody at once.
func (m *Machine) hello(now time.Time, p *peer, h wire.Hello) {
	if len(h.Streams) > 0 && !slices.Contains(h.Streams, m.cfg.Stream) || !m.started || m.finished {
		return
	}
	j := &m.join
	most := m.nonceRoom()
	if m.apart() {
		most = len(m.peers)
	}
	i := slices.IndexFunc(j.asked, func(q question) bool { return q.nonce == h.Nonce || m.apart() && q.by == p.stream })
	switch {
	case i >= 0: // another part of what it asks; one that asks something else meanwhile gets one answer all the same
		j.asked[i].nonce = h.Nonce
	case len(j.asked) >= most:
		return // the rest will ask again
	default:
		i = len(j.asked)
		j.asked = append(j.asked, question{by: p.stream, nonce: h.Nonce})
	}
	if j.listed+len(h.Streams) <= maxListed {
		j.asked[i].listed = append(j.asked[i].listed, h.Streams...)
		j.listed += len(h.Streams)
	}
	if j.stateAt.IsZero() {
		j.stateAt = now.Add(time.Duration(m.rand.Int64N(int64(m.stateSpread()) + 1)))
	}
}

// stateSpread returns the time over which members answer the same HELLO.
func (m *Machine) stateSpread() time.Duration {
	return min(time.Duration(len(m.peers)+1)*time.Millisecond/4, stateMerge)
}

// nonceRoom returns how many HELLOs are answered in one frame, with room for
// others if they are asked for.
func (m *Machine) nonceRoom() int {
	room := m.listRoom(len(question{}.nonce), wire.MaxMarkLen)
	if m.join.listed > 0 {
		return room / 2
	}
	return room
}

// sayState answers the HELLOs heard. The mark is that of what was taken for
// sending, not of what was handed on: a frame on its way into a provider may
// miss the newcomer, and everything that it must not miss comes after this mark.
//
// Where each can be reached alone and there are many, each gets an answer of its
// own: one for all who start together would come to all the others too, and would
// have to name them all.
func (m *Machine) sayState(now time.Time, fx *Effects) {
	j := &m.join
	n := min(len(j.asked), m.nonceRoom())
	if m.apart() {
		n = min(len(j.asked), stateBurst)
		for i := range n {
			m.answer(now, j.asked[i:i+1], fx)
		}
	} else {
		m.answer(now, j.asked[:n], fx)
	}
	if j.asked = slices.Delete(j.asked, 0, n); len(j.asked) > 0 {
		j.stateAt = now.Add(stateAgain)
		return
	}
	j.asked, j.listed, j.stateAt = nil, 0, time.Time{}
}

// answer says one STATE for some questions.
func (m *Machine) answer(now time.Time, asked []question, fx *Effects) {
	state, to := wire.State{Mark: m.send.taken}, asked[0].by
	var others []wire.StreamMark
	listed := map[site.StreamID]bool{}
	for _, q := range asked {
		state.Nonces = append(state.Nonces, q.nonce)
		if q.by != to {
			to = site.StreamID{}
		}
		for _, s := range q.listed {
			if p := m.byStream[s]; p != nil && p.state != peerJoining && !listed[s] {
				listed[s] = true
				others = append(others, wire.StreamMark{Stream: s, Mark: p.high})
			}
		}
	}
	slices.SortFunc(others, func(a, b wire.StreamMark) int { return bytes.Compare(a.Stream[:], b.Stream[:]) })
	for {
		n := min(len(others), m.listRoom(wire.MaxStreamMarkLen, wire.MaxMarkLen+len(m.join.nonce)*len(asked)))
		state.Others, others = others[:n], others[n:]
		m.say(now, to, state, fx)
		if len(others) == 0 {
			return
		}
	}
}

// state takes another's answer. Only an answer to our own nonce sets a
// baseline: any other may be a replay.
func (m *Machine) state(now time.Time, p *peer, s wire.State, fx *Effects) {
	if !m.join.inStep && slices.Contains(s.Nonces, m.join.nonce) {
		for _, k := range s.Others {
			if q := m.byStream[k.Stream]; q != nil && q.state == peerJoining {
				q.report, q.reported = later(q.report, k.Mark), true
			}
		}
		if p.state == peerJoining {
			m.begin(now, p, s.Mark, false, fx)
			m.settleJoin(now, fx)
		}
	}
	if p.state != peerJoining {
		m.exists(now, p, s.Mark, fx)
	}
	for _, k := range s.Others {
		m.wordOfOurs(k.Stream, k.Mark, fx)
		if q := m.byStream[k.Stream]; q != nil && q.state != peerJoining {
			m.exists(now, q, k.Mark, fx)
		}
	}
}
