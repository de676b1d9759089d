//go:build zmq && cgo

package zmq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/carillon-go/carillon/bench/internal/system"
)

const (
	// Events that wait for a subscriber, at its end and at the publisher's: as fast as without a limit, in a
	// third of the memory. With the library's own 1,000 it is slower.
	highWater = 100_000

	closingPoll = 100 * time.Millisecond // how long a subscriber may take to see that it is to end
	linger      = 10 * time.Second       // for what waits when the publisher ends
)

// Systems returns the one.
func Systems() []system.System {
	major, minor, patch := zmq4.Version()
	return []system.System{{
		Name:  name,
		Title: fmt.Sprintf("%s (libzmq %d.%d.%d, zmq4)", title, major, minor, patch),
		Note:  note,
		Publish: func(_ context.Context, s system.Spec, _ string) (system.Publisher, error) {
			return newPublisher(s.Subscribers)
		},
		Subscribe: func(_ context.Context, _ system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
			return subscribe(address, deliver)
		},
	}}
}

// A publisher sends events. It implements system.Publisher.
type publisher struct {
	context     *zmq4.Context
	socket      *zmq4.Socket
	address     string
	subscribers int
}

// newPublisher opens an XPUB socket: the PUB socket with an ear for who subscribes.
func newPublisher(subscribers int) (*publisher, error) {
	c, err := zmq4.NewContext()
	if err != nil {
		return nil, err
	}
	p := &publisher{context: c, subscribers: subscribers}
	if err := p.open(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *publisher) open() (err error) {
	if p.socket, err = p.context.NewSocket(zmq4.XPUB); err != nil {
		return err
	}
	for _, set := range []func() error{
		func() error { return p.socket.SetSndhwm(highWater) },
		func() error { return p.socket.SetXpubNodrop(true) }, // wait, where PUB would drop
		func() error { return p.socket.SetXpubVerbose(1) },   // tells of every subscriber, not only of the first
		func() error { return p.socket.SetLinger(linger) },
		func() error { return p.socket.Bind("tcp://127.0.0.1:*") },
	} {
		if err := set(); err != nil {
			return err
		}
	}
	p.address, err = p.socket.GetLastEndpoint()
	return err
}

// Address is what subscribers connect to.
func (p *publisher) Address() string { return p.address }

// Ready returns when it has heard of every subscriber.
func (p *publisher) Ready(ctx context.Context) error {
	if err := p.socket.SetRcvtimeo(closingPoll); err != nil {
		return err
	}
	for n := 0; n < p.subscribers; {
		_, err := p.socket.RecvBytes(0)
		switch {
		case err == nil:
			n++
		case zmq4.AsErrno(err) != zmq4.Errno(syscall.EAGAIN):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("zmq: %d of %d subscribers are there: %w", n, p.subscribers, ctx.Err())
		}
	}
	return nil
}

// Publish hands an event to the library, whose own thread sends it. It waits while the queue of a subscriber is full.
func (p *publisher) Publish(event []byte) error {
	_, err := p.socket.SendBytes(event, 0)
	return err
}

// Flush does nothing: the library's thread sends at once what it has.
func (p *publisher) Flush() error { return nil }

// Close sends what waits and ends the connections.
func (p *publisher) Close() error {
	var err error
	if p.socket != nil {
		err = p.socket.Close()
	}
	return errors.Join(err, p.context.Term())
}

// A subscriber receives events. It implements system.Reporter.
type subscriber struct {
	context *zmq4.Context
	closing atomic.Bool
	ended   chan struct{} // closed when the goroutine that reads has ended
	err     error         // why it ended; read it after ended
}

func subscribe(address string, deliver func(event []byte)) (*subscriber, error) {
	c, err := zmq4.NewContext()
	if err != nil {
		return nil, err
	}
	socket, err := c.NewSocket(zmq4.SUB)
	if err != nil {
		return nil, errors.Join(err, c.Term())
	}
	for _, set := range []func() error{
		func() error { return socket.SetRcvhwm(highWater) },
		func() error { return socket.SetRcvtimeo(closingPoll) },
		func() error { return socket.SetSubscribe("") },
		func() error { return socket.Connect(address) },
	} {
		if err := set(); err != nil {
			return nil, errors.Join(err, socket.Close(), c.Term())
		}
	}
	s := &subscriber{context: c, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.err = errors.Join(s.read(socket, deliver), socket.Close())
	}()
	return s, nil
}

// read is all that uses the socket, which is for one goroutine.
func (s *subscriber) read(socket *zmq4.Socket, deliver func(event []byte)) error {
	for {
		event, err := socket.RecvBytes(0)
		switch {
		case err == nil:
			deliver(event)
		case zmq4.AsErrno(err) != zmq4.Errno(syscall.EAGAIN):
			return fmt.Errorf("zmq: receive: %w", err)
		case s.closing.Load():
			return nil
		}
	}
}

// Report says whether it still receives.
func (s *subscriber) Report() (facts string, err error) {
	select {
	case <-s.ended:
		return "", s.err
	default:
		return "", nil
	}
}

// Close ends the connection.
func (s *subscriber) Close() error {
	s.closing.Store(true)
	<-s.ended
	return errors.Join(s.err, s.context.Term())
}
