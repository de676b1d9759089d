//go:build linux

// Package watermill carries events through Watermill on core NATS.
package watermill

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ThreeDotsLabs/watermill"
	watermillnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/bench/internal/opponent/module"
	"github.com/carillon-go/carillon/bench/internal/opponent/nats/natsserver"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const (
	topic = "events"

	// The adapter leaves the client's limits on what waits as they are, 524,288 messages and 64 MiB, and the
	// client drops what is over them. So many of 2 KiB each, headers included, stay below.
	window = 1 << 14
)

// Systems returns the one.
func Systems() []system.System {
	return []system.System{{
		Name: "watermill",
		Title: fmt.Sprintf("Watermill %s on NATS core (adapter %s, nats-server %s)", module.Version("github.com/ThreeDotsLabs/watermill"),
			module.Version("github.com/ThreeDotsLabs/watermill-nats/v2"), natsserver.Version),
		Note: fmt.Sprintf("%s; JetStream off; headers by NATSMarshaler, a UUID for each message, as its documentation shows; at most "+
			"once, and paced from outside: at most %d events on their way, because the client drops what waits too long",
			natsserver.Settings, window),
		Window: window,
		Serve:  natsserver.Start,
		Publish: func(_ context.Context, _ system.Spec, address string) (system.Publisher, error) {
			return newPublisher(address)
		},
		Subscribe: func(_ context.Context, _ system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
			return subscribe(address, deliver)
		},
	}}
}

func connect(address string) (*nats.Conn, error) {
	return nats.Connect("nats://"+address, nats.NoReconnect())
}

// A publisher sends events. It implements system.Publisher.
type publisher struct {
	conn *nats.Conn
	pub  *watermillnats.Publisher
}

func newPublisher(address string) (*publisher, error) {
	conn, err := connect(address)
	if err != nil {
		return nil, err
	}
	pub, err := watermillnats.NewPublisherWithNatsConn(conn, watermillnats.PublisherPublishConfig{
		Marshaler:         &watermillnats.NATSMarshaler{},
		SubjectCalculator: watermillnats.DefaultSubjectCalculator,
		JetStream:         watermillnats.JetStreamConfig{Disabled: true},
	}, watermill.NopLogger{})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &publisher{conn, pub}, nil
}

// Address returns "": subscribers connect to the server.
func (p *publisher) Address() string { return "" }

// Ready returns at once: a subscriber waits for the server's word that it is subscribed.
func (p *publisher) Ready(context.Context) error { return nil }

// Publish sends the event. The client copies it.
func (p *publisher) Publish(event []byte) error {
	return p.pub.Publish(topic, message.NewMessage(watermill.NewUUID(), event))
}

// Flush does nothing: the client's own goroutine writes at once what was published.
func (p *publisher) Flush() error { return nil }

// Close sends what waits and ends the connection.
func (p *publisher) Close() error { return errors.Join(p.conn.Flush(), p.pub.Close()) }

// A subscriber receives events. It implements system.Reporter.
type subscriber struct {
	conn    *nats.Conn
	sub     *watermillnats.Subscriber
	dropped chan error    // has room for one
	ended   chan struct{} // closed when the goroutine that reads has ended
}

func subscribe(address string, deliver func(event []byte)) (*subscriber, error) {
	conn, err := connect(address)
	if err != nil {
		return nil, err
	}
	s := &subscriber{conn: conn, dropped: make(chan error, 1), ended: make(chan struct{})}
	conn.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case s.dropped <- err:
		default:
		}
	})
	s.sub, err = watermillnats.NewSubscriberWithNatsConn(conn, watermillnats.SubscriberSubscriptionConfig{
		Unmarshaler: &watermillnats.NATSMarshaler{},
		JetStream:   watermillnats.JetStreamConfig{Disabled: true},
	}, watermill.NopLogger{})
	if err != nil {
		conn.Close()
		return nil, err
	}
	messages, err := s.sub.Subscribe(context.Background(), topic)
	if err == nil {
		err = conn.Flush() // returns when the server has taken the subscription
	}
	if err != nil {
		return nil, errors.Join(err, s.sub.Close())
	}
	go func() {
		defer close(s.ended)
		for m := range messages {
			deliver(m.Payload)
			m.Ack()
		}
	}()
	return s, nil
}

// Report says what the client dropped.
func (s *subscriber) Report() (facts string, err error) {
	select {
	case err = <-s.dropped:
	default:
	}
	return "", err
}

// Close ends the connection.
func (s *subscriber) Close() error {
	err := s.sub.Close()
	<-s.ended
	return err
}
