package mqttbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
	"github.com/eclipse/paho.golang/paho/session"
)

// maxInFlight bounds the messages that wait for the server's acknowledgement, if it does not set a lower limit itself: mosquitto says 20.
const maxInFlight = 256

var _ session.SessionManager = (*inFlight)(nil)

// An inFlight is what paho calls the state of a session, for one connection: what the server has yet to acknowledge, and what this instance has.
// paho's own keeps messages and sends them again over the next connection; here Send has failed by then, and the Broker does
// that. paho's own also acknowledges when a handler returns, or looks every so many milliseconds for what is to be acknowledged; here
// a message is acknowledged when its events are in their queues and all messages before it are acknowledged, which MQTT demands.
type inFlight struct {
	quota chan struct{} // holds a token for each message that the server would take now; made by ConAckReceived
	lost  chan struct{} // closed when the connection is
	said  func(error)   // is told what the server said when it ended the connection

	mu       sync.Mutex // guards the fields below, and the order in which acknowledgements are written
	conn     io.Writer  // nil: not connected yet, or no more
	last     uint16     // packet identifier, the one that was given away last
	waiting  map[uint16]waiter
	received []*receipt // not acknowledged, in the order in which they came
}

// A waiter waits for the answer to one packet.
type waiter struct {
	batch  *batch                       // of a message
	answer chan<- packets.ControlPacket // of anything else
}

// A batch is what one Send waits for. It is guarded by inFlight.mu.
type batch struct {
	left    int           // messages that were not answered
	done    chan struct{} // closed when all were
	unheard int           // messages that nobody is subscribed to, as far as the server says
	refusal *refusal      // the first, or nil
}

// A receipt stands for a message that is to be acknowledged.
type receipt struct {
	id    uint16
	taken bool
}

func newInFlight(said func(error)) *inFlight {
	return &inFlight{lost: make(chan struct{}), said: said, waiting: make(map[uint16]waiter)}
}

