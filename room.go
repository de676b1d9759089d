package carillon

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
)

// Subscribers pace those who raise elsewhere, so that a burst that is faster than they are
// overflows no queue. A queue that is more than half full presses; what room is left in those that do
// is what other instances may send. A function that is slow by itself gains nothing by
// that and would delay everybody, so a queue that does not move along stops
// pressing, and overflows.
const (
	pressFrom  = 2 // a queue presses when it is fuller than this part of its limit
	pressUntil = 4 // and until it has no more than this part
	roomBefore = 3 // of eight parts of the limit that others may send while none presses
	roomSpare  = 8 // this part of a limit is never lent: what a byte of frames takes of a queue is an estimate
	pressPace  = 8 // it must hand over this part of its limit
	pressTime  = 2 // in this part of Config.MaxStall
)

// A press is what a raisedSub has to do with pacing. It is guarded by the Broker's mutex.
type press struct {
	on    bool
	slow  bool      // it does not count until it has ended
	added uint64    // bytes put into the queue so far
	since time.Time // when its pace was looked at last
	at    uint64    // bytes that had left the queue then
}

// A crowd is what the queues of subscribers have to do with pacing.
type crowd struct {
	subs  []*raisedSub // that press
	least int          // room that there is while none does: for two frames

	// How much of a queue so many bytes of frames took lately, charges included.
	frames, queued int
}

// noteFrame counts a frame of events that arrived.
func (c *crowd) noteFrame(bytes int) {
	if c.frames += bytes + engine.FrameCharge; c.frames > 1<<20 {
		c.frames, c.queued = c.frames/2, c.queued/2
	}
}

// inFrames returns how many bytes of frames take so much of a queue.
func (c *crowd) inFrames(queued int) int {
	const most, least = 2, 8 // times, and as a part
	if c.queued == 0 {
		return queued / 2
	}
	return int(min(max(float64(c.frames)/float64(c.queued), 1./least), most) * float64(queued))
}

// pressLocked looks at the queue of s after something was put into it. b.mu is held.
func (b *Broker) pressLocked(s *raisedSub, bytes int) {
	s.press.added += uint64(bytes)
	if s.press.on {
		return
	}
	if _, waiting := s.queue.load.get(); waiting > s.queue.limit/pressFrom {
		s.press = press{on: true, added: s.press.added, since: time.Now(), at: s.press.added - uint64(waiting)}
		b.crowd.subs = append(b.crowd.subs, s)
	}
}

// roomLocked returns how many bytes of frames, charges included, other instances may have on their way. b.mu
// is held.
func (b *Broker) roomLocked(now time.Time) int {
	limit := b.cfg.QueueBytes
	// While none presses, there is room for a frame whatever the limit is.
	room := max(b.crowd.least, b.crowd.inFrames(limit/8*roomBefore))
	b.crowd.subs = slices.DeleteFunc(b.crowd.subs, func(s *raisedSub) bool {
		_, waiting := s.queue.load.get()
		if waiting <= limit/pressUntil || s.removed.Load() {
			s.press.on = false
			return true
		}
		if s.press.slow = s.press.slow || s.press.idles(now, waiting, limit, b.cfg.MaxStall); !s.press.slow {
			room = min(room, b.crowd.inFrames(max(0, limit-limit/roomSpare-waiting)))
			s.wanted.Store(waiting > limit/pressFrom)
		}
		return false
	})
	return room
}

// idles reports whether a queue in which so many bytes wait does not move along.
func (p *press) idles(now time.Time, waiting, limit int, stall time.Duration) bool {
	left := p.added - uint64(waiting)
	if left-p.at >= uint64(limit/pressPace) {
		p.since, p.at = now, left
		return false
	}
	return now.Sub(p.since) >= stall/pressTime
}

// relieved is called by s's goroutine when it has handed over some of what waited: those who are
// held up for it can go on when much has.
func (s *raisedSub) relieved() {
	if !s.wanted.Load() {
		return
	}
	if _, waiting := s.queue.load.get(); waiting <= s.queue.limit/pressUntil && s.wanted.Swap(false) {
		poke(s.ev.b.tickWake)
	}
}
