package carillon

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
)

// missedEvery is the least time between two calls of one OnMissed function.
const missedEvery = 100 * time.Millisecond

// A parcel is a run of one event, received from elsewhere in one frame and shared
// by all its subscribers. Everything but the results of decoding is read-only.
type parcel struct {
	ev      *Event
	source  *Source
	ordinal uint64 // of the first
	clock   int64
	events  wire.Events
	bytes   int       // what it counts for in a queue
	shared  []decoded // parallel to events; nil if there is one subscriber alone
}

// decoded is an event's parameter for all subscribers. The first one to need it decodes it, on
// that subscriber's goroutine: codecs are the application's code, and may be slow.
type decoded struct {
	once  sync.Once
	param any
	told  []ticket
	ok    bool
}

// decode returns the parameter of event i; or false, with the reports to OnMissed
// functions that it does not decode.
func (p *parcel) decode(i int) (param any, told []ticket, ok bool) {
	if p.shared == nil {
		return p.decodeAlone(i)
	}
	d := &p.shared[i]
	d.once.Do(func() { d.param, d.told, d.ok = p.decodeAlone(i) })
	return d.param, d.told, d.ok
}

func (p *parcel) decodeAlone(i int) (param any, told []ticket, ok bool) {
	if param, ok = p.ev.decode(p.events.Payload(i)); ok {
		return param, nil, true
	}
	return nil, p.miss(i), false
}

// miss tells that event i does not decode.
func (p *parcel) miss(i int) (told []ticket) {
	b, ordinal := p.ev.b, p.ordinal+uint64(i)
	b.drops.add(DropUndecodable, 1)
	told = b.tellMissed(p.ev, &Missed{
		Event: p.ev.id, Known: true, Source: *p.source, First: ordinal, Last: ordinal,
		Count: 1, Exact: true, Reason: MissedUndecodable, Reports: 1,
	})
	b.logDropped()
	return told
}

// A soloist decodes for one function and calls it, see [alone].
type soloist interface {
	// tell tells the function of s of what is left of d, until it panics.
	tell(s *raisedSub, d *delivery)
	// panicked reports whether tell panicked in the codec, rather than in the function.
	panicked() (inCodec bool)
}

// A raisedSub is one function registered with OnRaised.
type raisedSub struct {
	ev      *Event
	fn      func(context.Context, Raised[any])
	alone   soloist // nil without a definition
	removed atomic.Bool
	queue   queue[delivery]

	wanted atomic.Bool // somebody elsewhere may be held up until less waits
	press  press

	// after is what OnMissed functions must have heard before the next event is
	// told. Only the subscribers of an Ordered event wait for that. It is
	// guarded by the Broker's mutex.
	after []ticket
}

// A delivery is a part of a parcel for one subscriber.
type delivery struct {
	*parcel
	next, end int // of its events
	left      int // up to there they do not count as waiting any more
	after     []ticket
}

// pushLocked queues the first events of p, as many as there is room for, and returns how
// many these are. The Broker's mutex is held.
func (s *raisedSub) pushLocked(p *parcel) int {
	n, bytes := p.events.Len(), p.bytes
	if s.queue.push(delivery{parcel: p, end: n, after: s.after}, n, bytes) {
		s.after = nil
		s.ev.b.pressLocked(s, bytes)
		return n
	}
	_, waiting := s.queue.load.get()
	room := s.queue.limit - waiting
	bytes = entryBytes
	for n = 0; n < p.events.Len(); n++ {
		more := eventBytes + len(p.events.Payload(n))
		if bytes+more > room {
			break
		}
		bytes += more
	}
	if n == 0 || !s.queue.push(delivery{parcel: p, end: n, after: s.after}, n, bytes) {
		return 0
	}
	s.after = nil
	s.ev.b.pressLocked(s, bytes)
	return n
}

func (s *raisedSub) handle(d *delivery) {
	waitFor(s.ev.b, d.after)
	for d.next < d.end {
		s.tell(d)
	}
}

// tell tells the function of what is left of d, until it panics.
func (s *raisedSub) tell(d *delivery) {
	alone := d.shared == nil && s.alone != nil
	defer func() {
		switch v := recover(); {
		case v == nil:
		case alone && s.alone.panicked():
			s.ev.panicked("the codec", v)
			s.missed(d.miss(d.next - 1))
		default:
			s.ev.panicked("OnRaised", v)
		}
	}()
	if alone {
		s.alone.tell(s, d)
		return
	}
	r := Raised[any]{Event: s.ev.id, Source: *d.source, Sent: time.UnixMicro(d.clock)}
	for d.next < d.end {
		i, wanted := s.take(d)
		if !wanted {
			continue
		}
		param, told, ok := d.decode(i)
		if !ok {
			s.missed(told)
			continue
		}
		r.Raiser, r.Parameter, r.Ordinal = d.events.Raiser(i), param, d.ordinal+uint64(i)
		s.fn(s.ev.b.handlers, r)
	}
}

// take takes the next event of d and reports whether the function is to be told of it.
func (s *raisedSub) take(d *delivery) (i int, wanted bool) {
	i = d.next
	d.next++
	if i == d.left {
		s.leave(d)
	}
	return i, !s.removed.Load() && !s.ev.b.stopped.Load()
}

// missed waits until OnMissed functions have heard of an event that does not decode, if those that
// follow must be told after it.
func (s *raisedSub) missed(told []ticket) {
	if s.ev.ordered() {
		waitFor(s.ev.b, told)
	}
}

// leave takes the next events of d from what counts as waiting: one at first, and then
// some at once, as telling is not worth more.
func (s *raisedSub) leave(d *delivery) {
	bytes := 0
	if d.left == 0 {
		bytes = entryBytes
	}
	from := d.left
	d.left = min(from+min(from+1, 16), d.end)
	for i := from; i < d.left; i++ {
		bytes += eventBytes + len(d.events.Payload(i))
	}
	s.queue.load.take(d.left-from, bytes)
	s.relieved()
}

// A tapSub is one function registered with OnReceived.
type tapSub struct {
	b       *Broker
	fn      func(Received)
	removed atomic.Bool
	queue   queue[tapped]
}

type tapped struct {
	Received
	told bool
}

func (s *tapSub) handle(t *tapped) {
	if t.told {
		return
	}
	t.told = true
	s.queue.load.take(1, entryBytes+len(t.Payload))
	if s.removed.Load() || s.b.stopped.Load() {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			s.b.panicked("OnReceived", t.Event, v)
		}
	}()
	s.fn(t.Received)
}

// A doubtSub is one function registered with OnInDoubt.
type doubtSub struct {
	b       *Broker
	fn      func(Source)
	removed atomic.Bool
	queue   queue[doubted]
}

type doubted struct {
	from Source
	told bool
}

func (s *doubtSub) handle(d *doubted) {
	if d.told {
		return
	}
	d.told = true
	s.queue.load.take(1, entryBytes)
	if s.removed.Load() || s.b.stopped.Load() {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			s.b.panicked("OnInDoubt", ID{}, v)
		}
	}()
	s.fn(d.from)
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
	if s.removed || s.ev.b.stopped.Load() {
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