// ConAckReceived implements [session.SessionManager].
func (s *inFlight) ConAckReceived(conn io.Writer, _ *packets.Connect, answer *packets.Connack) error {
	quota := maxInFlight
	if p := answer.Properties; p != nil && p.ReceiveMaximum != nil {
		quota = min(quota, int(*p.ReceiveMaximum))
	}
	if quota == 0 {
		return errors.New("the server takes no messages at all: its Receive Maximum is 0, which MQTT forbids")
	}
	s.quota = make(chan struct{}, quota)
	for range quota {
		s.quota <- struct{}{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	return nil
}

// ConnectionLost implements [session.SessionManager]. Who waits for an answer gets none.
func (s *inFlight) ConnectionLost(goodbye *packets.Disconnect) error {
	if goodbye != nil {
		s.said(&refusal{goodbye.ReasonCode, goodbye.Properties.ReasonString})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	s.conn = nil
	close(s.lost)
	for id, w := range s.waiting {
		if w.answer != nil {
			w.answer <- packets.ControlPacket{} // that is how paho is told
		}
		delete(s.waiting, id)
	}
	return nil
}

// AddToSession implements [session.SessionManager], for all packets but messages, which go through publish.
func (s *inFlight) AddToSession(_ context.Context, p session.Packet, answer chan<- packets.ControlPacket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return session.ErrNoConnection
	}
	p.SetIdentifier(s.addLocked(waiter{answer: answer}))
	return nil
}

// addLocked returns a packet identifier under which w is known until it is answered. There are 65,535, and never as many waiters. s.mu is held.
func (s *inFlight) addLocked(w waiter) uint16 {
	for {
		s.last++
		if _, used := s.waiting[s.last]; !used && s.last != 0 {
			s.waiting[s.last] = w
			return s.last
		}
	}
}

// publish sends frames to a topic, each as a message, and returns when the server has answered all. unheard is for how many of them it said that nobody is
// subscribed. What was sent when it fails, because the connection is lost or ctx ends, may arrive.
func (s *inFlight) publish(ctx context.Context, topic string, frames [][]byte, mark []byte) (unheard int, err error) {
	b := &batch{left: len(frames), done: make(chan struct{})}
	patience := time.NewTimer(answerWithin) // begins anew with each answer
	defer patience.Stop()
	for _, f := range frames {
		select {
		case <-s.quota:
			patience.Reset(answerWithin)
		case <-patience.C:
			return 0, errUnanswered
		case <-s.lost:
			return 0, errLost
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err := s.write(b, topic, f, mark); err != nil {
			return 0, err
		}
	}
	for left := s.left(b); ; {
		select {
		case <-b.done:
			s.mu.Lock()
			defer s.mu.Unlock()
			if b.refusal != nil {
				return 0, b.refusal
			}
			return b.unheard, nil
		case <-patience.C:
			now := s.left(b)
			if now == left {
				return 0, errUnanswered
			}
			left = now
			patience.Reset(answerWithin)
		case <-s.lost:
			return 0, errLost
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// left returns how many messages of b were not answered.
func (s *inFlight) left(b *batch) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.left
}

var (
	// errLost is returned to who waits for an answer. Why it is lost, the link tells.
	errLost = errors.New("the connection broke before the server had taken all")

	// errUnanswered says that the server has not answered a message for answerWithin. Nothing says that it ever will, though it may be there and
	// answer other packets; so this ends the connection.
	errUnanswered = fmt.Errorf("the server does not acknowledge a message: %w", context.DeadlineExceeded)
)

// write hands a message of b to the connection. mark goes with it, if it is not empty.
func (s *inFlight) write(b *batch, topic string, frame, mark []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return errLost
	}
	p := packets.Publish{Topic: topic, QoS: 1, Payload: frame, PacketID: s.addLocked(waiter{batch: b})}
	if len(mark) > 0 {
		p.Properties = &packets.Properties{CorrelationData: mark}
	}
	if _, err := p.WriteTo(s.conn); err != nil {
		return errLost // paho learns why when it reads
	}
	return nil
}

// PacketReceived implements [session.SessionManager].
func (s *inFlight) PacketReceived(p *packets.ControlPacket, messages chan<- *packets.Publish) error {
	switch c := p.Content.(type) {
	case *packets.Publish:
		messages <- c // has room: the server was told how many may be without acknowledgement
	case *packets.Puback:
		s.answered(c.PacketID, p)
	case *packets.Suback:
		s.answered(c.PacketID, p)
	case *packets.Unsuback:
		s.answered(c.PacketID, p)
	}
	return nil
}

// answered takes the answer to the packet with an identifier. Answers that nobody waits for are ignored.
func (s *inFlight) answered(id uint16, p *packets.ControlPacket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.waiting[id]
	ack, toMessage := p.Content.(*packets.Puback)
	if !ok || toMessage != (w.batch != nil) {
		return
	}
	delete(s.waiting, id)
	if !toMessage {
		w.answer <- *p
		return
	}
	switch b := w.batch; {
	case ack.ReasonCode >= 0x80 && b.refusal == nil:
		b.refusal = &refusal{code: ack.ReasonCode, said: ack.Properties.ReasonString}
	case ack.ReasonCode == packets.PubackNoMatchingSubscribers:
		b.unheard++
	}
	if w.batch.left--; w.batch.left == 0 {
		close(w.batch.done)
	}
	s.quota <- struct{}{} // has room: the message took it
}

// receive returns what is to be called when a message is taken. To be called for each message, in the order in which they come.
func (s *inFlight) receive(id uint16) (taken func()) {
	r := &receipt{id: id}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, r)
	return func() { s.acknowledge(r) }
}

// acknowledge says that r is taken, and acknowledges what has waited for that. Over another connection the server sends it again.
func (s *inFlight) acknowledge(r *receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.taken = true
	if s.conn == nil {
		return
	}
	for len(s.received) > 0 && s.received[0].taken {
		ack := packets.Puback{PacketID: s.received[0].id}
		if _, err := ack.WriteTo(s.conn); err != nil {
			return // the connection is lost, which who reads will notice
		}
		s.received = s.received[1:]
	}
}

// Ack implements [session.SessionManager]. paho calls it when a handler returns, which says nothing here.
func (s *inFlight) Ack(*packets.Publish) error { return nil }

// Close implements [session.SessionManager].
func (s *inFlight) Close() error { return s.ConnectionLost(nil) }

// SetErrorLogger implements [session.SessionManager].
func (s *inFlight) SetErrorLogger(log.Logger) {}

// SetDebugLogger implements [session.SessionManager].
func (s *inFlight) SetDebugLogger(log.Logger) {}
