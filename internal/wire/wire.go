// Package wire is the byte layout of frames: what is where, and which values
// are allowed. It is the only package that knows offsets. docs/PROTOCOL.md says
// the same in prose; a change here is a change there and a new wire version.
//
// The package encodes and decodes; it neither seals nor judges what a frame
// means. Decoders take bytes from strangers: they never panic, never allocate
// more than a small multiple of their input, and accept one encoding of a value
// only. Functions are safe for concurrent use; [Builder] and [EventReader] are
// not.
package wire

import "fmt"

const (
	// HeaderLen is the length of a frame's header in bytes.
	HeaderLen = 76

	// Version is the wire version that this package reads and writes.
	Version = 1

	// MaxNumber is the largest frame number, ordinal or credit.
	MaxNumber = 1<<48 - 1

	// MinFrameLen and MaxFrameLen bound a whole frame in bytes. The smallest has
	// neither body nor trailer, which no suite allows.
	MinFrameLen = HeaderLen
	MaxFrameLen = 1 << 20

	// MaxRecordLen bounds one event's record in bytes, and so the size that
	// fragments may announce.
	MaxRecordLen = 1 << 26
)

// An ID names an event or its raiser.
type ID = [16]byte

// A Type says what a frame's body holds. The zero value is not a type.
type Type uint8

// Types from 16 on are control frames: they have a number space of their own,
// beside that of the types below.
const (
	TypeEvents    Type = 1  // whole events
	TypeFragment  Type = 2  // a part of one event
	TypeHeartbeat Type = 16 // see [Heartbeat]
	TypeNAK       Type = 17 // see [NAK]
	TypeGone      Type = 18 // see [Gone]
	TypeHello     Type = 19 // see [Hello]
	TypeState     Type = 20 // see [State]
	TypeACK       Type = 21 // see [ACK]
	TypeBye       Type = 22 // see [Bye]
	TypeReset     Type = 23 // see [Reset]
	TypeDigest    Type = 24 // see [Digest]
	TypeWitness   Type = 25 // see [Witness]
)

var typeNames = [...]string{
	TypeEvents: "events", TypeFragment: "fragment", TypeHeartbeat: "heartbeat", TypeNAK: "nak",
	TypeGone: "gone", TypeHello: "hello", TypeState: "state", TypeACK: "ack", TypeBye: "bye",
	TypeReset: "reset", TypeDigest: "digest", TypeWitness: "witness",
}

// Control reports whether frames of this type are control frames.
func (t Type) Control() bool { return t >= TypeHeartbeat }

// String returns a short lower-case name, a label for counters.
func (t Type) String() string {
	if t.known() {
		return typeNames[t]
	}
	return fmt.Sprintf("type-%d", uint8(t))
}

func (t Type) known() bool { return int(t) < len(typeNames) && typeNames[t] != "" }
