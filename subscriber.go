package carillon

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// missedEvery is the least time between two calls of one OnMissed function.
const missedEvery = 100 * time.Millisecond

// An arrival is an event received from elsewhere, shared by all its
// subscribers. Everything but the result of decoding is read-only.
type arrival struct {
	ev      *Event
	source  *Source
	raiser  ID
	ordinal uint64
	clock   int64
	payload []byte

	// The first subscriber to handle it decodes it, on that subscriber's goroutine:
	// codecs are the application's code, and may be slow.
	once  sync.Once
	param any
	ok    bool
	told  []ticket // OnMissed reports about it, if not ok
}

func (a *arrival) decode() bool {
	a.once.Do(func() {
		if a.param, a.ok = a.ev.decode(a.payload); a.ok {
			return
		}
		b := a.ev.b
		b.drops.add(DropUndecodable, 1)
		a.told = b.tellMissed(a.ev, &Missed{
			Event: a.ev.id, Known: true, Source: *a.source, First: a.ordinal, Last: a.ordinal,
			Count: 1, Exact: true, Reason: MissedUndecodable, Reports: 1,
		})
		b.logDropped()
	})
	return a.ok
}

// A raisedSub is one function registered with OnRaised.
type raisedSub struct {
	ev      *Event
	fn      func(context.Context, Raised[any])
	removed atomic.Bool
	queue   queue[delivery]

	// after is what OnMissed functions must have heard before the next event is
	// told. Only the subscribers of an Ordered event wait for that. It is
	// guarded by the Broker's mutex.
	after []ticket
}

type delivery struct {
	*arrival
	after []ticket
}

// pushLocked queues a; false means that there is no room. The Broker's mutex is
// held.
func (s *raisedSub) pushLocked(a *arrival) bool {
	if !s.queue.push(delivery{a, s.after}, entryBytes+len(a.payload)) {
		return false
	}
	s.after = nil
	return true
}

func (s *raisedSub) handle(d delivery) {
	waitFor(s.ev.b, d.after)
	b := s.ev.b
	if s.removed.Load() || b.handlers.Err() != nil {
		return
	}
	if !d.decode() {
		if s.ev.ordered() {
			waitFor(b, d.told)
		}
		return
	}
	s.call(b.handlers, Raised[any]{
		Event: s.ev.id, Raiser: d.raiser, Parameter: d.param, Source: *d.source,
		Ordinal: d.ordinal, Sent: time.UnixMicro(d.clock),
	})
}

// call calls the function unless it was removed.
func (s *raisedSub) call(ctx context.Context, r Raised[any]) {
	if s.removed.Load() {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			s.ev.panicked("OnRaised", v)
		}
	}()
	s.fn(ctx, r)
}

// A tapSub is one function registered with OnReceived.
type tapSub struct {
	b       *Broker
	fn      func(Received)
	removed atomic.Bool
	queue   queue[Received]
}

func (s *tapSub) handle(r Received) {
	if s.removed.Load() || s.b.handlers.Err() != nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			s.b.panicked("OnReceived", r.Event, v)
		}
	}()
	s.fn(r)
}

// A doubtSub is one function registered with OnInDoubt.
type doubtSub struct {
	b       *Broker
	fn      func(Source)
	removed atomic.Bool
	queue   queue[Source]
}

func (s *doubtSub) handle(from Source) {
	if s.removed.Load() || s.b.handlers.Err() != nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			s.b.panicked("OnInDoubt", ID{}, v)
		}
	}()
	s.fn(from)
}

// A missedSub is one function registered with OnMissed. What cannot be told yet
// is merged into one report, so it needs no bound.
type missedSub struct {
	ev *Event
	fn func(context.Context, Missed)

	mu      sync.Mutex // guards the fields below; not held while calling out
	removed bool
	pending Missed    // nothing if Reports is 0
	added   uint64    // reports so far
	told    uint64    // how many of them the function has heard
	heard   broadcast // told has grown
	next    time.Time // no call before
	active  bool      // the goroutine exists
}

// A ticket stands for a report on its way to an OnMissed function.
type ticket struct {
	sub *missedSub
	n   uint64
}

// add has the function told of m. It never blocks.
func (s *missedSub) add(m *Missed) ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed {
		return ticket{s, s.told}
	}
	s.added++
	if s.pending.Reports == 0 {
		s.pending = *m
	} else {
		s.pending.merge(m)
	}
	if !s.active {
		s.active = true
		s.ev.b.running.begin()
		go s.run()
	}
	return ticket{s, s.added}
}

func (s *missedSub) run() {
	ended := false
	defer func() {
		if !ended { // the function ended the goroutine, as t.FailNow does
			go s.run()
			return
		}
		s.ev.b.running.end()
	}()
	for {
		m, n, wait, ok := s.take()
		switch {
		case !ok:
			ended = true
			return
		case wait > 0:
			pause := time.NewTimer(wait)
			select {
			case <-pause.C:
			case <-s.ev.b.handlers.Done():
			}
			pause.Stop()
			continue
		}
		s.call(m)
		s.mu.Lock()
		s.told = n
		s.heard.signal()
		s.mu.Unlock()
	}
}

// take returns what to tell and the ticket number up to which that counts, or
// how long to wait first, or false when there is nothing and the goroutine must end.
func (s *missedSub) take() (m Missed, n uint64, wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed || s.ev.b.handlers.Err() != nil {
		s.pending = Missed{}
	}
	if s.pending.Reports == 0 {
		s.active = false
		s.told = s.added
		s.heard.signal()
		return m, 0, 0, false
	}
	now := time.Now()
	if wait := s.next.Sub(now); wait > 0 {
		return m, 0, wait, true
	}
	s.next = now.Add(missedEvery)
	m, s.pending = s.pending, Missed{}
	return m, s.added, 0, true
}

func (s *missedSub) call(m Missed) {
	defer func() {
		if v := recover(); v != nil {
			s.ev.panicked("OnMissed", v)
		}
	}()
	s.fn(s.ev.b.handlers, m)
}

func (s *missedSub) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = true
	s.told = s.added
	s.heard.signal()
}

// waitFor returns when the reports were told, or when b stops.
func waitFor(b *Broker, tickets []ticket) {
	for _, t := range tickets {
		for {
			t.sub.mu.Lock()
			told := t.sub.told >= t.n
			heard := t.sub.heard.wait()
			t.sub.mu.Unlock()
			if told {
				break
			}
			select {
			case <-heard:
			case <-b.handlers.Done():
				return
			}
		}
	}
}
