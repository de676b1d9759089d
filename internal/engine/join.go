package engine

import (
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

	asked   [][16]byte             // nonces to answer in the next STATE
	askedBy site.StreamID          // who asked, if it was one alone
	listed  map[site.StreamID]bool // of which streams they want to know
	stateAt time.Time              // when to answer; zero: nobody asked
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
	for j.said < len(helloAt) && !now.Before(j.startedAt.Add(helloAt[j.said])) {
		j.said++
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
	for part := range slices.Chunk(silent, m.listRoom(len(site.StreamID{}), len(j.nonce))) {
		m.say(now, to, wire.Hello{Nonce: j.nonce, Streams: part}, fx)
	}
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
	if slices.Contains(j.asked, h.Nonce) || len(j.asked) == m.listRoom(len(h.Nonce), wire.MaxMarkLen)/2 {
		return // the rest will ask again
	}
	j.asked = append(j.asked, h.Nonce)
	if j.listed == nil {
		j.listed = map[site.StreamID]bool{}
	}
	for _, s := range h.Streams {
		j.listed[s] = true
	}
	if j.stateAt.IsZero() {
		spread := min(time.Duration(len(m.peers)+1)*time.Millisecond/4, stateMerge)
		j.stateAt = now.Add(time.Duration(m.rand.Int64N(int64(spread) + 1)))
		j.askedBy = p.stream
	} else if j.askedBy != p.stream {
		j.askedBy = site.StreamID{}
	}
}

// sayState answers the HELLOs heard. The mark is that of what was taken for
// sending, not of what was handed on: a frame on its way into a provider may
// miss the newcomer, and everything that it must not miss comes after this mark.
func (m *Machine) sayState(now time.Time, fx *Effects) {
	j := &m.join
	var others []wire.StreamMark
	for _, p := range m.peers {
		if p.state != peerJoining && j.listed[p.stream] {
			others = append(others, wire.StreamMark{Stream: p.stream, Mark: p.high})
		}
	}
	state := wire.State{Mark: m.send.taken, Nonces: j.asked}
	for {
		n := min(len(others), m.listRoom(wire.MaxStreamMarkLen, wire.MaxMarkLen+len(j.nonce)*len(j.asked)))
		state.Others, others = others[:n], others[n:]
		m.say(now, j.askedBy, state, fx)
		if len(others) == 0 {
			break
		}
	}
	j.asked, j.listed, j.stateAt = nil, nil, time.Time{}
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
