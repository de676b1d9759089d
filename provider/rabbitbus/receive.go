package rabbitbus

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider"
)

// receive delivers what arrives until the channel ends.
func (l *link) receive(deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		number := d.DeliveryTag
		done := func() { l.acks.done(number) }
		if !isFrame(&d) || l.provider.own.has(d.AppId, time.Now()) {
			done()
			continue
		}
		// The client library has allocated the body for this message alone.
		l.env.Deliver(provider.Batch{Frames: [][]byte{slices.Clip(d.Body)}, From: shown(d.AppId), Done: done})
	}
}

// isFrame reports whether d may hold a frame; strangers send whatever they like.
func isFrame(d *amqp.Delivery) bool { return len(d.Body) > 0 && len(d.Body) <= maxFrameBytes }

// shown returns what a message says about who sent it, for logs.
func shown(tag string) string {
	if len(tag) == 2*tagBytes {
		if _, err := hex.DecodeString(tag); err == nil {
			return tag
		}
	}
	return "a stranger"
}

// acknowledge tells the server what is done, as often as there is something new. What is done while it writes goes with the next word.
func (l *link) acknowledge() {
	for {
		select {
		case <-l.acks.wake:
		case <-l.ctx.Done():
			return
		}
		if last, ok := l.acks.take(); ok {
			if err := l.consume.Ack(last, true); err != nil {
				l.fail(l.explain(staying, err))
				return
			}
		}
	}
}

// acks knows up to which message of a channel everything is done. The server numbers them from 1. It is safe for concurrent use.
type acks struct {
	wake chan struct{} // holds one token while there may be something to take

	mu    sync.Mutex      // guards the fields below
	next  uint64          // the lowest that is not done
	later map[uint64]bool // done, above next; no more than the server sends ahead
	taken uint64
}

func newAcks() *acks {
	return &acks{wake: make(chan struct{}, 1), next: 1, later: make(map[uint64]bool)}
}

// done notes that a message is done.
func (a *acks) done(number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if number != a.next {
		a.later[number] = true
		return
	}
	for a.next++; a.later[a.next]; a.next++ {
		delete(a.later, a.next)
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// take returns the last message of those that are done with all before them; false if that was taken already.
func (a *acks) take() (last uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last = a.next - 1
	ok = last > a.taken
	a.taken = last
	return last, ok
}

const (
	tagBytes = 8
	// remember is how long after a link has been replaced what was sent through it is known to be an echo. It waits in the queue while
	// there is no link, and comes first when there is one.
	remember = time.Minute
)

// newTag returns a tag that nobody has.
func newTag() string {
	var b [tagBytes]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// ownTags knows which tags this instance has used lately. The zero value knows none. It is new for each link, so that of two copies of one process, which keep
// only one of the connections, each soon hears what the other sends.
type ownTags struct {
	tags atomic.Pointer[[]ownTag]
}

type ownTag struct {
	tag   string
	until time.Time // zero for the one in use
}

// use makes tag the one in use. It is not called concurrently.
func (o *ownTags) use(tag string, now time.Time) {
	next := []ownTag{{tag: tag}}
	if tags := o.tags.Load(); tags != nil {
		for _, t := range *tags {
			if t.until.IsZero() {
				t.until = now.Add(remember)
			}
			if now.Before(t.until) {
				next = append(next, t)
			}
		}
	}
	o.tags.Store(&next)
}

// has reports whether tag is an own one.
func (o *ownTags) has(tag string, now time.Time) bool {
	tags := o.tags.Load()
	return tags != nil && slices.ContainsFunc(*tags, func(t ownTag) bool {
		return t.tag == tag && (t.until.IsZero() || now.Before(t.until))
	})
}
