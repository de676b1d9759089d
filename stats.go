package carillon

import (
	"fmt"
	"slices"
	"time"

	"github.com/carillon-go/carillon/site"
)

// Stats is what happened since the Broker was opened, and where it stands. Counters
// only grow.
type Stats struct {
	Sent     uint64 // events raised for other instances
	Received uint64 // events raised by other instances and told, or dropped for want of a subscriber
	Local    uint64 // events raised by this instance, sent or not
	Missed   uint64 // events told as missed
	Panics   uint64 // in the application's functions

	// Drops counts what arrived and was not delivered. Every reason is there.
	Drops map[DropReason]uint64

	FramesReceived, BytesReceived uint64 // before any check
	ControlDropped                uint64 // control frames that found no room on their way out

	Queues  QueueStats
	Repair  RepairStats
	Backlog uint64    // events raised and not yet accepted by a provider
	Handed  site.Mark // position of this instance's stream that a provider has accepted

	Providers []ProviderStats // in the order of Config, then those standing by, by name
	Peers     []PeerStats     // ascending by stream
}

// QueueStats is what waits for the functions of the application.
type QueueStats struct {
	Events, Bytes         int // in the queues of OnRaised and OnReceived
	HeldEvents, HeldBytes int // until Enable
}

// RepairStats is what was done about losses, and what is kept against them.
type RepairStats struct {
	Asked    uint64 // NAKs sent: requests for frames that were missing here
	Repaired uint64 // frames that arrived because of that, or late
	Resent   uint64 // frames sent again for others

	RingFrames, RingBytes int           // kept of what this instance sent, until all have acknowledged it
	RingAge               time.Duration // of the oldest of these; 0 if there are none
	CacheBytes            int           // kept of what others sent

	// Window is how long a lost frame can be asked for before its sender has to
	// drop it for want of room, at the pace of the last seconds; at most
	// [Config.MissedAfter].
	Window time.Duration

	Clones uint64 // how often another process was found to speak in this instance's name
}

// ProviderStats is what one provider has carried.
type ProviderStats struct {
	Name                  string
	FramesSent, BytesSent uint64 // repeats included
	FramesReceived        uint64
	Subscribed            bool      // what others send on it arrives
	Sending               bool      // what is raised here is sent on it
	Failures              uint64    // calls of Send that did not succeed
	FailingSince          time.Time // zero: the last one succeeded
	LastError             string    // while failing
	Cleaning              CleaningStats
}

// PeerStats is where another instance's stream stands here, and ours there.
type PeerStats struct {
	Source  Source
	Joining bool // its position is not known yet
	Closing bool // it has ended

	Known    site.Mark // highest position known to exist
	Complete site.Mark // through which everything arrived or was given up
	Gaps     int       // runs of frames missing between the two
	Missed   uint64    // events given up

	Acknowledged site.Mark // what it has of our stream
	Evictions    uint64    // how often it was too slow to be waited for
	HeardAt      time.Time // last frame that proved to be its own; zero: none
}

