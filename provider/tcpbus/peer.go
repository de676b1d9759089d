package tcpbus

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/carillon-go/carillon/site"
)

// Peer is what is known of another instance.
type Peer struct {
	Stream    site.StreamID
	Listed    bool   // its member row is known; false: it connected and proved itself
	Connected bool   // there is a connection with a proof
	Address   string // far end of the connection; empty when not connected
	Dialled   bool   // this end dialled the connection
	// Since is when the connection was made, or lost, or, when there has been none, when
	// the peer became known.
	Since        time.Time
	QueuedFrames int
	QueuedBytes  int    // 64 for each frame included
	Dropped      uint64 // frames that did not fit its queue
	Connections  uint64 // made so far
}

// Peers returns the other instances known, by stream.
func (p *Provider) Peers() []Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	peers := make([]Peer, 0, len(p.peers))
	for _, pe := range p.peers {
		q := Peer{Stream: pe.stream, Listed: pe.listed, Since: pe.since, Dropped: pe.queue.dropped(), Connections: pe.conns}
		q.QueuedFrames, q.QueuedBytes = pe.queue.size()
		if pe.cur != nil {
			q.Connected, q.Address, q.Dialled = true, pe.cur.address(), pe.cur.dialled
		}
		peers = append(peers, q)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return bytes.Compare(a.Stream[:], b.Stream[:]) })
	return peers
}

// Dropped returns how many frames were not sent to a peer, because its queue was
// full or it went away with frames in it. A frame counts once for each peer.
func (p *Provider) Dropped() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.dropped
	for _, pe := range p.peers {
		n += pe.queue.dropped()
	}
	return n
}

// A peer is another instance. Its queue outlives its connections. The fields are
// guarded by the Provider's mu.
type peer struct {
	stream site.StreamID
	queue  *queue
	listed bool // its member row is known
	gone   bool // its member row was known and went away
	// replaced says that it is gone and that another member has its address: the same
	// instance under a new stream, or the next one.
	replaced  bool
	addresses []string // in its member row
	target    *target  // dials it; nil unless listed, or with endpoints

	cur    *conn       // the connection that is written to; nil when there is none
	conns  uint64      // made so far
	lost   bool        // frames that it sent us may be lost since the last connection
	since  time.Time   // of cur, or of its loss
	warned time.Time   // when a full queue was logged last
	forget *time.Timer // removes the peer; nil unless it has neither row nor connection
}

func (p *Provider) addPeerLocked(stream site.StreamID) *peer {
	pe := &peer{stream: stream, queue: newQueue(p.cfg.QueueBytes), since: time.Now()}
	p.peers[stream] = pe
	return pe
}

// listLocked records that pe has a member row with these addresses. p.mu is held.
func (p *Provider) listLocked(pe *peer, addresses []string) {
	pe.listed, pe.gone, pe.replaced = true, false, false
	unchanged := slices.Equal(pe.addresses, addresses)
	pe.addresses = slices.Clone(addresses)
	p.gone.remove(pe.stream)
	if pe.forget != nil {
		pe.forget.Stop()
		pe.forget = nil
	}
	if len(p.cfg.Endpoints) > 0 {
		return // the endpoints are dialled instead
	}
	if t := pe.target; t != nil {
		if unchanged {
			return
		}
		t.cancel()
	}
	pe.target = p.startTargetLocked(pe.stream, pe.addresses)
}

// wantedLocked reports whether pe gets what is sent. A peer whose row went away may be an
// instance that was reaped, lives, and has not noticed; but not one that
// is known under another stream already, which would hear everything twice. The
// Provider's mu is held.
func (pe *peer) wantedLocked() bool {
	return !pe.gone || pe.cur != nil && !pe.replaced
}

// unlistLocked records that the member row of pe is gone. p.mu is held.
//
// It is not let in again. An instance that takes a new stream may learn of that a
// moment after we do, and connect once more under its old one.
func (p *Provider) unlistLocked(pe *peer) {
	pe.listed, pe.gone = false, true
	p.gone.add(pe.stream)
	if pe.target != nil {
		pe.target.cancel()
		pe.target = nil
	}
	if pe.cur != nil {
		// Let it be the first to end: it may be an instance that takes a new stream, and takes the end
		// of ours as word that everything under its old one was delivered.
		pe.cur.lingerLocked(p.lim.linger)
	} else if pe.queue.empty() {
		p.forgetLocked(pe)
	} else {
		p.forgetSoonLocked(pe)
	}
}

// forgetSoonLocked removes pe, which has neither row nor connection, unless that
// changes within the grace. p.mu is held.
func (p *Provider) forgetSoonLocked(pe *peer) {
	var timer *time.Timer
	timer = time.AfterFunc(p.lim.grace, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if pe.forget != timer || p.state == stateClosed {
			return // stopped too late
		}
		p.forgetLocked(pe)
	})
	pe.forget = timer
}

