// Package engine is Carillon's protocol as a pure machine: numbering, start-up
// and baselines, gaps and their repair, acknowledgement and pacing. It does no I/O, starts no
// goroutine, reads no clock and no global random source: time and input come in
// as arguments, effects go out as values, and the same calls always give the
// same answers.
//
// File guide: send.go numbers what this instance says; flow.go keeps back what receivers
// have no room for; ring.go keeps it, and resend.go sends it again; join.go finds out where the others stand; window.go
// tracks one stream's numbers and gaps; repair.go asks for what is missing;
// silence.go speaks for senders that do not; receive.go turns frames into items;
// fragment.go and order.go hold what cannot be told to subscribers yet;
// control.go speaks and hears the control frames; members.go follows the member
// table; trust.go ends what cannot be believed any more.
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
	CacheBytes    int // sealed frames of others, kept to repair for those that fall silent; 0: none

	// Window is how many bytes of frames may be on their way to this instance at once, each
	// counted with [FrameCharge] more, before the transport drops some. 0: any number, and then
	// what others tell of theirs does not matter either.
	Window int

	Ways

	MissedAfter time.Duration // how long a gap may stay open
	MaxStall    time.Duration // how long a receiver that lags may pace Raise

	Seed uint64 // of the machine's own random source: jitter and nonces
}

// Ways is what the transports in use are like, all of them together. [Machine.SetWays] changes it.
type Ways struct {
	SharedLoss    bool          // what one receiver loses, others often lose too
	ReachesOne    bool          // what is for one instance is not heard by all
	RepairDelay   time.Duration // how long frames may normally overtake each other; 0: hardly
	IdleHeartbeat time.Duration // 0: by the number of members; negative: none while idle
}

// Protocol intervals that nobody needs to configure. Their reasons are in
// docs/PROTOCOL.md.
const (
	helloGrace     = 250 * time.Millisecond // silence after which one stream alone is taken as dead
	lapsedGrace    = 500 * time.Millisecond // the same for streams whose lease has lapsed
	baselineWait   = 2 * time.Second        // the same for all
	stateMerge     = 500 * time.Millisecond // upper bound of the spread of STATE answers
	stateBurst     = 64                     // STATEs for single ones said at once, so that they fit every queue
	stateAgain     = 5 * time.Millisecond
	witnesses      = 3       // who have answered are asked again, of those who have not
	maxListed      = 1 << 16 // streams that HELLOs to be answered list
	ackEvery       = 50 * time.Millisecond
	ackShare       = time.Millisecond        // of an ACK for each member: all together say a thousand a second
	ackFlow        = 10 * time.Millisecond   // the same while data flows
	ackDear        = 1200 * time.Millisecond // instead of ackEvery where messages cost money, until so many frames or bytes have come; after heartbeatLast
	ackDearFrames  = 16
	ackDearBytes   = 64 << 10
	ackShort       = 27                     // most streams in an ACK that is one of many; about 1 KiB
	ackPause       = 100 * time.Millisecond // without data, after which it does not
	ackAgain       = 3 * time.Second        // how long after data heartbeats are acknowledged again
	heartbeatFirst = 50 * time.Millisecond
	heartbeatLast  = 800 * time.Millisecond // of those after data; where messages cost money the only one
	heartbeatIdle  = time.Second
	resetFor       = 60 * time.Second // how long a new stream speaks of the old one
	maxOlds        = 4                // streams replaced that are spoken of
	stallProgress  = 500 * time.Millisecond
	unknownFor     = time.Second // how long "the member table does not know it" is believed
	askBurst       = 8
	askEvery       = 200 * time.Millisecond
	fewPeers       = 8    // with more, it is seen to that not each of them says the same to all
	maxGaps        = 2048 // per stream; beyond it what comes is not taken until some are repaired

	askFirst   = 20 * time.Millisecond  // least time over which NAKs for a new gap are spread
	askMost    = 200 * time.Millisecond // most time between two NAKs for a gap
	askSlack   = 5 * time.Millisecond   // what is due so soon is asked for together
	askAnyone  = 8                      // NAKs without success after which anybody may answer
	nakFrames  = 4                      // most NAKs, or GONEs, said at once
	doubtAfter = 250 * time.Millisecond // gaps that are open for so long are told of

	repairLeast = 256 << 10             // bytes per second
	repairSaved = 10                    // seconds for which the budget can be saved up
	repairHold  = 10 * time.Millisecond // a frame is not sent again to the same within that time
	resendBurst = 64 << 10              // bytes of repairs sent at once, so that they fit receivers' buffers
	resendEvery = 2 * time.Millisecond
	maxResend   = 8 << 20          // bytes of repairs that wait
	maxEvicted  = 65536            // runs of events that are remembered of frames dropped
	goneFor     = 10 * time.Minute // for how long they are

	keptFor      = time.Minute // how long frames of others are kept
	answerers    = 2           // how many answer a NAK for another's stream, and one more per 16 members
	digestTimes  = 3
	digestSpread = 200 * time.Millisecond
	digestAgain  = time.Second
	digestLater  = 10 * time.Second // after the first few
	maxEndings   = 64               // streams that have ended and are told of at once
	maxClosed    = 4096             // streams that ended and are remembered
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
	Full                   // too much is missing before it; it will be asked for again
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
	ReasonEvicted            // the sender could not keep it for long enough
	ReasonPeerLost           // the sender is silent, and nobody else has it
)