// Stats returns a copy of all counters. It is meant for every few seconds.
func (b *Broker) Stats() Stats {
	s := Stats{
		Received: b.counts.unasked.Load(),
		Missed:   b.counts.lost.Load(), Panics: b.counts.panics.Load(),
		FramesReceived: b.counts.framesReceived.Load(), BytesReceived: b.counts.bytesReceived.Load(),
		ControlDropped: b.counts.controlDrops.Load(),
		Drops:          make(map[DropReason]uint64, numDropReasons),
	}
	for r := DropReason(1); r < numDropReasons; r++ {
		s.Drops[r] = b.drops.by[r].count.Load()
	}
	for _, v := range b.events.Range {
		e := v.(*Event)
		s.Sent += e.sent.Load()
		s.Received += e.received.Load()
		s.Local += e.sent.Load() + e.kept.Load()
		for _, sub := range load(&e.raised) {
			n, bytes := sub.queue.load.get()
			s.Queues.Events += n
			s.Queues.Bytes += bytes
		}
	}
	for _, sub := range load(&b.taps) {
		n, bytes := sub.queue.load.get()
		s.Queues.Events += n
		s.Queues.Bytes += bytes
	}
	for _, o := range b.outs {
		p := ProviderStats{
			Name: o.name, FramesSent: o.framesSent.Load(), BytesSent: o.bytesSent.Load(),
			FramesReceived: o.framesReceived.Load(), Failures: o.failures.Load(), Cleaning: o.cleaning.stats(),
		}
		var err error
		p.Subscribed, p.Sending = o.listening.Load(), slices.Contains(*b.senders.Load(), o)
		if p.FailingSince, err = o.failure(); err != nil {
			p.LastError = err.Error()
		}
		s.Providers = append(s.Providers, p)
	}
	if b.local {
		return s
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Queues.HeldEvents, s.Queues.HeldBytes = b.hold.events, b.hold.bytes
	r := b.machine.Repair(time.Now())
	s.Repair = RepairStats{
		Asked: r.Asked, Repaired: r.Repaired, Resent: r.Resent, RingFrames: r.RingFrames, RingBytes: r.RingBytes,
		RingAge: r.RingAge, CacheBytes: r.KeptBytes, Window: r.Window, Clones: b.counts.clones.Load(),
	}
	s.Backlog, s.Handed = b.raised-b.handed, b.machine.HandedMark()
	for _, p := range b.machine.Peers() {
		s.Peers = append(s.Peers, PeerStats{
			Source: *b.rows.source(p.Site, p.Stream), Joining: p.Joining, Closing: p.Closing,
			Known: p.High, Complete: p.Low, Gaps: p.Gaps, Missed: p.Missed,
			Acknowledged: p.Acked, Evictions: p.Evictions, HeardAt: p.HeardAt,
		})
	}
	return s
}

// Status says whether the instance is fit for work, and what is wrong.
type Status struct {
	// Ready means that events flow as far as this instance can tell: in step,
	// enabled, not ending, and not without the site database for longer than a
	// lease.
	Ready   bool
	InStep  bool
	Enabled bool
	Closing bool

	DatabaseAwaySince time.Time // zero: it answers
	Isolated          bool      // it does not for longer than a lease

	Generation uint64     // of the keyring in use
	Key        site.KeyID // that this instance signs with
	Floors     site.Floors

	// Problems says in words what is wrong, and what follows from it; it is
	// empty if nothing is.
	Problems []string
}

// Status returns the state of this instance, for health checks and people.
func (b *Broker) Status() Status {
	s := Status{Closing: b.closing.Load(), InStep: true}
	if !b.local {
		b.keyStatus(&s)
		b.guardStatus(&s)
	}
	b.mu.Lock()
	s.Enabled = b.enabled
	gone := b.gone
	b.mu.Unlock()

	b.health.mu.Lock()
	s.DatabaseAwaySince, s.Isolated = b.health.since, b.health.isolated
	dbErr, stuck, stuckErr := b.health.err, b.health.stuck, b.health.stuckErr
	b.health.mu.Unlock()

	now := time.Now()
	if s.Closing {
		s.Problems = append(s.Problems, "the broker is closed or closing")
	}
	if !s.Enabled {
		s.Problems = append(s.Problems, "not enabled: the application has not called Enable yet")
	}
	if !s.DatabaseAwaySince.IsZero() {
		text := fmt.Sprintf("the site database has been away for %v (%v): events flow between instances that know each other", now.Sub(s.DatabaseAwaySince).Round(time.Second), dbErr)
		if s.Isolated {
			text += ", but others may have started whose events are not accepted here"
		}
		s.Problems = append(s.Problems, text)
	}
	if gone {
		s.Problems = append(s.Problems, "the member row is gone: others may not accept what is raised here until there is a new one")
	}
	if !stuck.IsZero() && s.DatabaseAwaySince.IsZero() {
		s.Problems = append(s.Problems, fmt.Sprintf("the site database answers, and the member row could not be written for %v (%v): at the end of its lease others take this instance for dead", now.Sub(stuck).Round(time.Second), stuckErr))
	}
	if w := b.way.Load(); w != nil {
		for _, text := range w.missing {
			s.Problems = append(s.Problems, "transports: "+text)
		}
	}
	for _, o := range b.outs {
		if since, err := o.failure(); !since.IsZero() {
			s.Problems = append(s.Problems, fmt.Sprintf("provider %q has not accepted frames for %v: %v", o.name, max(now.Sub(since).Round(time.Second), time.Second), err))
		}
	}
	s.Ready = s.InStep && s.Enabled && !s.Closing && !s.Isolated && !gone
	return s
}
