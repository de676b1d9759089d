// Package history writes down what happened at each instance of a site, and
// judges it. Simulated and real clusters are judged by the same [Checker],
// which knows the promise and nothing of how it is kept: it shares no code with
// the protocol.
//
// File guide: record.go says what can happen; file.go keeps records in files;
// checker.go takes records one after the other; ledger.go keeps book of what one
// instance was told of another; judge.go holds that against the promise at the
// end; counts.go judges reports that only give a number; verdict.go is what
// comes out.
package history

import (
	"encoding/hex"
	"fmt"
	"time"
)

// A Kind says what a [Record] records. The zero value is not a kind.
type Kind string

// Kinds of records. The fields that each one uses are named; others are ignored.
const (
	Opening    Kind = "opening"    // the instance is about to join; its row is not committed. Site, Accepts
	Opened     Kind = "opened"     // it is in step. Stream, if known
	Enabled    Kind = "enabled"    // it is about to dispatch
	Subscribed Kind = "subscribed" // OnRaised has returned. Event; empty: every event
	Renumbered Kind = "renumbered" // it has a new stream. Stream
	Shutdown   Kind = "shutdown"   // Shutdown or Close begins
	Closed     Kind = "closed"     // and has returned. Clean
	Killed     Kind = "killed"     // it has ended without a word, and its process is gone
	Frozen     Kind = "frozen"     // it stands still
	Thawed     Kind = "thawed"     // and goes on

	// Raise is called, or about to be: Seq, Event, Ordered, Sum. Numbers are
	// dense: 0, 1, 2, …, in the order in which the instance raises, one at a time.
	Raise    Kind = "raise"
	Accepted Kind = "accepted" // Raise has returned and Seq is raised
	Refused  Kind = "refused"  // Raise has returned and Seq is not; the number is used again
	Sent     Kind = "sent"     // Seq and the Count-1 after it have the numbers from Ordinal on in Stream, for good

	Raised  Kind = "raised"   // a subscriber is called. From, Seq, Stream, Ordinal, Event, Sum
	Missed  Kind = "missed"   // OnMissed is called. Stream, First, Last, Count, Exact, Reason, Event
	InDoubt Kind = "in-doubt" // a gap has been open for a while. Stream

	Fault  Kind = "fault"  // a fault begins. Note names it
	Mended Kind = "mended" // and ends. Note, as when it began
	Cloned Kind = "cloned" // two processes speak for Stream from here on
	Erased Kind = "erased" // the site database has forgotten the row of Stream, so that who did not know it cannot learn of it
	Calm   Kind = "calm"   // every fault has ended and no other follows
	End    Kind = "end"    // of the history
)

// A Stream names numbered frames, as in package site. The zero Stream names none.
type Stream [16]byte

// String returns the 32 hexadecimal digits.
func (s Stream) String() string { return hex.EncodeToString(s[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (s Stream) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. Hyphens are skipped.
func (s *Stream) UnmarshalText(text []byte) error {
	digits := make([]byte, 0, 2*len(s))
	for _, c := range text {
		if c != '-' {
			digits = append(digits, c)
		}
	}
	if len(digits) != 2*len(s) {
		return fmt.Errorf("history: stream %q does not have %d digits", text, 2*len(s))
	}
	_, err := hex.Decode(s[:], digits)
	return err
}

// A Record is one thing that happened.
type Record struct {
	// At is when, on one clock for all instances: since the Unix epoch for real
	// processes, since the start for simulated ones.
	At time.Duration `json:"t"`

	// Instance is one run of one process; a restart has another name. Faults,
	// Calm and End may have none.
	Instance string `json:"i,omitempty"`
	Kind     Kind   `json:"k"`

	Site    string   `json:"site,omitempty"`
	Accepts []string `json:"accepts,omitempty"` // sites beside its own; "*": all
	Clean   bool     `json:"clean,omitempty"`   // goodbye was said, and the row closed
	Note    string   `json:"note,omitempty"`

	From    string `json:"from,omitempty"` // the instance that raised it
	Seq     uint64 `json:"seq,omitempty"`  // its number there
	Event   string `json:"event,omitempty"`
	Ordered bool   `json:"ordered,omitempty"`
	Sum     uint64 `json:"sum,omitempty"` // of the payload, by any hash; 0: not computed

	Stream      Stream `json:"stream,omitzero"`
	Ordinal     uint64 `json:"ord,omitempty"`
	First, Last uint64 `json:",omitempty"`
	Count       uint64 `json:"n,omitempty"`
	Exact       bool   `json:"exact,omitempty"`
	Reason      string `json:"reason,omitempty"`
}

// A merged report of misses stands for several: it only says how many, and
// between which two.
func (r *Record) merged() bool {
	return !r.Exact || r.Stream == Stream{} || r.Count != r.Last-r.First+1
}
