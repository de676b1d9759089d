package rabbitbus

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	dialTimeout = 5 * time.Second
	heartbeat   = 8 * time.Second // a connection that is silent for half as much more is given up
	amqpFrame   = 128 << 10       // of AMQP's own frames; it is what the server proposes unless configured
)

// dial opens a connection to s. It ends with ctx at the latest.
func (s *server) dial(ctx context.Context, settings *tls.Config, title string) (*amqp.Connection, error) {
	socket, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	bare := socket
	context.AfterFunc(ctx, func() { bare.Close() })
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
	c, err := amqp.Open(socket, amqp.Config{
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
