package engine

import (
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A resender sends frames again, our own and those that others left behind, as
// fast as its budget allows. Repairs go before new frames, so without a budget
// a few receivers that lose everything would stop the stream for all.
type resender struct {
	queue  []*resend // in the order in which they were asked for
	bytes  int
	nextAt time.Time // when more of the queue may be sent; zero: it is empty

	tokens  float64   // bytes that may be sent
	countAt time.Time // when tokens were counted last

	// sent holds how many bytes of new frames there were at the end of each of
	// the last seconds, for the mean rate.
	sent   [repairSaved]uint64
	sentAt time.Time // end of the last second noted
}

// A resend is a frame that waits to be sent again.
type resend struct {
	frame []byte
	to    site.StreamID // zero: everybody
	of    *resent
}

// resent is what was done to send a frame again.
type resent struct {
	waits *resend       // in the queue; nil: it is not
	at    time.Time     // when it was sent again last; zero: never
	to    site.StreamID // to whom; zero: everybody
}

// heardNAKOfOurs answers p, which asks for frames of one of our streams. Only of
// the present one it can say GONE: that is about the stream which says it.
func (m *Machine) heardNAKOfOurs(now time.Time, p *peer, r *ring, nak wire.NAK, fx *Effects) {
	m.earn(now)
	gones := 0
	for _, asked := range nak.Ranges {
		end := max(r.sent, r.handed.Frame)
		if asked.First > end {
			break // it is on its way
		}
		low := r.low()
		if asked.First <= low.Frame && r.stream == m.cfg.Stream && gones < nakFrames && m.again.tokens > 0 {
			gones++
			from := len(fx.Control)
			m.sayGone(now, r, wire.Range{First: asked.First, Last: min(asked.Last, low.Frame)}, p.stream, fx)
			for _, c := range fx.Control[from:] {
				m.again.tokens -= float64(len(c.Frame))
			}
		}
		for n := max(asked.First, low.Frame+1); n <= min(asked.Last, end); n++ {
			if f := r.find(n); !m.resend(now, &f.again, f.Bytes, p.stream) {
				return
			}
		}
	}
	m.resendSome(now, fx)
}

// resend queues a frame to be sent again to who asks for it, or to everybody
// when another has asked for it a moment ago. It returns false when there is no
// room; whoever needs the frame will ask again.
func (m *Machine) resend(now time.Time, a *resent, frame []byte, asker site.StreamID) bool {
	to := asker
	if m.together() {
		to = site.StreamID{}
	}
	switch {
	case a.waits != nil:
		if a.waits.to != to {
			a.waits.to = site.StreamID{}
		}
		return true
	case a.at.IsZero() || now.Sub(a.at) >= repairHold:
	case a.to == asker || a.to == (site.StreamID{}):
		return true // it is on its way
	default:
		to = site.StreamID{}
	}
	r := &m.again
	if r.bytes+len(frame) > maxResend {
		return false
	}
	a.waits = &resend{frame, to, a}
	r.queue = append(r.queue, a.waits)
	r.bytes += len(frame)
	return true
}

// forget empties the queue.
func (r *resender) forget() {
	for _, q := range r.queue {
		q.of.waits = nil
	}
	r.queue, r.bytes, r.nextAt = nil, 0, time.Time{}
}

// resendSome sends of the queue what the budget and a receiver's buffers allow.
func (m *Machine) resendSome(now time.Time, fx *Effects) {
	r := &m.again
	if len(r.queue) == 0 || now.Before(r.nextAt) {
		return
	}
	rate := m.earn(now)
	n, burst := 0, 0
	for n < len(r.queue) && r.tokens > 0 && (burst == 0 || burst+len(r.queue[n].frame) <= resendBurst) {
		q := r.queue[n]
		q.of.waits, q.of.at, q.of.to = nil, now, q.to
		fx.Repairs = append(fx.Repairs, Control{Frame: q.frame, To: q.to})
		r.tokens -= float64(len(q.frame))
		burst += len(q.frame)
		n++
	}
	r.bytes -= burst
	clear(r.queue[:n])
	if r.queue = r.queue[n:]; len(r.queue) == 0 {
		r.queue = nil
	}
	m.resent += uint64(n)
	switch {
	case len(r.queue) == 0:
		r.nextAt = time.Time{}
	case r.tokens > 0:
		r.nextAt = now.Add(resendEvery)
	default:
		r.nextAt = now.Add(max(resendEvery, time.Duration(-r.tokens/rate*float64(time.Second))))
	}
}

// earn adds to the budget what the time since the last call is worth, and returns how much
// a second is.
func (m *Machine) earn(now time.Time) (rate float64) {
	r := &m.again
	rate = m.repairRate(now)
	if r.countAt.IsZero() {
		r.tokens = rate * repairSaved
	} else {
		r.tokens = min(r.tokens+rate*now.Sub(r.countAt).Seconds(), rate*repairSaved)
	}
	r.countAt = now
	return rate
}

// repairRate returns how many bytes of repairs a second may cost.
func (m *Machine) repairRate(now time.Time) float64 {
	return max(repairLeast, 2*m.pace(now))
}

// pace returns how many bytes of new frames a second the last seconds had.
func (m *Machine) pace(now time.Time) float64 {
	m.noteSent(now)
	return float64(m.send.total-m.again.sent[0]) / repairSaved
}

// noteSent keeps the totals of the last seconds.
func (m *Machine) noteSent(now time.Time) {
	s := &m.again
	if s.sentAt.IsZero() {
		s.sentAt = now
	}
	for n := 0; now.Sub(s.sentAt) >= time.Second; n++ {
		if n == len(s.sent) {
			s.sentAt = now
			return
		}
		copy(s.sent[:], s.sent[1:])
		s.sent[len(s.sent)-1] = m.send.total
		s.sentAt = s.sentAt.Add(time.Second)
	}
}
