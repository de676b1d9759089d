// Package engine is Carillon's protocol as a pure machine: numbering, start-up
// and baselines, gaps, acknowledgement and pacing. It does no I/O, starts no
// goroutine, reads no clock and no global random source: time and input come in
// as arguments, effects go out as values, and the same calls always give the
// same answers.
//
// File guide: send.go numbers and keeps what this instance says; join.go finds
// out where the others stand; window.go tracks one stream's numbers and gaps;
// receive.go turns frames into items; fragment.go and order.go hold what cannot
// be told to subscribers yet; control.go speaks and hears the control frames;
// members.go follows the member table.
package engine

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// Config is what a Machine is told once. Every field is required unless it says
// otherwise; [New] checks nothing, its one caller does.
type Config struct {
	Site   site.ID
	Stream site.StreamID
	Role   site.Role
	Key    site.KeyID // written into headers; whoever seals uses this key

	FrameBytes    int // largest frame, header and trailer included
	TrailerBytes  int // room that the seal takes at the end of each frame
	MaxEventBytes int // largest payload of one event
	UnsentBytes   int // frames raised and not yet handed on; beyond it Raise is [ErrFull]
	RingBytes     int // sealed frames kept
	RingFrames    int
	HoldFrames    int // frames of streams that are not known yet, or have no baseline yet; per instance
	HoldBytes     int

	MissedAfter   time.Duration // how long a gap may stay open
	MaxStall      time.Duration // how long a receiver that lags may pace Raise
	IdleHeartbeat time.Duration // 0: by the number of members; negative: none while idle

	Seed uint64 // of the machine's own random source: jitter and nonces
}

// Protocol intervals that nobody needs to configure. Their reasons are in
// docs/PROTOCOL.md.
const (
	helloGrace     = 250 * time.Millisecond // silence after which one stream alone is taken as dead
	lapsedGrace    = 500 * time.Millisecond // the same for streams whose lease has lapsed
	baselineWait   = 2 * time.Second        // the same for all
	stateMerge     = 500 * time.Millisecond // upper bound of the spread of STATE answers
	ackEvery       = 50 * time.Millisecond
	ackAgain       = 3 * time.Second // how long after data heartbeats are acknowledged again
	heartbeatFirst = 50 * time.Millisecond
	heartbeatIdle  = time.Second
	resetFor       = 60 * time.Second // how long a new stream speaks of the old one
	stallProgress  = 500 * time.Millisecond
	unknownFor     = time.Second // how long "the member table does not know it" is believed
	askBurst       = 8
	askEvery       = 200 * time.Millisecond
	maxGaps        = 1024 // per stream; beyond it the oldest is given up
	maxListed      = 1024 // entries in one control frame
)

// helloAt is when HELLO is said, counted from Start, to those that have not
// answered yet.
var helloAt = [...]time.Duration{0, 20 * time.Millisecond, 60 * time.Millisecond, 140 * time.Millisecond,
	300 * time.Millisecond, 600 * time.Millisecond, 1200 * time.Millisecond}

var (
	// ErrFull reports that Raise must wait: too much is unsent, or a live
	// receiver is behind. Try again after [Effects.Space]. Nothing was raised.
	ErrFull = errors.New("engine: no room to send")

	// ErrTooLarge reports a payload above [Config.MaxEventBytes]. Nothing was
	// raised.
	ErrTooLarge = errors.New("engine: event too large")
)

// Verdict is what became of a received frame. The zero value is not a verdict.
type Verdict uint8

const (
	_              Verdict = iota
	Accepted               // new; its items, if any, are in the Effects
	Duplicate              // seen before
	Late                   // its gap had been given up before
	BeforeBaseline         // sent before this instance was in step
	Held                   // waits for the member table or for a baseline; a later verdict follows
	UnknownStream          // the member table does not know the stream
	ClosedStream           // the stream has ended
	HoldOverflow           // no room to hold it
	Inconsistent           // contradicts what the same stream said before
	Undecodable            // verified, but its body is malformed
	numVerdicts
)

// Reason is why events were missed. The zero value is not a reason.
type Reason uint8

const (
	_                 Reason = iota
	ReasonTimeout            // did not arrive within MissedAfter
	ReasonOverflow           // a bound on gaps or held frames was exceeded
	ReasonUndecodable        // arrived, verified, and could not be read
	ReasonReset              // the sender took a new stream
)

// Missed says that Count events of a stream, with ordinals First to Last, both
// included, will not be told to subscribers.
type Missed struct {
	Site        site.ID
	Stream      site.StreamID
	First, Last uint64
	Reason      Reason
	Event       wire.ID // the event missed, if Known
	Known       bool
}

// Count returns how many events were missed; it is exact.
func (m *Missed) Count() uint64 { return m.Last - m.First + 1 }

// Item is what subscribers are told, in the order in which they must hear it:
// an event, or, if Missed is set, a miss.
type Item struct {
	Site    site.ID
	Stream  site.StreamID
	Ordinal uint64
	Clock   int64      // Unix microseconds by the sender's clock; information only
	Event   wire.Event // Payload aliases the frame it came in
	Missed  *Missed    // nil for an event
}

// Control is a control frame to seal and send.
type Control struct {
	Frame []byte        // whole, with room for the seal at its end
	To    site.StreamID // zero: everybody
}

// Effects is what a call asks of its caller. Calls append and set, they never
// clear; see [Effects.Reset].
type Effects struct {
	Items      []Item
	Control    []Control
	AskMembers bool // read the member table now, then call Members with asked, or AskFailed
	InStep     bool // the machine has just come into step
	Space      bool // Raise may succeed again
	Gone       bool // the own member row is closed or reaped: join again, then Renumber
}

// Reset empties e and keeps its memory.
func (e *Effects) Reset() {
	clear(e.Items)
	clear(e.Control)
	*e = Effects{Items: e.Items[:0], Control: e.Control[:0]}
}

// A Machine is one instance's side of the protocol. It is not safe for
// concurrent use. Use [New] to make one.
type Machine struct {
	cfg  Config
	rand *rand.Rand

	send sender
	join joiner
	held holding

	// peers holds every other stream known, ascending by stream, and byStream the
	// same by name. A peer is a sender whose window we keep and a receiver whose
	// acknowledgements we count.
	peers    []*peer
	byStream map[site.StreamID]*peer
	closed   map[site.StreamID]bool // streams that ended while we watched; bounded

	heartbeatAt time.Time // next one; zero before Start
	heartbeatIn time.Duration
	ackAt       time.Time // next ACK; zero: nothing to acknowledge
	ackBytes    int       // received since the last one
	started     bool
	finished    bool // BYE was said

	counts [numVerdicts]uint64
}

// New returns a Machine that knows nobody. It can Raise and Take at once;
// [Machine.Start] makes it speak.
func New(cfg Config) *Machine {
	m := &Machine{
		cfg:      cfg,
		rand:     rand.New(rand.NewPCG(cfg.Seed, 0x6361_7269_6c6c_6f6e)),
		byStream: map[site.StreamID]*peer{},
		closed:   map[site.StreamID]bool{},
	}
	m.send.reset(&m.cfg)
	m.held.tokens = askBurst
	return m
}