// forgetLocked removes pe, with what is queued for it. p.mu is held.
func (p *Provider) forgetLocked(pe *peer) {
	if pe.forget != nil {
		pe.forget.Stop()
		pe.forget = nil
	}
	frames, _ := pe.queue.size()
	p.dropped += pe.queue.dropped() + uint64(frames)
	delete(p.peers, pe.stream)
}

// maxGone bounds a streamSet. Who is pushed out of it is let in again, as a peer
// without a row, until it notices by itself.
const maxGone = 4096

// A streamSet remembers the streams that were added last. The zero streamSet is
// empty.
type streamSet struct {
	in    map[site.StreamID]bool
	order []site.StreamID // oldest first
}

func (s *streamSet) add(id site.StreamID) {
	if s.in[id] {
		return
	}
	if s.in == nil {
		s.in = make(map[site.StreamID]bool)
	}
	if len(s.order) == maxGone {
		delete(s.in, s.order[0])
		s.order = slices.Delete(s.order, 0, 1)
	}
	s.in[id] = true
	s.order = append(s.order, id)
}

func (s *streamSet) remove(id site.StreamID) {
	if s.in[id] {
		delete(s.in, id)
		s.order = slices.DeleteFunc(s.order, func(o site.StreamID) bool { return o == id })
	}
}

func (s *streamSet) contains(id site.StreamID) bool { return s.in[id] }

// hopefulLocked reports whether pe may be connected soon: nothing says
// that it is not there. p.mu is held.
func (pe *peer) hopefulLocked(endpoints []*target) bool {
	if pe.target != nil {
		return pe.target.failures < hopeless
	}
	return slices.ContainsFunc(endpoints, func(t *target) bool {
		return t.failures < hopeless && (t.leadsTo == site.StreamID{} || t.leadsTo == pe.stream)
	})
}

// turningLocked reports whether a connection is left that was made under an
// earlier stream of this instance. Until it has ended no other is made: to the far end this
// is another peer, which it would hear concurrently, and so out of order. p.mu is held.
func (p *Provider) turningLocked() bool {
	for _, pe := range p.peers {
		if pe.cur != nil && pe.cur.self != p.self {
			return true
		}
	}
	return false
}

// connectedLocked makes c the connection of its peer, after the handshake, and
// starts it. greeting is written before any frame. p.mu is held.
//
// An older connection is given up: the other end has none but c. What is left in
// it is read before anything of c is, so that the order stays; what was not
// written to it whole is written to c.
func (p *Provider) connectedLocked(c *conn, greeting []byte) {
	pe := c.peer
	if pe.forget != nil {
		pe.forget.Stop()
		pe.forget = nil
	}
	p.lastConn++
	c.number = p.lastConn
	c.reconnect = pe.lost
	if d := pe.cur; d != nil {
		c.before = d
		c.reconnect = true
		d.abandonLocked(p.lim.drain)
	}
	pe.lost = false
	pe.cur, pe.since = c, time.Now()
	pe.conns++
	if p.state != stateStarted {
		c.endLocked(modeFlush, p.lim.flush)
	}
	p.tasks.Go(func() { c.write(greeting) })
	p.tasks.Add(1) // of whichever goroutine reads last
	go c.read()
	p.logLocked(slog.LevelInfo, "connected", slog.Any(keyStream, pe.stream), slog.String(keyAddress, c.address()), slog.Bool(keyDialled, c.dialled))
}

// ended is called when both directions of c have ended.
func (p *Provider) ended(c *conn) {
	c.raw.Close()
	c.before = nil
	p.mu.Lock()
	defer p.unlock()
	if c.kill != nil {
		c.kill.Stop()
	}
	pe := c.peer
	if pe.cur != c {
		return // another has taken its place
	}
	pe.cur, pe.lost = nil, true
	lived := time.Since(pe.since)
	pe.since = time.Now()
	if c.self != p.self {
		p.pokeTargetsLocked()
	}
	stable := lived >= p.lim.stable
	if pe.target != nil {
		pe.target.connectionEndedLocked(stable)
	}
	for _, t := range p.targets {
		if t.leadsTo == pe.stream {
			t.connectionEndedLocked(stable)
		}
	}
	poke(p.settled)
	switch {
	case pe.listed || p.state != stateStarted:
	case pe.gone && pe.queue.empty():
		p.forgetLocked(pe)
	default:
		p.forgetSoonLocked(pe)
	}
	frames, _ := pe.queue.size()
	why := errors.Join(c.writeErr, c.readErr) // the first explains the second
	level := slog.LevelInfo
	if why != nil && p.state == stateStarted {
		level = slog.LevelWarn
	}
	p.logLocked(level, "connection ended", slog.Any(keyStream, pe.stream), slog.String(keyAddress, c.address()),
		slog.Int(keyQueued, frames), slog.Any(keyError, why))
}
