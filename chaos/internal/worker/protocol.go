package worker

import (
	"time"

	"github.com/carillon-go/carillon/site"
)

// A Config says what a worker does. It is the first line that the worker reads.
type Config struct {
	Server  string // its name to people
	Run     uint32 // numbers the processes of a scenario, from 1
	Folder  string // for its history and its log
	Driver  string // of the site database
	DSN     string
	Options Options

	Interface string // that carries events
	Addr      string // of it
}

// Options are what the workers of a scenario have in common.
type Options struct {
	Provider string  // "udp", "tcp", or both with a comma between
	Bytes    int     // of the parameter of each event
	Ordered  bool    // the event is defined so
	Rate     float64 // events raised a second by each worker

	Lease       time.Duration // see carillon.Config
	MissedAfter time.Duration
}

// A Command is what a worker is told, a line of JSON each.
type Command struct {
	Rate *float64 `json:",omitempty"` // events a second from now on
	Stop bool     `json:",omitempty"` // shut down in good order
}

// A Report is what a worker tells, a line of JSON each.
type Report struct {
	Waiting string  `json:",omitempty"` // why Open has failed, and is tried again
	Ready   bool    `json:",omitempty"` // it is in step and enabled
	Sample  *Sample `json:",omitempty"`
	Stopped bool    `json:",omitempty"` // in good order; the process ends
	Fail    string  `json:",omitempty"` // why it cannot go on
}

// SampleEvery is how often a worker that runs reports a Sample.
const SampleEvery = 250 * time.Millisecond

// A Sample is what a worker knows about itself at one moment.
type Sample struct {
	Stream string // of the own events, as last seen
	Raised uint64 // events raised by this process
	Local  uint64 // of those, told to the local subscriber
	Wrong  uint64 // events heard whose parameter nobody raised

	Handed   site.Mark            // of the own stream
	Backlog  uint64               // raised and not handed on
	Queued   int                  // events that wait for the subscriber
	Peers    map[string]PeerState // by stream
	Drops    map[string]uint64    // by reason, those that are not 0
	Received uint64
	Missed   uint64
	Ready    bool   // as the library sees it
	Key      uint32 // that signs

	Goroutines int
	HeapBytes  uint64 // in use after the last garbage collection
	RSSBytes   uint64 // of the process, as the kernel sees it
	Files      int    // open
}

// PeerState is where the stream of another instance stands.
type PeerState struct {
	Known, Complete site.Mark
	Gaps            int
	Joining         bool
	Closing         bool
}
