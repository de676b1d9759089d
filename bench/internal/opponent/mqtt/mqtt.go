//go:build linux

// Package mqtt carries events through an MQTT server, a message each.
package mqtt

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/eclipse/paho.golang/paho"

	"github.com/carillon-go/carillon/bench/internal/opponent/module"
	"github.com/carillon-go/carillon/bench/internal/opponent/mqtt/mosquitto"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const topic = "events"

// Systems returns the one.
func Systems() []system.System {
	return []system.System{{
		Name:  "mqtt",
		Title: "MQTT 5 (mosquitto, paho.golang " + module.Version("github.com/eclipse/paho.golang") + ")",
		Note:  "QoS 0, at most once; " + mosquitto.Settings,
		Serve: mosquitto.Serve,
		Publish: func(ctx context.Context, _ system.Spec, address string) (system.Publisher, error) {
			c, err := connect(ctx, address, "publisher", nil)
			if err != nil {
				return nil, err
			}
			return publisher{c}, nil
		},
		Subscribe: subscribe,
	}}
}

// A client is a connection to the server.
type client struct {
	*paho.Client
	mu     sync.Mutex // guards failed
	failed error      // why the connection broke
}

func (c *client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = err
	}
}

// connect returns a client. deliver, if not nil, is given what arrives.
func connect(ctx context.Context, address, id string, deliver func(event []byte)) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &client{}
	c.Client = paho.NewClient(paho.ClientConfig{
		Conn: conn,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			if deliver != nil {
				deliver(r.Packet.Payload)
			}
			return true, nil
		}},
		OnClientError:      c.fail,
		OnServerDisconnect: func(d *paho.Disconnect) { c.fail(fmt.Errorf("mqtt: the server disconnected: reason %d", d.ReasonCode)) },
	})
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 60}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("mqtt: connect: %w", err)
	}
	return c, nil
}

// Report says whether the connection broke.
func (c *client) Report() (facts string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return "", c.failed
}

// Close ends the connection.
func (c *client) Close() error { return c.Disconnect(&paho.Disconnect{}) }

// A publisher sends events. It implements system.Publisher.
type publisher struct{ *client }

// Address returns "": subscribers connect to the server.
func (p publisher) Address() string { return "" }

// Ready returns at once: a subscriber waits for the server's word that it is subscribed.
func (p publisher) Ready(context.Context) error { return nil }

// Publish sends the event.
func (p publisher) Publish(event []byte) error {
	_, err := p.Client.Publish(context.Background(), &paho.Publish{Topic: topic, Payload: event})
	return err
}

// Flush does nothing: the client writes each event at once.
func (p publisher) Flush() error { return nil }

// subscribe returns when the server has confirmed the subscription.
func subscribe(ctx context.Context, _ system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
	c, err := connect(ctx, address, "", deliver)
	if err != nil {
		return nil, err
	}
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic}}}); err != nil {
		c.Close()
		return nil, fmt.Errorf("mqtt: subscribe: %w", err)
	}
	return c, nil
}
