//go:build linux

// Package rabbit carries events through a RabbitMQ fanout exchange.
package rabbit

import (
	"context"
	"io"

	"github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/bench/internal/opponent/module"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const exchange = "events"

// Systems returns the one.
func Systems() []system.System {
	return []system.System{{
		Name:  "rabbit",
		Title: "RabbitMQ fanout (amqp091-go " + module.Version("github.com/rabbitmq/amqp091-go") + ")",
		Note: "an exclusive queue per subscriber, deleted with it; transient messages; automatic acknowledgement; no publisher " +
			"confirms; no plug-ins; at most once",
		Serve: Serve,
		Publish: func(_ context.Context, _ system.Spec, address string) (system.Publisher, error) {
			return newPublisher(address)
		},
		Subscribe: func(_ context.Context, _ system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
			return subscribe(address, deliver)
		},
	}}
}

// open returns a channel, and the connection that it has for itself, with the exchange declared.
func open(address string) (*amqp091.Connection, *amqp091.Channel, error) {
	conn, err := amqp091.Dial("amqp://guest:guest@" + address + "/")
	if err != nil {
		return nil, nil, err
	}
	ch, err := conn.Channel()
	if err == nil {
		err = ch.ExchangeDeclare(exchange, amqp091.ExchangeFanout, false, true, false, false, nil)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, ch, nil
}

// A publisher sends events. It implements system.Publisher.
type publisher struct {
	conn *amqp091.Connection
	ch   *amqp091.Channel
}

func newPublisher(address string) (*publisher, error) {
	conn, ch, err := open(address)
	if err != nil {
		return nil, err
	}
	return &publisher{conn, ch}, nil
}

// Address returns "": subscribers connect to the server.
func (p *publisher) Address() string { return "" }

// Ready returns at once: a subscriber waits for the server's word that it is subscribed.
func (p *publisher) Ready(context.Context) error { return nil }

// Publish sends the event. The server stops reading when its queues cannot keep up.
func (p *publisher) Publish(event []byte) error {
	return p.ch.PublishWithContext(context.Background(), exchange, "", false, false, amqp091.Publishing{Body: event})
}

// Flush does nothing: the client writes each event at once.
func (p *publisher) Flush() error { return nil }

// Close ends the connection.
func (p *publisher) Close() error { return p.conn.Close() }

// A subscriber receives events. It implements system.Reporter.
type subscriber struct {
	conn  *amqp091.Connection
	gone  chan *amqp091.Error // why the connection broke
	ended chan struct{}       // closed when the goroutine that reads has ended
}

func subscribe(address string, deliver func(event []byte)) (*subscriber, error) {
	conn, ch, err := open(address)
	if err != nil {
		return nil, err
	}
	s := &subscriber{conn: conn, gone: conn.NotifyClose(make(chan *amqp091.Error, 1)), ended: make(chan struct{})}
	queue, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err == nil {
		err = ch.QueueBind(queue.Name, "", exchange, false, nil)
	}
	var deliveries <-chan amqp091.Delivery
	if err == nil {
		deliveries, err = ch.Consume(queue.Name, "", true, true, false, false, nil)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	go func() {
		defer close(s.ended)
		for d := range deliveries {
			deliver(d.Body)
		}
	}()
	return s, nil
}

// Report says whether the connection broke.
func (s *subscriber) Report() (facts string, err error) {
	select {
	case gone := <-s.gone:
		if gone != nil {
			return "", gone
		}
	default:
	}
	return "", nil
}

// Close ends the connection.
func (s *subscriber) Close() error {
	err := s.conn.Close()
	<-s.ended
	return err
}
