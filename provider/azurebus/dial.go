package azurebus

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// A dialer makes a connection for the SDK, which has a place for that: it was made for WebSockets.
type dialer = func(ctx context.Context, args azservicebus.NewWebSocketConnArgs) (net.Conn, error)

const (
	portTLS   = "5671"
	portPlain = "5672"

	// A connection that is silently dead is given up after some 25 s.
	probeIdle     = 10 * time.Second
	probeInterval = 5 * time.Second
	probeCount    = 3
)

// dialer returns what connects to the host that the SDK names: as it does itself, unless the application knows better.
func (c Config) dialer(plain bool) dialer {
	if c.NewWebSocketConn != nil {
		return c.NewWebSocketConn
	}
	settings := c.TLS.Clone()
	if settings == nil {
		settings = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return func(ctx context.Context, args azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
		u, err := url.Parse(args.Host)
		if err != nil {
			return nil, err
		}
		port := u.Port()
		if port == "" {
			port = portTLS
			if plain {
				port = portPlain
			}
		}
		d := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: probeIdle, Interval: probeInterval, Count: probeCount}}
		address := net.JoinHostPort(u.Hostname(), port)
		if plain {
			return d.DialContext(ctx, "tcp", address)
		}
		return (&tls.Dialer{NetDialer: d, Config: settings}).DialContext(ctx, "tcp", address)
	}
}

var errReplaced = errors.New("azure: the connection is lost")

// A wire is the one connection of a link. The SDK makes a new one by itself when it loses one, and tells nobody; this makes
// sure that it cannot, so that what was lost is told to the Broker.
type wire struct {
	dial dialer
	lost chan struct{} // closed when the connection cannot be used any more

	mu   sync.Mutex // guards the fields below
	conn net.Conn
	used bool  // there was a connection, or is to be none
	err  error // why it was lost
}

func newWire(dial dialer) *wire { return &wire{dial: dial, lost: make(chan struct{})} }

// connect is the dialer of the SDK.
func (w *wire) connect(ctx context.Context, args azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
	w.mu.Lock()
	used := w.used
	w.used = true
	w.mu.Unlock()
	if used {
		return nil, errReplaced
	}
	nc, err := w.dial(ctx, args)
	if err != nil {
		w.fail(err)
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil { // hung up meanwhile
		nc.Close()
		return nil, w.err
	}
	w.conn = nc
	return &tapped{nc, w}, nil
}

// fail notes why the connection is lost, and closes it. Only the first reason counts.
func (w *wire) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.used, w.err = true, err
	if w.conn != nil {
		w.conn.Close()
	}
	close(w.lost)
}

// hangUp ends the connection, and whatever waits for it.
func (w *wire) hangUp() { w.fail(errReplaced) }

// why returns the reason of the loss.
func (w *wire) why() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// tapped is a connection whose loss is noticed.
type tapped struct {
	net.Conn
	wire *wire
}

func (t *tapped) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if err != nil {
		t.wire.fail(err)
	}
	return n, err
}

func (t *tapped) Write(b []byte) (int, error) {
	n, err := t.Conn.Write(b)
	if err != nil {
		t.wire.fail(err)
	}
	return n, err
}
