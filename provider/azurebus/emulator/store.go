package emulator

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/Azure/go-amqp"
)

// A topic with its subscriptions. Everything below is guarded by Emulator.mu.
type topic struct {
	name     string
	ttl      time.Duration
	disabled bool
	created  time.Time
	metadata string
	subs     map[string]*subscription // by name in lower case
	seq      int64
}

type subscription struct {
	topic *topic
	name  string

	rule         string // of its rule
	sql          string
	accepts      filter
	metadata     string
	ttl          time.Duration
	lock         time.Duration
	idle         time.Duration // after which it is deleted
	maxDelivered uint32

	created, used time.Time
	waiting       []*message // by sequence number
	locked        map[uuid]*lock
	links         []*link // of its receivers
	deadLettered  int
}

// A message as one subscription has it. What it holds is shared with the others and never changed.
type message struct {
	seq       int64
	enqueued  time.Time
	expires   time.Time
	delivered uint32 // how often it was, without success
	size      int
	content   *amqp.Message
}

// A lock is a message that somebody was given and has not settled.
type lock struct {
	token   uuid
	message *message
	sub     *subscription
	until   time.Time
	link    *link
	id      uint32 // of the delivery, in the link's session
}

// publish gives a message to each subscription whose rule accepts it.
func (e *Emulator) publish(t *topic, m *amqp.Message, size int) {
	now := e.now()
	t.seq++
	for _, s := range t.subs {
		if s.accepts(m.ApplicationProperties) != yes {
			continue
		}
		ttl := min(t.ttl, s.ttl)
		if m.Header != nil && m.Header.TTL > 0 {
			ttl = min(ttl, m.Header.TTL)
		}
		s.waiting = append(s.waiting, &message{seq: t.seq, enqueued: now, expires: now.Add(ttl), size: size, content: m})
		e.pump(s)
	}
}

// pump delivers what waits to those who have credit for it.
func (e *Emulator) pump(s *subscription) {
	now := e.now()
	s.waiting = slices.DeleteFunc(s.waiting, func(m *message) bool { return !m.expires.After(now) })
	for len(s.waiting) > 0 {
		i := slices.IndexFunc(s.links, func(l *link) bool { return l.credit > 0 })
		if i < 0 {
			return
		}
		l := s.links[i]
		s.links = append(slices.Delete(s.links, i, i+1), l) // in turn
		m := s.waiting[0]
		s.waiting = s.waiting[1:]
		k := &lock{message: m, sub: s, until: now.Add(s.lock), link: l}
		rand.Read(k.token[:])
		s.used = now
		e.operations.Deliveries++
		e.operations.Units += units(m.size)
		l.deliver(k, m.at(k))
		if l.settled {
			continue
		}
		s.locked[k.token] = k
		l.session.unsettled[k.id] = k
	}
}

// at returns what is delivered.
func (m *message) at(k *lock) *amqp.Message {
	c := *m.content
	c.Annotations = amqp.Annotations{
		"x-opt-sequence-number": m.seq,
		"x-opt-enqueued-time":   m.enqueued,
	}
	if k != nil {
		c.Annotations["x-opt-locked-until"] = k.until
	}
	c.Header = &amqp.MessageHeader{DeliveryCount: m.delivered, TTL: m.expires.Sub(m.enqueued)}
	return &c
}

// giveBack makes a locked message available again.
func (e *Emulator) giveBack(k *lock, counts bool) {
	s, m := k.sub, k.message
	k.forget()
	if counts {
		m.delivered++
	}
	if m.delivered >= s.maxDelivered {
		s.deadLettered++
		return
	}
	i, _ := slices.BinarySearchFunc(s.waiting, m.seq, func(m *message, seq int64) int { return int(m.seq - seq) })
	s.waiting = slices.Insert(s.waiting, i, m)
}

// forget ends a lock.
func (k *lock) forget() {
	delete(k.sub.locked, k.token)
	delete(k.link.session.unsettled, k.id)
}

// complete removes a locked message for good, and reports whether the lock was still held.
func (e *Emulator) complete(k *lock) bool {
	if k == nil || k.sub.locked[k.token] != k {
		return false
	}
	e.operations.Completes++
	e.operations.Units++
	k.sub.used = e.now()
	k.forget()
	return true
}

// sweep does what is due: locks that have run out, messages and subscriptions that have.
func (e *Emulator) sweep() {
	now := e.now()
	for _, t := range e.topics {
		for _, s := range t.subs {
			for _, k := range s.locked {
				if !k.until.After(now) {
					e.giveBack(k, true)
				}
			}
			e.pump(s)
			if s.idle > 0 && now.Sub(s.used) >= s.idle {
				e.remove(s)
			}
		}
	}
}

// remove deletes a subscription, and tells its receivers.
func (e *Emulator) remove(s *subscription) {
	delete(s.topic.subs, strings.ToLower(s.name))
	for _, l := range slices.Clone(s.links) {
		l.detach(fault("amqp:not-found", "The messaging entity '"+s.topic.name+"/Subscriptions/"+s.name+"' could not be found."))
	}
}

// size returns how many bytes of messages are kept.
func (t *topic) size() (n int) {
	for _, s := range t.subs {
		for _, m := range s.waiting {
			n += m.size
		}
		for _, k := range s.locked {
			n += k.message.size
		}
	}
	return n
}

// units returns for how many operations a message counts: each 64 KiB are one.
func units(bytes int) int { return max(1, (bytes+64<<10-1)/(64<<10)) }

// find returns what an address means. All of it is compared without case.
func (e *Emulator) find(address string) (t *topic, s *subscription) {
	address = strings.ToLower(strings.Trim(address, "/"))
	name, sub, ok := strings.Cut(address, "/subscriptions/")
	t = e.topics[name]
	if t != nil && ok {
		s = t.subs[sub]
	}
	if ok && s == nil {
		return nil, nil
	}
	return t, s
}
