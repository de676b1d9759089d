package wire

import "github.com/carillon-go/carillon/site"

// Limits of the lists in control bodies. Decoders refuse longer ones; who
// encodes keeps to them, and to the frame limit, by sending several frames.
const (
	MaxRanges = 256  // in a NAK
	MaxList   = 1024 // in any other list
)

// The most bytes that numbers and entries of lists take, for filling a frame.
const (
	MaxNumberLen     = 7
	MaxMarkLen       = 2 * MaxNumberLen
	MaxRangeLen      = 2 * MaxNumberLen
	MaxStreamMarkLen = idLen + MaxMarkLen
	MaxACKEntryLen   = idLen + MaxMarkLen + MaxNumberLen
	MaxEventCountLen = idLen + MaxNumberLen
)

// Control is the body of a control frame: [Heartbeat], [NAK], [Gone], [Hello],
// [State], [ACK], [Bye], [Reset], [Digest] or [Witness]. Bodies are truths that stay
// true: a frame heard twice, late or not at all does no harm.
type Control interface {
	// Type returns the type of the frames that carry this body.
	Type() Type
	// Append appends the encoded body.
	Append(dst []byte) []byte
}

// A Heartbeat tells how far its sender's stream reaches.
type Heartbeat struct {
	Mark site.Mark // of what was handed to a provider
	Low  uint64    // lowest frame that its sender can still repair; 0 means none
}

// A NAK asks for frames again.
type NAK struct {
	Stream site.StreamID
	Anyone bool    // whoever kept them may answer; else only the stream's own sender does
	Ranges []Range // 1 to MaxRanges; ascending and disjoint
}

// A Range is the run of frames First, First+1, ..., Last. Both ends are
// included, and 1 <= First <= Last.
type Range struct{ First, Last uint64 }

// Gone tells that its sender cannot repair frames of its own any more.
type Gone struct {
	Frames       Range
	FirstOrdinal uint64       // of the first event in those frames
	NextOrdinal  uint64       // of the first event after them
	Events       []EventCount // which events they were, in the order of their ordinals; at most MaxList
	Complete     bool         // Events names them all
}

// EventCount is a run of events in a row that are all the same.
type EventCount struct {
	ID    ID
	Count uint64 // at least 1
}

// Hello asks for a [State].
type Hello struct {
	Nonce   ID              // comes back in the answer
	Streams []site.StreamID // who is asked; empty means everybody; at most MaxList
}

// State answers one or several [Hello]s.
type State struct {
	Mark   site.Mark    // of what the answering instance has taken for sending
	Nonces []ID         // of the Hellos answered; at most MaxList
	Others []StreamMark // the highest known of other streams; at most MaxList
}

// StreamMark is a position in a stream named.
type StreamMark struct {
	Stream site.StreamID
	Mark   site.Mark
}

// ACK tells senders what its own sender has handed on.
type ACK struct {
	Entries []ACKEntry // at most MaxList
}

// ACKEntry acknowledges one stream.
type ACKEntry struct {
	Stream site.StreamID
	Mark   site.Mark // everything up to here is in the subscribers' queues, or Missed
	Credit uint64    // bytes that the stream's sender may send beyond it
}

// Bye ends a stream.
type Bye struct {
	Mark site.Mark // final
}

// Reset tells that this stream replaces another of the same instance.
type Reset struct {
	Old      site.StreamID
	Mark     site.Mark // final mark of Old
	Doubtful bool      // another process said things in Old's name: what was heard of it may not be all
}

// Digest tells what its sender knows of streams that have fallen silent.
type Digest struct {
	Entries []StreamMark // at most MaxList
}

// Witness tells two instances whether they share one site database. Each commits
// a random value to its own member row and asks whether the other can read it.
type Witness struct {
	To    site.StreamID // who is asked
	Mine  ID            // the value in the sender's row
	Yours ID            // the value of To that this answers; zero in a question
	Seen  bool          // the sender has read Yours in To's row; false in a question
}

func (Heartbeat) Type() Type { return TypeHeartbeat }
func (NAK) Type() Type       { return TypeNAK }
func (Gone) Type() Type      { return TypeGone }
func (Hello) Type() Type     { return TypeHello }
func (State) Type() Type     { return TypeState }
func (ACK) Type() Type       { return TypeACK }
func (Bye) Type() Type       { return TypeBye }
func (Reset) Type() Type     { return TypeReset }
func (Digest) Type() Type    { return TypeDigest }
func (Witness) Type() Type   { return TypeWitness }

// ControlFrame returns a frame that holds c, with zeros where the seal goes. Type,
// Ordinal, Count and Length of h do not matter.
func ControlFrame(h Header, c Control, trailer int) []byte {
	frame := c.Append(make([]byte, HeaderLen, 256))
	frame = append(frame, make([]byte, trailer)...)
	h.Type, h.Ordinal, h.Count = c.Type(), 0, 0
	PutHeader(frame, h)
	return frame
}