// Missed says that events of a stream will not be told to subscribers.
type Missed struct {
	Site   site.ID
	Stream site.StreamID
	Reason Reason
	Event  wire.ID // the event missed, if Known
	Known  bool

	// Exact says that it is the Count events with the ordinals First to Last.
	// Otherwise it may be fewer, because some were sent before this instance began
	// to listen, or more, of which nobody knows how many; Count may be 0.
	Exact       bool
	First, Last uint64
	Count       uint64
}

// InDoubt says that something of a stream has been missing for a while, though
// it may still be repaired.
type InDoubt struct {
	Site   site.ID
	Stream site.StreamID
}

// Item is what subscribers are told, in the order in which they must hear it:
// events that follow each other in their stream, or, if Missed is set, a miss.
type Item struct {
	Site    site.ID
	Stream  site.StreamID
	Ordinal uint64      // of the first event
	Clock   int64       // Unix microseconds by the sender's clock; information only
	Events  wire.Events // alias the frame they came in
	Missed  *Missed     // nil for events

	order uint64 // of an Ordered event, which is alone in its Item; 0: not Ordered
}

// Control is a frame to send besides those of Take.
type Control struct {
	Frame []byte        // whole
	To    site.StreamID // zero: everybody
	Idle  bool          // it is said though nothing has happened for a while, and may be left out where that costs money
}

// Heard is a [wire.Witness] for this instance.
type Heard struct {
	Site    site.ID
	Stream  site.StreamID // who said it; the member table need not know it
	Witness wire.Witness
}

// Effects is what a call asks of its caller. Calls append and set, they never
// clear; see [Effects.Reset].
type Effects struct {
	Items      []Item
	Control    []Control // to seal, in the room at their ends, and send
	Repairs    []Control // sealed already: to send as they are, before new frames
	InDoubt    []InDoubt
	Strangers  []site.StreamID // sent verified frames, and the member table does not know them
	Witnesses  []Heard
	AskMembers bool // read the member table now, then call Members with asked, or AskFailed
	InStep     bool // the machine has just come into step
	Space      bool // Raise may succeed again
	Send       bool // Take returns again what it kept back
	Gone       bool // the own member row is closed or reaped: join again, then Renumber
	Cloned     bool // another process speaks in the own stream: join again, then Renumber
}

// Reset empties e and keeps its memory.
func (e *Effects) Reset() {
	clear(e.Items)
	clear(e.Control)
	clear(e.Repairs)
	*e = Effects{Items: e.Items[:0], Control: e.Control[:0], Repairs: e.Repairs[:0],
		InDoubt: e.InDoubt[:0], Strangers: e.Strangers[:0], Witnesses: e.Witnesses[:0]}
}

// A Machine is one instance's side of the protocol. It is not safe for
// concurrent use. Use [New] to make one.
type Machine struct {
	cfg  Config
	rand *rand.Rand

	send  sender
	again resender
	join  joiner
	held  holding

	// peers holds every other stream known, ascending by stream, and byStream the
	// same by name. A peer is a sender whose window we keep and a receiver whose
	// acknowledgements we count.
	peers      []*peer
	byStream   map[site.StreamID]*peer
	gappy      []*peer                    // those of which something is missing, or was when last looked at; in the same order
	closed     map[site.StreamID]ending   // streams that ended while we watched, and where; bounded
	closedList []site.StreamID            // the same, the oldest first
	past       map[site.StreamID]*keeping // frames kept of streams that ended a moment ago

	heartbeatAt time.Time // next one; zero before Start
	heartbeatIn time.Duration
	ackAt       time.Time              // next ACK; zero: nothing to acknowledge
	ackBytes    int                    // received since the last one
	limited     bool                   // SetRoom was called
	spare       int                    // what it said
	ackFrames   int                    // the same in frames
	ackedLast   site.StreamID          // that an ACK named last
	digestAt    time.Time              // next DIGEST
	trimAt      time.Time              // when frames kept of others are looked through, if no heartbeat does it
	endings     map[site.StreamID]bool // ended streams to tell of, as somebody does not know
	endingsAt   time.Time
	seen        time.Time // last input that notice was told of
	started     bool
	finished    bool // BYE was said
	cloned      bool // another process speaks in the own stream

	counts [numVerdicts]uint64

	asked   uint64 // NAKs said
	repairs uint64 // frames that came for a gap
	resent  uint64 // frames sent again
}

// New returns a Machine that knows nobody. It can Raise and Take at once;
// [Machine.Start] makes it speak.
func New(cfg Config) *Machine {
	m := &Machine{
		cfg:      cfg,
		rand:     rand.New(rand.NewPCG(cfg.Seed, 0x6361_7269_6c6c_6f6e)),
		byStream: map[site.StreamID]*peer{},
		closed:   map[site.StreamID]ending{},
		past:     map[site.StreamID]*keeping{},
	}
	m.send.reset(&m.cfg)
	m.held.tokens = askBurst
	return m
}
