package history

import (
	"fmt"
	"strings"
	"time"
)

// A Rule is a sentence of the promise that a history can break. The zero value
// is not a rule.
type Rule uint8

const (
	_          Rule = iota
	Twice           // an event was told twice: Raised, Missed, or both
	Silent          // an event was neither Raised nor Missed
	Tardy           // an event was told too long after faults had stopped
	Phantom         // Raised or Missed what was never raised, or by a site that is not accepted
	Payload         // Raised with another payload or event than was raised
	Baseline        // told what was sent before the instance joined
	Disordered      // an Ordered event was told after one that follows it
	Numbering       // two numbers of a stream stand for one event, or one for two
	Early           // told before Enable
	Ended           // told after the end
	Unrepaired      // an event was missed that somebody could have repaired
	Malformed       // the history contradicts itself; whoever wrote it is at fault
	numRules
)

var ruleNames = [numRules]string{
	Twice: "twice", Silent: "silent", Tardy: "tardy", Phantom: "phantom", Payload: "payload", Baseline: "baseline",
	Disordered: "disordered", Numbering: "numbering", Early: "early", Ended: "ended", Unrepaired: "unrepaired", Malformed: "record",
}

// String returns one lower-case word.
func (r Rule) String() string { return ruleNames[r] }

// A Violation is one breach of the promise.
type Violation struct {
	Rule     Rule
	At       time.Duration
	Instance string // whose subscribers were, or were not, told
	From     string // the instance that raised the event; empty if unknown
	Seq      uint64 // its number there
	Stream   Stream // zero if unknown
	Ordinal  uint64
	Note     string
}

// String returns one line.
func (v Violation) String() string {
	s := fmt.Sprintf("%s: at %v %s", v.Rule, v.At, v.Instance)
	if v.From != "" {
		s += fmt.Sprintf(", event %d of %s", v.Seq, v.From)
	}
	if v.Stream != (Stream{}) {
		s += fmt.Sprintf(" (stream %v, ordinal %d)", v.Stream, v.Ordinal)
	}
	return s + ": " + v.Note
}

// A Verdict is what the [Checker] found. It holds when there are no violations.
type Verdict struct {
	Violations []Violation // the first 100
	Broken     uint64      // all of them

	Raises  uint64            // events raised
	Raised  uint64            // times that one was told to an instance
	Missed  uint64            // events that instances were told they missed
	Reasons map[string]uint64 // the same by reason
	InDoubt uint64            // notices that a gap is open

	Lost    uint64 // events of killed instances of which an instance could not know
	Pending uint64 // not settled when the history, or the instance, ended; too early to judge
}

// Holds reports whether nothing was violated.
func (v *Verdict) Holds() bool { return v.Broken == 0 }

// String returns a line of figures, and one for each violation.
func (v *Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d raises, %d Raised, %d Missed, %d lost with their sender, %d pending, %d violations",
		v.Raises, v.Raised, v.Missed, v.Lost, v.Pending, v.Broken)
	for _, x := range v.Violations {
		b.WriteString("\n")
		b.WriteString(x.String())
	}
	return b.String()
}

const maxViolations = 100

func (v *Verdict) add(x Violation) {
	v.Broken++
	if len(v.Violations) < maxViolations {
		v.Violations = append(v.Violations, x)
	}
}
