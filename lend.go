package carillon

import (
	"sync"
	"time"
)

// To wake a goroutine, on a processor that sleeps, takes longer than most subscribers take for
// an event. So the goroutine that delivers a lone event is lent to the queue which that event
// begins, if its subscriber is known to be quick. When one is not, after all, the provider
// is told to go on with another goroutine, see provider.Batch.

const (
	lendEvents = 16                     // at most in a queue; for more, a goroutine of its own is worth waking
	lendTime   = 20 * time.Millisecond  // after which a provider is told to go on without the goroutine; less costs more, see loans
	quickRun   = 100 * time.Microsecond // a run that takes less speaks for its subscriber
	slowRun    = time.Millisecond       // one that takes as long speaks against it
	lendFirst  = 16                     // quick runs before a subscriber is lent a goroutine
	lendLast   = 1024                   // the same, of one that was slow again and again
)

// A pace is how quick a subscriber was lately. The zero pace is that of one that has not run.
type pace struct {
	score int // grows with each quick run
	need  int // of score, to be lent a goroutine; 0 is lendFirst
}

func (p *pace) quick() bool { return p.score >= max(p.need, lendFirst) }

// ran judges a run over a few events.
func (p *pace) ran(took time.Duration) {
	switch need := max(p.need, lendFirst); {
	case took >= slowRun:
		p.failed()
	case took >= quickRun:
		p.score = max(p.score-lendFirst/2, 0)
	case p.score < need+lendFirst:
		p.score++
	case need > lendFirst: // what it did is forgotten as slowly as it was proven wrong
		p.need, p.score = need-1, p.score-1
	}
}

// failed notes a run that must not have been on a goroutine of somebody else.
func (p *pace) failed() {
	p.score, p.need = 0, min(4*max(p.need, lendFirst), lendLast)
}

// A borrower is a queue that can be run on a goroutine which it was lent.
type borrower interface {
	run()
	runLent(from *loans, resume func())
	many() bool
}

// An offer is that of a goroutine which delivers a batch, to the queue that the batch begins. It is
// guarded by the Broker's mutex, and made and ended while that is held. The zero offer is none.
type offer struct {
	open  bool
	taken borrower // nil: not yet
}

// take reports whether q, which has begun, will be run by who made the offer. When a batch begins two, each has a goroutine
// of its own: neither is to wait for the other.
func (o *offer) take(q borrower, quick bool) bool {
	if !o.open || !quick || o.taken != nil {
		o.withdraw()
		return false
	}
	o.taken = q
	return true
}

func (o *offer) withdraw() {
	if o.taken != nil {
		go o.taken.run()
	}
	*o = offer{}
}

// end returns who has taken the offer and is to be run, or nil.
func (o *offer) end() borrower {
	if o.taken != nil && o.taken.many() {
		o.withdraw()
	}
	q := o.taken
	*o = offer{}
	return q
}

// A loan is that of a goroutine to a queue.
type loan struct {
	since  time.Time
	resume func() // nil: nobody waits for the goroutine
	at     int    // in loans.out, if resume is set
}

// loans are those of one Broker. A timer looks after them. It is stopped as soon as there are none, so that after a lone event
// nothing wakes up to find that all is well. A processor that has fallen asleep meanwhile does, though, when the timer
// would have gone off; if events come sooner than that, it is awake anyway.
type loans struct {
	mu      sync.Mutex // guards the fields below; resume, which waits for nothing, is called with it held
	out     []*loan    // of whose goroutines a provider waits
	timer   *time.Timer
	ticking bool
}

// begin has resume called once, unless n ends within lendTime.
func (l *loans) begin(n *loan, since time.Time, resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n.since, n.resume, n.at = since, resume, len(l.out)
	l.out = append(l.out, n)
	switch {
	case l.ticking:
	case l.timer == nil:
		l.timer = time.AfterFunc(lendTime, l.tick)
	default:
		l.timer.Reset(lendTime)
	}
	l.ticking = true
}

// end ends n. After it, resume is not called, nor is a call still running. kept says that the goroutine is
// given back; otherwise it ends, and the provider goes on without it.
func (l *loans) end(n *loan, kept bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.resume == nil {
		return
	}
	if !kept {
		n.resume()
	}
	l.removeLocked(n)
	if len(l.out) == 0 {
		l.timer.Stop()
		l.ticking = false
	}
}

// removeLocked takes n from those that are looked after.
func (l *loans) removeLocked(n *loan) {
	last := len(l.out) - 1
	l.out[n.at] = l.out[last]
	l.out[n.at].at = n.at
	l.out[last] = nil
	l.out = l.out[:last]
	n.resume = nil
}

// tick has providers go on whose goroutines have been out for too long.
func (l *loans) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, longest := time.Now(), time.Duration(0)
	for i := len(l.out) - 1; i >= 0; i-- {
		n := l.out[i]
		if d := now.Sub(n.since); d < lendTime {
			longest = max(longest, d)
			continue
		}
		n.resume()
		l.removeLocked(n)
	}
	if l.ticking = len(l.out) > 0; l.ticking {
		l.timer.Reset(lendTime - longest)
	}
}
