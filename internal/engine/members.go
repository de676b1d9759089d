package engine

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A peer is another stream: a sender whose frames we follow, and a receiver that
// acknowledges ours.
type peer struct {
	site     site.ID
	stream   site.StreamID
	state    peerState
	lapsed   bool // its lease had run out when its row was last read
	newcomer bool // it registered after our snapshot

	// As a sender.
	window
	parts     []*partial          // ascending by ordinal
	orders    map[orderKey]uint64 // next order number expected of each Ordered event
	waiting   []waitingItem       // Ordered events behind a gap, ascending by frame
	waitLen   int                 // their payload bytes
	waitingOf map[orderKey]int    // how many wait of each event
	advanced  bool                // one was told of an event of which others wait
	kept      keeping             // its frames, for others
	askAt     time.Time           // next NAK; zero: nothing is missing
	doubtAt   time.Time           // next look for gaps to tell of
	rtt       time.Duration       // mean time from NAK to repair; 0: not known
	control   replayWindow        // of its control frames
	digests   int                 // said of it since it fell silent, by anybody
	digestAt  time.Time           // when to say the next
	toldAt    time.Time           // when it was said last
	said      site.Mark           // what it said then
	saidTimes int                 // how often that, by anybody
	addedAt   time.Time
	report    site.Mark // highest position that its row or another member reported, before the baseline
	reported  bool      // another member reported it
	heardAt   time.Time // last verified frame; zero: never
	dataAt    time.Time // last event frame
	ackedTo   site.Mark // what we acknowledged last
	ackDue    bool      // acknowledge again though nothing is new
	loan      loan      // of our buffer
	linger    time.Time // when a stream that another instance ended may be forgotten
	ended     Reason    // why gaps left at the end of the stream stay gaps; 0: as ever
	missed    uint64

	// As a receiver.
	counts   bool      // it paces Raise and Shutdown waits for it
	acked    site.Mark // what it acknowledged
	ackedEnd uint64    // bytes of our stream up to there
	ackedAt  time.Time // last time that it made progress
	evicted  uint64    // how often it stopped counting
	credit   credit    // what may be on its way to it
	short    bool      // that is less than a frame more
}

// peerState is where a peer is in its life.
type peerState uint8

const (
	// peerJoining is in our snapshot, and we do not know yet where it stands:
	// its frames are held.
	peerJoining peerState = iota + 1
	// peerOpen has a baseline and is followed.
	peerOpen
	// peerClosing has ended, at a known mark; gaps below it may still fill.
	peerClosing
)

// open reports whether the peer still sends and receives, as far as we know.
func (p *peer) open() bool { return p.state == peerJoining || p.state == peerOpen }

func compareStreams(p *peer, s site.StreamID) int { return bytes.Compare(p.stream[:], s[:]) }

func (m *Machine) addPeer(now time.Time, row *site.Member, state peerState) *peer {
	p := &peer{site: row.Site, stream: row.Stream, state: state, lapsed: row.Lapsed, report: row.Mark, ackedAt: now, addedAt: now}
	i, _ := slices.BinarySearchFunc(m.peers, row.Stream, compareStreams)
	m.peers = slices.Insert(m.peers, i, p)
	m.byStream[p.stream] = p
	return p
}

// removePeer forgets p, whose stream has ended. Events of which only some
// fragments came will not be whole any more.
func (m *Machine) removePeer(p *peer, fx *Effects) {
	for _, part := range p.parts {
		why := p.ended
		if why == 0 {
			why = ReasonPeerLost
		}
		m.kill(p, part, why, fx)
	}
	i, ok := slices.BinarySearchFunc(m.peers, p.stream, compareStreams)
	if !ok {
		return
	}
	m.peers = slices.Delete(m.peers, i, i+1)
	m.gappy = slices.DeleteFunc(m.gappy, func(q *peer) bool { return q == p })
	delete(m.byStream, p.stream)
	if kept := p.kept; len(kept.frames) > 0 { // somebody else may still miss them
		m.past[p.stream] = &kept
	}
	m.rememberClosed(p.site, p.stream, p.high)
}

// rememberClosed keeps the verdict on an ended stream quick. The member table
// has it for a day; here any bounded memory will do.
func (m *Machine) rememberClosed(of site.ID, s site.StreamID, end site.Mark) {
	if !m.isClosed(s) {
		m.closedList = append(m.closedList, s)
	}
	m.closed[s] = ending{of: of, mark: end}
	if len(m.closedList) > maxClosed {
		delete(m.closed, m.closedList[0])
		m.closedList = m.closedList[1:]
	}
}

