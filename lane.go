package carillon

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/site"
)

// How long to wait before frames that a provider did not accept are sent again.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
)

const (
	// laneBytes is how far one provider may be behind another before it is waited for.
	laneBytes = 1 << 20

	// laneStall is how long it is, before it is taken for one that does not work. Then it does not
	// get everything that the others get: what only its receivers lack, they ask for.
	laneStall = 100 * time.Millisecond
)

var errHangs = errors.New("a call of Send does not return")

// A shipment is event frames on their way through several providers, or through one that did not
// accept them at first. It is done when one has accepted it, or every one has refused it for good.
type shipment struct {
	frames   [][]byte
	bytes    int
	left     atomic.Int32 // lanes that have it
	accepted atomic.Bool
}

func newShipment(frames [][]byte) *shipment {
	p := &shipment{frames: frames}
	for _, f := range frames {
		p.bytes += len(f)
	}
	return p
}

func (p *shipment) done() bool { return p.accepted.Load() || p.left.Load() == 0 }

// A job is control frames, or repairs, to be tried once. to is zero for everybody.
type job struct {
	to     site.StreamID
	frames [][]byte
}

// An errand is jobs for one provider. done is called once: when it has tried them, or will not.
type errand struct {
	jobs  []job
	bytes int // of the frames
	done  func()
}

func newErrand(jobs []job, done func()) *errand {
	e := &errand{jobs: jobs, done: done}
	for _, j := range jobs {
		for _, f := range j.frames {
			e.bytes += len(f)
		}
	}
	return e
}

// maxErrands bounds those that wait for a provider which hangs, as laneBytes does.
const maxErrands = 64

// A lane is what waits for one provider. Providers have lanes of their own so that one which
// fails or hangs delays nothing that another carries.
type lane struct {
	turn chan struct{} // holds a token while nobody calls Send or SendTo
	wake chan struct{} // capacity 1: there is something to do

	mu        sync.Mutex // guards the fields below
	errands   []*errand
	due       int         // bytes of errands
	shipments []*shipment // the first may be in hand
	bytes     int         // of shipments
	busy      time.Time   // since when the first of them waits to be accepted; zero: there is none
	late      bool        // nobody waits for it: it failed or hung, and has accepted nothing since
	backoff   time.Duration
	retryAt   time.Time
}

func (l *lane) init() {
	l.turn, l.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	l.turn <- struct{}{}
}

func (l *lane) release() { l.turn <- struct{}{} }

// takeLane returns the only provider that is sent on, if it has nothing to do and may be called by
// this goroutine, which saves waking another; and nil if the lanes are to do it. The caller releases the lane.
func (b *Broker) takeLane(outs []*outlet) *outlet {
	if len(outs) != 1 || len(b.outs) > 1 && !outs[0].prompt {
		return nil // one that may hang, while there is another to move to, must not keep this goroutine
	}
	l := &outs[0].lane
	select {
	case <-l.turn:
	default:
		return nil
	}
	l.mu.Lock()
	idle := len(l.shipments) == 0 && len(l.errands) == 0
	l.mu.Unlock()
	if !idle {
		l.release()
		return nil
	}
	return outs[0]
}

// push adds a shipment. tried says that the provider has just refused it. Of a lane that nobody waits for, what
// does not fit is dropped, the oldest first.
func (l *lane) push(p *shipment, tried bool) {
	p.left.Add(1)
	l.mu.Lock()
	now := time.Now()
	if l.shipments = append(l.shipments, p); len(l.shipments) == 1 {
		l.busy = now
	}
	l.bytes += p.bytes
	for l.late && l.bytes > laneBytes && len(l.shipments) > 2 {
		l.bytes -= l.shipments[1].bytes // the first is in hand
		l.shipments[1].left.Add(-1)
		l.shipments = slices.Delete(l.shipments, 1, 2)
	}
	if tried {
		l.putOffLocked(now)
	}
	l.mu.Unlock()
	poke(l.wake)
}

func (l *lane) putOffLocked(now time.Time) {
	l.late = true
	l.backoff = min(max(firstRetry, 2*l.backoff), lastRetry)
	l.retryAt = now.Add(l.backoff/2 + rand.N(l.backoff/2+1))
}

