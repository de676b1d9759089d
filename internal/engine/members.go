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
	addedAt   time.Time
	report    site.Mark // highest position that its row or another member reported, before the baseline
	reported  bool      // another member reported it
	heardAt   time.Time // last verified frame; zero: never
	dataAt    time.Time // last event frame
	ackedTo   site.Mark // what we acknowledged last
	ackDue    bool      // acknowledge again though nothing is new
	linger    time.Time // when a stream that another instance ended may be forgotten
	ended     Reason    // why gaps left at the end of the stream stay gaps; 0: as ever
	missed    uint64

	// As a receiver.
	counts   bool      // it paces Raise and Shutdown waits for it
	acked    site.Mark // what it acknowledged
	ackedEnd uint64    // bytes of our stream up to there
	ackedAt  time.Time // last time that it made progress
	evicted  uint64    // how often it stopped counting
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

// removePeer forgets p, whose stream has ended.
func (m *Machine) removePeer(p *peer) {
	i, ok := slices.BinarySearchFunc(m.peers, p.stream, compareStreams)
	if !ok {
		return
	}
	m.peers = slices.Delete(m.peers, i, i+1)
	delete(m.byStream, p.stream)
	if len(p.kept.frames) > 0 { // somebody else may still miss them
		m.past[p.stream] = &p.kept
	}
	m.rememberClosed(p.stream, p.high)
}

// rememberClosed keeps the verdict on an ended stream quick. The member table
// has it for a day; here any bounded memory will do.
func (m *Machine) rememberClosed(s site.StreamID, end site.Mark) {
	const most = 4096
	if len(m.closed) >= most {
		clear(m.closed)
	}
	m.closed[s] = end
}

func (m *Machine) isClosed(s site.StreamID) bool {
	_, closed := m.closed[s]
	return closed
}

// What stands for the end of streams of which it is not known.
var (
	unknownEnd = site.Mark{Frame: wire.MaxNumber, Next: wire.MaxNumber} // and nothing more needs to be told
	unfollowed = site.Mark{Next: wire.MaxNumber}                        // given up before it was known where it stood
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
	case !closed || end == unfollowed:
		m.rememberClosed(r.Old, unknownEnd)
		if p.newcomer && r.Mark.Next > 0 {
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
	return !h.Type.Control() && end != unknownEnd && end != unfollowed && h.Number > end.Frame
}

// wentOn hears that a stream which is closed here came to mark. What it said
// since was dropped, and is missed.
func (m *Machine) wentOn(s site.ID, stream site.StreamID, mark site.Mark, fx *Effects) {
	end := m.closed[stream]
	if end == unknownEnd || end == unfollowed || mark.Frame <= end.Frame || mark.Next < end.Next {
		return
	}
	m.closed[stream] = mark
	m.miss(&peer{site: s, stream: stream}, end.Next, mark.Next, ReasonReset, fx)
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
			p = m.addPeer(now, row, peerOpen)
			p.newcomer = true
			m.begin(now, p, site.Mark{}, false, fx)
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
		m.maybeForget(now, m.peers[i])
	}
	if asked {
		m.judgeUnknown(now, fx)
	}
	m.settleJoin(now, fx)
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
	m.maybeForget(now, p)
}

// maybeForget removes a peer that has ended and of which nothing is missing.
func (m *Machine) maybeForget(now time.Time, p *peer) {
	if p.state == peerClosing && len(p.gaps) == 0 && !now.Before(p.linger) {
		m.removePeer(p)
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