func (m *Machine) isClosed(s site.StreamID) bool {
	_, closed := m.closed[s]
	return closed
}

// An ending is where a stream ended, and of which site it was.
type ending struct {
	of      site.ID
	mark    site.Mark
	doubted bool // that another process spoke in it was told
}

func (e ending) known() bool {
	return e.mark != unknownEnd && e.mark != unfollowed && e.mark != disowned
}

// What stands for the end of streams of which it is not known.
var (
	unknownEnd = site.Mark{Frame: wire.MaxNumber, Next: wire.MaxNumber} // and nothing more needs to be told
	unfollowed = site.Mark{Next: wire.MaxNumber}                        // its row was reaped before this instance began
	disowned   = site.Mark{Next: wire.MaxNumber - 1}                    // given up before it was known where it stood
)

// closedReset hears where a stream ended that is not followed here.
//
// If it was, it went on after its row was closed: somebody closed the row of an
// instance that lived. What it said in between was dropped here. If it never
// was, though its successor registered after we began, it registered after we
// began too, and its row has been lost since, with a database that failed over:
// whatever it said, nobody here was told.
func (m *Machine) closedReset(p *peer, r wire.Reset, fx *Effects) {
	end, closed := m.closed[r.Old]
	switch {
	case m.send.of(r.Old) != nil: // one of ours
	case closed && end.of != p.site:
	case closed && r.Doubtful && !end.doubted && end.known():
		end.doubted = true
		m.closed[r.Old] = end
		m.missUncounted(p.site, r.Old, fx)
		m.wentOn(p.site, r.Old, r.Mark, fx)
	case closed && end.mark == disowned:
		m.wentOn(p.site, r.Old, r.Mark, fx)
	case !closed || end.mark == unfollowed:
		m.rememberClosed(p.site, r.Old, unknownEnd)
		if (p.newcomer || p.guessed) && r.Mark.Next > 0 {
			m.missUncounted(p.site, r.Old, fx)
		}
	default:
		m.wentOn(p.site, r.Old, r.Mark, fx)
	}
}

// beyondEnd reports whether a frame is of a closed stream, and shows that it went
// on after it was closed here.
func (m *Machine) beyondEnd(h *wire.Header) bool {
	end := m.closed[h.Stream]
	return !h.Type.Control() && end.known() && end.of == h.Site && h.Number > end.mark.Frame
}

// wentOn hears that a stream which is closed here came to mark. What it said
// since was dropped, and is missed.
func (m *Machine) wentOn(s site.ID, stream site.StreamID, mark site.Mark, fx *Effects) {
	end := m.closed[stream]
	if end.mark == disowned && end.of == s && mark.Next > 0 {
		// Some of it may have been sent since this instance was in step.
		m.rememberClosed(s, stream, unknownEnd)
		m.missUncounted(s, stream, fx)
		return
	}
	if !end.known() || end.of != s || mark.Frame <= end.mark.Frame || mark.Next < end.mark.Next {
		return
	}
	m.miss(&peer{site: s, stream: stream}, end.mark.Next, mark.Next, ReasonReset, fx)
	end.mark = mark
	m.closed[stream] = end
}

// Members takes what a later read of the member table found changed since the
// snapshot, or since the read before, in any state. With asked, the read was
// begun after the last [Effects.AskMembers], so that a stream it does not show
// is in nobody's table.
//
// A stream that registered after our snapshot starts at the baseline 0: its own
// snapshot showed us, and whatever it sends is meant for us too, also if it has
// ended before we heard of it.
func (m *Machine) Members(now time.Time, changed []site.Member, asked bool, fx *Effects) {
	for i := range changed {
		row := &changed[i]
		m.wordOfOurs(row.Stream, row.Mark, fx)
		if row.Stream == m.cfg.Stream {
			if row.State != site.MemberOpen {
				fx.Gone = true
			}
			continue
		}
		if m.isClosed(row.Stream) {
			m.wentOn(row.Site, row.Stream, row.Mark, fx)
			continue
		}
		p := m.byStream[row.Stream]
		if p == nil {
			p = m.meet(now, row, fx)
		}
		if p == nil {
			continue
		}
		p.lapsed = row.Lapsed
		if row.State == site.MemberOpen {
			m.exists(now, p, row.Mark, fx)
		} else {
			if row.State == site.MemberReaped && p.linger.IsZero() {
				// Its instance may be alive and not know yet that its row is
				// gone. What it sends until then is told, and its RESET will
				// say where the stream really ended.
				p.linger = now.Add(resetFor)
			}
			m.endPeer(now, p, row.Mark, 0, fx)
		}
	}
	for i := len(m.peers) - 1; i >= 0; i-- { // backwards: maybeForget removes
		m.maybeForget(now, m.peers[i], fx)
	}
	if asked {
		m.judgeUnknown(now, fx)
	}
	m.settleJoin(now, fx)
}

