package engine

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A Frame is a numbered frame of this instance. Its bytes are whole but for the
// seal, which the caller of Take writes in place, once; from then on nobody
// changes them.
type Frame struct {
	Number  uint64
	Ordinal uint64 // of its first event
	Count   uint32
	Bytes   []byte

	end     uint64            // bytes of this stream up to and including this frame
	runs    []wire.EventCount // its events, in runs of equal ones
	trailer int               // bytes of room for the seal
	at      time.Time         // when it was taken
	again   resent
}

// mark returns the position that f ends at.
func (f *Frame) mark() site.Mark {
	return site.Mark{Frame: f.Number, Next: f.Ordinal + uint64(f.Count)}
}

// A sender numbers what this instance raises and keeps it until every receiver
// has it, or until the ring is full.
//
// Invariant: handed <= taken.Frame <= number; the last frame of ring is
// taken.Frame.
type sender struct {
	ring // of the present stream

	build  wire.Builder
	runs   []wire.EventCount // of the events in build
	first  uint64            // ordinal of the first event in build
	next   uint64            // ordinal of the next event
	number uint64            // of the last frame closed
	ready  []*Frame
	orders map[wire.ID]uint64 // last order number of each Ordered event raised

	total  uint64 // bytes of all frames taken
	unsent int    // bytes closed or taken, and not handed

	control uint64 // number of the last control frame

	stalledAt time.Time // when a receiver began to pace Raise; zero: none does
	slow      bool      // one may pace it: some that counts was behind after the last Take
	shutAt    time.Time // since when the credit of receivers keeps back what waits; zero: it does not
	shutEnd   time.Time // when one of those stops counting, if nothing comes before

	olds []*oldStream // those that this one replaces, the last one last
}

// An oldStream is one that this instance had. Its end is told for a while, and its
// frames are still repaired.
type oldStream struct {
	ring
	until time.Time
	doubt bool // another process spoke in it
}

// of returns what is kept of one of our streams, or nil if it is none.
func (s *sender) of(stream site.StreamID) *ring {
	if stream == s.stream {
		return &s.ring
	}
	for _, o := range s.olds {
		if o.stream == stream {
			return &o.ring
		}
	}
	return nil
}

func (s *sender) reset(cfg *Config) {
	*s = sender{orders: map[wire.ID]uint64{}, ring: ring{stream: cfg.Stream}}
	s.buildNext(cfg)
}

// buildNext begins a frame. It leaves room for the longest trailer there is: a
// frame that waits may have to change its key.
func (s *sender) buildNext(cfg *Config) {
	s.build.Reset(cfg.FrameBytes-max(0, seal.MaxTrailer-cfg.TrailerBytes), cfg.TrailerBytes)
	s.runs = s.runs[:0]
}

// count adds an event of this ID to runs.
func count(runs []wire.EventCount, id wire.ID) []wire.EventCount {
	if n := len(runs); n > 0 && runs[n-1].ID == id {
		runs[n-1].Count++
		return runs
	}
	return append(runs, wire.EventCount{ID: id, Count: 1})
}

// Raise numbers ev and puts it into the frame being built; ev.Payload is copied.
// With ordered it also numbers it among the events of its ID. The ordinal
// returned is its place in the stream. On an error nothing has happened.
func (m *Machine) Raise(now time.Time, ev *wire.Event, ordered bool) (uint64, error) {
	s := &m.send
	if len(ev.Payload) > m.cfg.MaxEventBytes {
		return 0, ErrTooLarge
	}
	if m.unsentFull(ev) || m.paced(now) {
		return 0, ErrFull
	}
	e := *ev
	if ordered {
		e.Order = s.orders[e.ID] + 1
	}
	whole := s.build.Append(&e)
	if !whole {
		m.closeFrame(now)
		whole = s.build.Append(&e)
	}
	if whole {
		s.runs = count(s.runs, e.ID)
	} else {
		m.closeFragments(now, &e)
	}
	if ordered {
		s.orders[e.ID] = e.Order
	}
	s.next++
	if !whole {
		s.first = s.next
	}
	return s.next - 1, nil
}

// Add is Raise for an event that is not Ordered, if it fits into the frame being built and
// nothing holds it up: the usual case, which needs no time. False means that nothing
// has happened, and that Raise says what there is to say.
func (m *Machine) Add(ev *wire.Event) bool {
	s := &m.send
	if len(ev.Payload) > m.cfg.MaxEventBytes || s.slow || m.unsentFull(ev) || !s.build.Append(ev) {
		return false
	}
	s.runs = count(s.runs, ev.ID)
	s.next++
	return true
}

// unsentFull reports whether too much is unsent to raise ev.
func (m *Machine) unsentFull(ev *wire.Event) bool {
	waiting := m.send.unsent + m.send.waiting()
	return waiting > 0 && waiting+len(ev.Payload) > m.cfg.UnsentBytes
}

// waiting returns the bytes in the frame being built; 0 if it holds nothing.
func (s *sender) waiting() int {
	if s.build.Count() == 0 {
		return 0
	}
	return s.build.Len()
}

