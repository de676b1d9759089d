//go:build linux

package harness

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/carillon-go/carillon/bench/internal/system"
)

// A role is what a child process is.
type role string

const (
	publishing  role = "publisher"
	subscribing role = "subscriber"
)

// assignment is what a child is started with, as JSON in its arguments.
type assignment struct {
	Role       role
	System     string
	Spec       system.Spec
	Address    string
	Index      int    // of the subscriber, from 0
	Board      string // file
	Window     int    // events on their way; 0: no bound
	CPUProfile string `json:",omitempty"` // folder; empty: none
	MemProfile string `json:",omitempty"`
}

// name is how a child is called in the names of files and in messages.
func (a assignment) name() string {
	if a.Role == subscribing {
		return fmt.Sprintf("%s-%d", a.Role, a.Index)
	}
	return string(a.Role)
}

// An order is what the benchmark asks of a child, and an answer what it gets: one of each at a time, as lines of JSON.
type order struct {
	Do      string
	First   uint64  `json:",omitempty"` // number of the phase's first event
	Count   uint64  `json:",omitempty"`
	Rate    float64 `json:",omitempty"` // events a second; 0: as fast as the system takes them
	Profile bool    `json:",omitempty"`
}

const (
	doReady   = "ready"   // publisher: wait until the subscribers are connected
	doPrepare = "prepare" // subscriber: expect a phase
	doPublish = "publish" // publisher: the phase
	doFinish  = "finish"  // subscriber: write down what the phase was
	doReport  = "report"  // both: what the system thinks of the run
	doClose   = "close"   // both: end the system, and then say what was wrong with the events
)

type answer struct {
	Err     string `json:",omitempty"`
	Missing bool   `json:",omitempty"` // Err is a system.ErrMissing
	Address string `json:",omitempty"` // of the publisher
	Facts   string `json:",omitempty"`

	Started     int64   `json:",omitempty"` // when the publisher began the phase
	Allocations float64 `json:",omitempty"` // objects per event of the phase

	Got     uint64 `json:",omitempty"` // different events of the last phase
	Doubled uint64 `json:",omitempty"` // events that came again
	Odd     uint64 `json:",omitempty"` // events that nobody sent: of another length or number
}

func (a answer) error() error {
	switch {
	case a.Err == "":
		return nil
	case a.Missing:
		return missingError(a.Err)
	}
	return errors.New(a.Err)
}

// A missingError is a system.ErrMissing that has come from another process.
type missingError string

func (e missingError) Error() string { return string(e) }
func (missingError) Unwrap() error   { return system.ErrMissing }

func failed(err error) answer {
	return answer{Err: err.Error(), Missing: errors.Is(err, system.ErrMissing)}
}

// answersFile is the child's end of the pipe for answers. Standard output is left to whatever the libraries
// measured write there.
const answersFile = 3

// obey answers orders from in until it ends, which means that the benchmark has gone, or until one to close.
func obey(in io.Reader, first answer, do func(order) answer) error {
	answers := os.NewFile(answersFile, "answers")
	enc := json.NewEncoder(answers)
	if err := enc.Encode(first); err != nil || first.Err != "" {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		if err := enc.Encode(do(o)); err != nil || o.Do == doClose {
			return err
		}
	}
	return lines.Err()
}
