package carillon

import (
	"time"

	"github.com/carillon-go/carillon/site"
)

// Raised is what a subscriber is told of one event. Its fields are read-only:
// other subscribers get the same parameter.
type Raised[T any] struct {
	Event  ID
	Raiser ID // as the caller of Raise gave it; it lets a subscriber know its own raises

	// Parameter is what was raised. In the instance that raised it, it is the
	// very value; elsewhere it was decoded once for all subscribers.
	Parameter T

	Local   bool      // raised by this instance
	Source  Source    // which instance raised it
	Ordinal uint64    // place in the source's stream, from 0 on; 0 too if Local, which has none
	Sent    time.Time // when it was sent, by the source's clock; information only; zero if Local: just now
}

// Source names an instance. Server and Application are empty when its member
// row is not known here.
type Source struct {
	Site        site.ID
	Stream      site.StreamID
	Server      string
	Application string
}

// Received is what a tap is told of one event, see [Broker.OnReceived].
type Received struct {
	Event  ID
	Raiser ID
	Name   string // of the definition that this instance has of the event, or empty

	// Payload is the encoded parameter. It must not be changed.
	Payload []byte

	Wanted  bool // this instance has a subscriber to it
	Source  Source
	Ordinal uint64    // place in the source's stream
	Sent    time.Time // when it was sent, by the source's clock; information only
}

// Missed says that events from elsewhere will not be raised here.
//
// Reports that come faster than OnMissed may be called are merged: then a field
// in which they differ is zero, and Count is their sum.
type Missed struct {
	// Event is the event missed, if Known. Otherwise any event may be among
	// those missed.
	Event ID
	Known bool

	// Source is the instance that raised them, and First and Last are the
	// ordinals of the first and the last of them in its stream; ordinals begin at 0,
	// so look at Source to know whether they say anything. All three are zero
	// when reports about several streams were merged, or when Count is 0.
	Source      Source
	First, Last uint64

	// Count is how many were missed, and exact if Exact. Otherwise there may
	// have been more, or fewer: some may have been sent before this instance was
	// in step.
	Count uint64
	Exact bool

	// Reason is why, or 0 when reports with different reasons were merged.
	Reason MissedReason

	// Reports is how many reports this one stands for, at least 1.
	Reports uint64
}

// merge makes m stand for n as well.
func (m *Missed) merge(n *Missed) {
	if !m.Known || !n.Known || m.Event != n.Event {
		m.Event, m.Known = ID{}, false
	}
	switch {
	case m.Source.Stream != n.Source.Stream || m.Count == 0 || n.Count == 0:
		m.Source, m.First, m.Last = Source{}, 0, 0
	default:
		m.First, m.Last = min(m.First, n.First), max(m.Last, n.Last)
	}
	if m.Reason != n.Reason {
		m.Reason = 0
	}
	m.Count += n.Count
	m.Exact = m.Exact && n.Exact
	m.Reports += n.Reports
}
