package cms

import "encoding/json"

// Kind is what a [Report] is about.
type Kind string

const (
	KindRaised   Kind = "raised"   // this instance raised an event
	KindReceived Kind = "received" // it received one of another instance
	KindMissed   Kind = "missed"   // it knows of events that it will never receive
	KindDropped  Kind = "dropped"  // it refused frames or events
	KindAway     Kind = "away"     // its provider carries nothing any more
	KindNote     Kind = "note"     // anything else that a person watching wants to know
)

// A Report is what an instance tells about itself to whoever watches it. It is
// made for people: nothing in the site depends on it.
type Report struct {
	At       int64  `json:"at"` // Unix microseconds
	Kind     Kind   `json:"kind"`
	Event    string `json:"event,omitempty"`    // its name, or its ID if it is none of the site's; or the head of a note
	Key      string `json:"key,omitempty"`      // the same in all reports of all instances on one event raised
	Text     string `json:"text,omitempty"`     // what the event says, or the note
	Page     int64  `json:"page,omitempty"`     // the page that the event is about
	Revision int64  `json:"revision,omitempty"` // of the page, if the event tells
	From     string `json:"from,omitempty"`     // who raised what was received or missed
	Count    uint64 `json:"count,omitempty"`    // of events missed, or of what was dropped
	Unit     string `json:"unit,omitempty"`     // what a drop counts: "frame" or "event"
	Reason   string `json:"reason,omitempty"`   // of a miss or a drop, or why the provider carries nothing
}

// String returns r as one line of JSON.
func (r Report) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error() // a Report has nothing that could fail
	}
	return string(b)
}

// Counters are what an instance has counted since it started.
type Counters struct {
	Raised   uint64 `json:"raised"`
	Received uint64 `json:"received"`
	Missed   uint64 `json:"missed"`
	Dropped  uint64 `json:"dropped"` // frames and events, for any reason that is not normal operation
	Hits     uint64 `json:"hits"`    // of the three caches
	Misses   uint64 `json:"misses"`
	Peers    int    `json:"peers"` // other live instances that it knows
	Status   string `json:"status"`
	Carrier  string `json:"carrier,omitempty"` // the transports on which it sends, with commas
	Outage   Outage `json:"outage"`
}

// An Outage is that an instance's provider carries nothing. The zero Outage is that it does.
type Outage struct {
	Since    int64  `json:"since,omitempty"`    // Unix microseconds
	Provider string `json:"provider,omitempty"` // its name
	Reason   string `json:"reason,omitempty"`   // as the provider last said
}