// meet takes up the row of a stream that is not known, unless it ended before
// this instance began: whoever reads the table from its beginning, because a
// replica had answered before, meets the tombstones of a day.
func (m *Machine) meet(now time.Time, row *site.Member, fx *Effects) *peer {
	before := row.Joined.Before(m.join.joined)
	// Streams are numbered by the database, in the order in which they began to
	// join; that decides where its clock is too coarse.
	began := before || row.Joined.Equal(m.join.joined) && bytes.Compare(row.Stream[:], m.join.stream[:]) < 0
	if began && row.State != site.MemberOpen {
		end := row.Mark
		if row.State == site.MemberReaped {
			end = unfollowed // its instance may have lived on, and moved the mark since
		}
		m.rememberClosed(row.Site, row.Stream, end)
		return nil
	}
	p := m.addPeer(now, row, peerOpen)
	if before { // and not in the snapshot: a row of a restored backup
		m.begin(now, p, row.Mark, true, fx)
		return p
	}
	p.newcomer = true
	m.begin(now, p, site.Mark{}, false, fx)
	return p
}

// endPeer records that p's stream ended at mark. With why, what is missing of it
// is missed for that reason.
func (m *Machine) endPeer(now time.Time, p *peer, mark site.Mark, why Reason, fx *Effects) {
	if p.state == peerJoining {
		// Whatever it sent, it sent before we were in step.
		m.begin(now, p, later(p.report, mark), false, fx)
	}
	m.exists(now, p, mark, fx)
	p.state, p.counts = peerClosing, false
	if why != 0 {
		p.ended = why
	}
	m.trimRing(now)
	fx.Space = true
	m.reopen(now, fx)
	m.maybeForget(now, p, fx)
}

// maybeForget removes a peer that has ended and of which nothing is missing.
func (m *Machine) maybeForget(now time.Time, p *peer, fx *Effects) {
	if p.state == peerClosing && len(p.gaps) == 0 && !now.Before(p.linger) {
		m.removePeer(p, fx)
	}
}

func later(a, b site.Mark) site.Mark {
	if b.Frame > a.Frame {
		return b
	}
	return a
}

// PeerState is what the machine knows of another stream.
type PeerState struct {
	Site      site.ID
	Stream    site.StreamID
	Joining   bool // its position is not known yet
	Closing   bool // ended; gaps may still fill
	Base      site.Mark
	High      site.Mark // highest position known to exist
	Low       site.Mark // everything through here arrived or was given up
	Gaps      int
	Missed    uint64    // events given up
	HeardAt   time.Time // last verified frame; zero: never
	Acked     site.Mark // what it has of ours
	Counts    bool      // it paces Raise
	Evictions uint64    // how often it was too slow to count
}

// Peers returns the other streams, ascending by stream.
func (m *Machine) Peers() []PeerState {
	out := make([]PeerState, len(m.peers))
	for i, p := range m.peers {
		out[i] = PeerState{
			Site: p.site, Stream: p.stream, Joining: p.state == peerJoining, Closing: p.state == peerClosing,
			Base: p.base, High: p.high, Low: p.low(), Gaps: len(p.gaps), Missed: p.missed,
			HeardAt: p.heardAt, Acked: p.acked, Counts: p.counts, Evictions: p.evicted,
		}
	}
	return out
}

// String is one short line, for scenarios and failures.
func (p *peer) String() string {
	state := [...]string{peerJoining: "joining", peerOpen: "open", peerClosing: "closing"}[p.state]
	s := fmt.Sprintf("%v %s base %d/%d high %d/%d acked %d", p.stream, state,
		p.base.Frame, p.base.Next, p.high.Frame, p.high.Next, p.acked.Frame)
	for _, g := range p.gaps {
		s += fmt.Sprintf(" gap %d-%d(%d)", g.first, g.last, g.next-g.ord)
	}
	return s
}