// Pending reports whether anything waits to be taken.
func (m *Machine) Pending() bool { return len(m.send.ready) > 0 || m.send.build.Count() > 0 }

// closeFrame ends the frame being built, if it holds anything.
func (m *Machine) closeFrame(now time.Time) {
	s := &m.send
	n := s.build.Count()
	if n == 0 {
		return
	}
	h := m.header(now, wire.TypeEvents)
	h.Number, h.Ordinal = s.number+1, s.first
	m.addReady(h, uint32(n), s.build.Finish(h), slices.Clone(s.runs))
	s.buildNext(&m.cfg)
	s.first = s.next
}

// closeFragments spreads e, which fits no frame, over several. The frame being
// built is empty.
func (m *Machine) closeFragments(now time.Time, e *wire.Event) {
	record := wire.AppendRecord(nil, e)
	room := wire.ChunkLen(m.cfg.FrameBytes, max(seal.MaxTrailer, m.cfg.TrailerBytes))
	total := (len(record) + room - 1) / room
	for i := range total {
		h := m.header(now, wire.TypeFragment)
		h.Number, h.Ordinal = m.send.number+1, m.send.next
		var runs []wire.EventCount
		if i == total-1 {
			h.Count, runs = 1, []wire.EventCount{{ID: e.ID, Count: 1}}
		}
		f := wire.Fragment{Index: i, Total: total, Size: len(record), Chunk: record[i*room : min((i+1)*room, len(record))]}
		m.addReady(h, h.Count, wire.FragmentFrame(h, f, m.cfg.TrailerBytes), runs)
	}
}

// addReady queues a frame of count events to be taken.
func (m *Machine) addReady(h wire.Header, count uint32, frame []byte, runs []wire.EventCount) {
	m.send.number = h.Number
	m.send.unsent += len(frame)
	m.send.ready = append(m.send.ready, &Frame{Number: h.Number, Ordinal: h.Ordinal, Count: count, Bytes: frame,
		runs: runs, trailer: m.cfg.TrailerBytes})
}

func (m *Machine) header(now time.Time, t wire.Type) wire.Header {
	return wire.Header{Type: t, Key: m.cfg.Key, Site: m.cfg.Site, Stream: m.cfg.Stream, Clock: now.UnixMicro()}
}

// Take appends to dst the frames that wait to be sent, the one being built
// included, and returns it. The caller seals them, sends them in this order,
// and calls [Machine.Handed]. What goes beyond the credit of receivers is left
// until [Effects.Send]; the fragments of an event stay together.
func (m *Machine) Take(now time.Time, dst []*Frame) []*Frame {
	m.notice(now)
	n, last := m.allowed(now)
	if last {
		m.closeFrame(now)
		n = len(m.send.ready)
	}
	m.noteSent(now)
	s := &m.send
	for _, f := range s.ready[:n] {
		s.total += uint64(len(f.Bytes))
		f.end, f.at = s.total, now
		s.taken = f.mark()
		s.ring.add(f)
		s.flight = append(s.flight, f)
	}
	dst = append(dst, s.ready[:n]...)
	s.ready = slices.Delete(s.ready, 0, n)
	s.slow = slices.ContainsFunc(m.peers, func(p *peer) bool { return p.counts && m.behind(p) })
	m.trimRing(now)
	return dst
}

// trimRing drops the frames that every member has acknowledged, and those for
// which there is no room.
func (m *Machine) trimRing(now time.Time) {
	all := m.send.handed.Frame
	for _, p := range m.peers {
		if p.open() {
			all = min(all, p.acked.Frame)
		}
	}
	m.send.ring.trim(now, all, &m.cfg)
}

// Sent records that the frames up to number through are sealed, and that some
// provider was given them: from now on they can be repaired, whether or not
// another provider accepts them soon. Whose frames they are is as for Handed.
func (m *Machine) Sent(through uint64) {
	s := &m.send
	if n := len(s.olds); n > 0 && len(s.olds[n-1].flight) > 0 {
		s.olds[n-1].sent = through
		return
	}
	s.sent = max(s.sent, min(through, s.taken.Frame))
}

// Handed records that a provider has accepted the frames up to and including
// number through: of the stream before, if some of that were still in hand when
// it was replaced. Those of one stream are handed before the first of the next.
func (m *Machine) Handed(now time.Time, through uint64, fx *Effects) {
	s := &m.send
	if n := len(s.olds); n > 0 && len(s.olds[n-1].flight) > 0 {
		s.olds[n-1].hand(through)
		return
	}
	n, bytes := s.hand(through)
	if n == 0 {
		return
	}
	s.unsent -= bytes
	fx.Space = true
	m.heartbeatSoon(now)
}

