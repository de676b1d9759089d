package rabbitbus

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	dialTimeout = 5 * time.Second
	heartbeat   = 8 * time.Second // a connection that is silent for half as much more is given up
	amqpFrame   = 128 << 10       // of AMQP's own frames; it is what the server proposes unless configured
	corkBytes   = 64 << 10
)

// A connection is one to the server, in AMQP, on a socket whose writes can be gathered.
type connection struct {
	*amqp.Connection
	socket *corked
}

// dial opens a connection to s. It ends with ctx at the latest.
func (s *server) dial(ctx context.Context, settings *tls.Config, title string) (*connection, error) {
	socket, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { socket.Close() })
	if s.tls {
		secure := tls.Client(socket, s.tlsConfig(settings))
		if err := secure.HandshakeContext(ctx); err != nil {
			socket.Close()
			return nil, err
		}
		socket = secure
	}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(title)
	c := &connection{socket: &corked{Conn: socket}}
	c.Connection, err = amqp.Open(c.socket, amqp.Config{
		SASL:       []amqp.Authentication{&amqp.PlainAuth{Username: s.user, Password: s.password}},
		Vhost:      s.vhost,
		Heartbeat:  heartbeat,
		FrameSize:  amqpFrame,
		Locale:     "en_US",
		Properties: properties,
	})
	if err != nil {
		socket.Close()
		return nil, err
	}
	return c, nil
}

func (s *server) tlsConfig(settings *tls.Config) *tls.Config {
	if settings == nil {
		settings = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	settings = settings.Clone()
	if settings.ServerName == "" {
		settings.ServerName = s.host
	}
	return settings
}

// A corked is a socket that can hold back what is written, since the client library writes each message by itself, and a
// system call for each would cost more than all the rest. It is safe for concurrent use.
type corked struct {
	net.Conn

	mu   sync.Mutex
	on   bool
	held []byte
}

// Write implements [net.Conn].
func (c *corked) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on {
		return c.Conn.Write(b)
	}
	if len(c.held)+len(b) > corkBytes {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
		if len(b) > corkBytes/2 {
			return c.Conn.Write(b)
		}
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

// cork holds back what is written from now on, 64 KiB of it at most.
func (c *corked) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = true
}

// uncork writes what was held back.
func (c *corked) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = false
	return c.flushLocked()
}

// flushLocked writes what is held back. c.mu is held.
func (c *corked) flushLocked() error {
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.held)
	c.held = c.held[:0]
	return err
}