// pushErrand adds an errand. The oldest go if there are too many.
func (l *lane) pushErrand(e *errand) {
	l.mu.Lock()
	l.errands, l.due = append(l.errands, e), l.due+e.bytes
	n := 0
	for ; len(l.errands)-n > maxErrands || l.due > laneBytes && n < len(l.errands)-1; n++ {
		l.due -= l.errands[n].bytes
	}
	dropped := slices.Clone(l.errands[:n])
	l.errands = slices.Delete(l.errands, 0, n)
	l.mu.Unlock()
	for _, e := range dropped {
		e.done()
	}
	poke(l.wake)
}

// empty forgets what waits: nothing is sent on this provider any more.
func (l *lane) empty() {
	l.mu.Lock()
	errands, shipments := l.errands, l.shipments
	l.errands, l.shipments, l.bytes, l.due = nil, nil, 0, 0
	l.busy, l.late, l.backoff, l.retryAt = time.Time{}, false, 0, time.Time{}
	l.mu.Unlock()
	for _, p := range shipments {
		p.left.Add(-1)
	}
	for _, e := range errands {
		e.done()
	}
}

// crowded returns until when to wait for o to catch up; zero: nobody need wait.
func (b *Broker) crowded(o *outlet, now time.Time) time.Time {
	l := &o.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late || l.bytes <= laneBytes {
		return time.Time{}
	}
	if until := l.busy.Add(laneStall); now.Before(until) {
		return until
	}
	l.late = true
	o.fails(errHangs)
	o.tell(b.log, "provider does not accept frames", true)
	return time.Time{}
}

// settle completes what is in hand if it can be, and returns when to look again, if no lane will
// tell. b.hand.turn is held.
func (b *Broker) settle(outs []*outlet) (again time.Time) {
	h := &b.hand
	if h.shipment == nil || !h.shipment.done() || b.loopCtx.Err() != nil {
		return time.Time{}
	}
	now := time.Now()
	for _, o := range outs {
		if until := b.crowded(o, now); until.After(again) {
			again = until
		}
	}
	if again.IsZero() {
		b.batchHanded()
	}
	return again
}

// drive sends what waits in o's lane until loopCtx ends.
func (b *Broker) drive(o *outlet) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		<-o.lane.turn
		again := b.clearLane(o)
		o.lane.release()
		select {
		case <-alarm(timer, again):
		case <-o.lane.wake:
		case <-b.loopCtx.Done():
			return
		}
	}
}

// clearLane sends what waits in o's lane, control frames and repairs before events, and returns when to try
// again; zero: nothing waits. The lane is held.
func (b *Broker) clearLane(o *outlet) (again time.Time) {
	l := &o.lane
	for {
		l.mu.Lock()
		errands := l.errands
		l.errands, l.due = nil, 0
		var p *shipment
		if len(l.shipments) > 0 {
			p, again = l.shipments[0], l.retryAt
		}
		l.mu.Unlock()
		for _, e := range errands {
			o.tryJobs(b.loopCtx, b.log, e.jobs)
			e.done()
		}
		if b.loopCtx.Err() != nil {
			return time.Time{}
		}
		switch {
		case p == nil && len(errands) == 0:
			return time.Time{}
		case p == nil:
			continue
		case time.Now().Before(again):
			if len(errands) == 0 {
				return again
			}
			continue
		}
		b.passLane(o, p, o.try(b.loopCtx, b.log, site.StreamID{}, p.frames))
	}
}

// passLane records what came of sending p, the first in o's lane.
func (b *Broker) passLane(o *outlet, p *shipment, came outcome) {
	l := &o.lane
	l.mu.Lock()
	now := time.Now()
	mine := len(l.shipments) > 0 && l.shipments[0] == p // else the lane was emptied meanwhile
	if came == notYet {
		if mine {
			l.putOffLocked(now)
		}
		l.mu.Unlock()
		return
	}
	if came == accepted {
		p.accepted.Store(true)
	}
	if mine {
		p.left.Add(-1)
		l.shipments = slices.Delete(l.shipments, 0, 1)
		l.bytes -= p.bytes
		l.late, l.backoff, l.retryAt, l.busy = false, 0, time.Time{}, now
	}
	l.mu.Unlock()
	poke(b.sendWake)
}