// paced reports whether a live receiver is so far behind that Raise must wait
// for it. A receiver that keeps it waiting for too long, or makes no progress,
// stops counting until it has caught up.
func (m *Machine) paced(now time.Time) bool {
	if !m.send.stalledAt.IsZero() {
		m.notice(now)
	}
	stalled := false
	for _, p := range m.peers {
		if !p.counts || !m.behind(p) {
			continue
		}
		if m.send.stalledAt.IsZero() {
			m.send.stalledAt = now
		}
		if now.Before(m.stallEnd(m.send.stalledAt, p)) {
			stalled = true
		} else {
			p.counts = false
			p.evicted++
		}
	}
	if !stalled {
		m.send.stalledAt, m.send.slow = time.Time{}, false
	}
	return stalled
}

// stallEnd returns when p, which has held this instance up since then, stops counting.
func (m *Machine) stallEnd(since time.Time, p *peer) time.Time {
	progress := since
	if p.ackedAt.After(progress) {
		progress = p.ackedAt
	}
	return earlier(since.Add(m.cfg.MaxStall), progress.Add(stallProgress))
}

// stallNext returns when paced will next change by itself.
func (m *Machine) stallNext() (at time.Time) {
	for _, p := range m.peers {
		if p.counts && m.behind(p) {
			at = earlier(at, m.stallEnd(m.send.stalledAt, p))
		}
	}
	return at
}

// behind reports whether p has more than half of the ring still to acknowledge.
func (m *Machine) behind(p *peer) bool {
	return m.send.total-p.ackedEnd > uint64(m.cfg.RingBytes/2) ||
		m.send.taken.Frame-min(p.acked.Frame, m.send.taken.Frame) > uint64(m.cfg.RingFrames/2)
}

// Mark returns the position through which frames were taken for sending.
func (m *Machine) Mark() site.Mark { return m.send.taken }

// HandedMark returns the position through which a provider has accepted.
func (m *Machine) HandedMark() site.Mark { return m.send.handed }

// SetKey names the key, and the room its seal takes, for frames taken from now
// on.
func (m *Machine) SetKey(now time.Time, key site.KeyID, trailer int) {
	m.closeFrame(now)
	m.cfg.Key, m.cfg.TrailerBytes = key, trailer
	for _, f := range m.send.ready { // they may wait for longer than the old key lasts
		m.send.unsent -= len(f.Bytes)
		m.reseal(f, func(*wire.Header) {})
		m.send.unsent += len(f.Bytes)
	}
	m.send.buildNext(&m.cfg)
}

// reseal makes f, which is not sealed yet, one to be sealed under the key of now.
func (m *Machine) reseal(f *Frame, change func(*wire.Header)) wire.Header {
	h, err := wire.ParseHeader(f.Bytes)
	if err != nil {
		panic("engine: a frame of our own does not parse: " + err.Error())
	}
	f.Bytes = append(f.Bytes[:len(f.Bytes)-f.trailer], make([]byte, m.cfg.TrailerBytes)...)
	f.trailer, h.Key = m.cfg.TrailerBytes, m.cfg.Key
	change(&h)
	wire.PutHeader(f.Bytes, h)
	return h
}

// Renumber begins a new stream, because the row of the old one is gone. What was
// raised and not taken moves to the new stream, under the key of now; what was
// taken stays with the old one, whose end the new one tells to everybody for a
// minute and whose frames it still repairs.
func (m *Machine) Renumber(now time.Time, stream site.StreamID, fx *Effects) {
	m.closeFrame(now)
	was := m.send
	s := &m.send
	m.cfg.Stream = stream
	s.reset(&m.cfg)
	s.orders, s.control, s.total = was.orders, was.control, was.total
	s.olds = append(was.olds, &oldStream{ring: was.ring, until: now.Add(resetFor), doubt: m.cloned})
	s.olds = s.olds[max(0, len(s.olds)-maxOlds):]
	m.cloned = false
	for _, f := range was.ready {
		m.moveFrame(f, f.Ordinal-was.taken.Next)
	}
	s.first = s.next
	for _, p := range m.peers {
		p.acked, p.ackedEnd, p.ackedAt = site.Mark{}, s.total, now
	}
	fx.Space, fx.Send = true, true
	m.sayResets(now, fx)
	m.heartbeatSoon(now)
}

// moveFrame queues a frame of the stream before as one of this stream.
func (m *Machine) moveFrame(f *Frame, ordinal uint64) {
	h := m.reseal(f, func(h *wire.Header) {
		h.Stream, h.Number, h.Ordinal = m.cfg.Stream, m.send.number+1, ordinal
	})
	m.addReady(h, f.Count, f.Bytes, f.runs)
	m.send.next = ordinal + uint64(f.Count)
}

// sayResets tells where the streams ended that this one replaces.
func (m *Machine) sayResets(now time.Time, fx *Effects) {
	s := &m.send
	s.olds = slices.DeleteFunc(s.olds, func(o *oldStream) bool { return !now.Before(o.until) })
	for _, o := range s.olds {
		m.say(now, site.StreamID{}, wire.Reset{Old: o.stream, Mark: o.taken, Doubtful: o.doubt}, fx)
	}
}
