package sim

import (
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A FrameKind is what a tally counts apart: the types of frames, the two that
// carry events as one, and what was sent again.
type FrameKind uint8

// Kinds in the order in which tables have them.
const (
	KindData FrameKind = iota
	KindRepair
	KindNAK
	KindACK
	KindHeartbeat
	KindHello
	KindState
	KindDigest
	KindGone
	KindOther // BYE, RESET, WITNESS
	NumKinds
)

func (k FrameKind) String() string {
	return [NumKinds]string{"data", "repair", "NAK", "ACK", "HEARTBEAT", "HELLO", "STATE", "DIGEST", "GONE", "other"}[k]
}

// kindOf returns the kind of a frame that is sent for the first time.
func kindOf(t wire.Type) FrameKind {
	switch t {
	case wire.TypeEvents, wire.TypeFragment:
		return KindData
	case wire.TypeNAK:
		return KindNAK
	case wire.TypeACK:
		return KindACK
	case wire.TypeHeartbeat:
		return KindHeartbeat
	case wire.TypeHello:
		return KindHello
	case wire.TypeState:
		return KindState
	case wire.TypeDigest:
		return KindDigest
	case wire.TypeGone:
		return KindGone
	}
	return KindOther
}

// Traffic counts frames and their bytes, without what a network adds.
type Traffic struct {
	Frames, Bytes uint64
}

func (t *Traffic) add(frames, bytes int) {
	t.Frames += uint64(frames)
	t.Bytes += uint64(bytes)
}

// A tally counts what goes over the networks of a world. A nil *tally counts
// nothing.
type tally struct {
	open      bool // counting; lost frames are followed in any case
	repairing bool // what is being sent was sent before

	sent, received  [NumKinds]Traffic
	sentBy, heardBy map[*instance]*[NumKinds]Traffic
	rows            uint64 // of the member table, read

	lost     map[lostFrame]time.Duration // since when an event frame is missing where
	repaired []time.Duration             // how long each was
	inStep   []time.Duration             // how long each instance took to come into step
	missed   uint64                      // events told as Missed, and at least one for each miss without a number
}

// A lostFrame is an event frame that did not come to an instance.
type lostFrame struct {
	at     int // number of the instance
	stream site.StreamID
	number uint64
}

func newTally() *tally {
	return &tally{sentBy: map[*instance]*[NumKinds]Traffic{}, heardBy: map[*instance]*[NumKinds]Traffic{}, lost: map[lostFrame]time.Duration{}}
}

// again counts what send sends as repairs.
func (t *tally) again(send func()) {
	if t != nil {
		t.repairing = true
		defer func() { t.repairing = false }()
	}
	send()
}

// frameKind says what to count a frame as.
func (t *tally) frameKind(frame []byte) FrameKind {
	if t.repairing {
		return KindRepair
	}
	return kindOf(wire.Type(frame[wireTypeAt]))
}

// wireTypeAt is where a header has the type of its frame.
const wireTypeAt = 5

// sends counts copies of a frame that an instance sends.
func (t *tally) sends(from *instance, frame []byte, copies int) {
	if t == nil || !t.open {
		return
	}
	k := t.frameKind(frame)
	t.sent[k].add(copies, copies*len(frame))
	of(t.sentBy, from)[k].add(copies, copies*len(frame))
}

// brings counts a frame that a network brings to an instance.
func (t *tally) brings(to *instance, frame []byte) {
	if t == nil || !t.open {
		return
	}
	k := t.frameKind(frame)
	t.received[k].add(1, len(frame))
	of(t.heardBy, to)[k].add(1, len(frame))
}

func of(by map[*instance]*[NumKinds]Traffic, in *instance) *[NumKinds]Traffic {
	c := by[in]
	if c == nil {
		c = new([NumKinds]Traffic)
		by[in] = c
	}
	return c
}

// loses notes that a frame did not come to an instance when it was sent first.
func (t *tally) loses(to *instance, frame []byte, now time.Duration) {
	if t == nil || t.repairing || wire.Type(frame[wireTypeAt]).Control() {
		return // whoever misses a repair is counted already, and others do not need it
	}
	h, err := wire.ParseHeader(frame)
	if err != nil {
		return
	}
	key := lostFrame{to.number, h.Stream, h.Number}
	if _, again := t.lost[key]; !again {
		t.lost[key] = now
	}
}

// takes notes that an instance has taken a frame.
func (t *tally) takes(at *instance, h *wire.Header, now time.Duration) {
	if t == nil || len(t.lost) == 0 || h.Type.Control() {
		return
	}
	key := lostFrame{at.number, h.Stream, h.Number}
	if since, ok := t.lost[key]; ok {
		delete(t.lost, key)
		t.repaired = append(t.repaired, now-since)
	}
}

// misses notes what a subscriber was told of as missed.
func (t *tally) misses(m *engine.Missed) {
	if t != nil {
		t.missed += max(1, m.Count)
	}
}

// comesInStep notes how long an instance took for it.
func (t *tally) comesInStep(after time.Duration) {
	if t != nil {
		t.inStep = append(t.inStep, after)
	}
}

// reads notes rows that came from a site database.
func (t *tally) reads(rows int) {
	if t != nil && t.open {
		t.rows += uint64(rows)
	}
}
