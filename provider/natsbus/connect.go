package natsbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/site"
)

// A connection is one to the servers, with what tells how it is.
type connection struct {
	*nats.Conn
	status chan nats.Status // every change; closed by shut
	dialer *dialer          // of our own connection; nil: it is the application's
	ended  chan struct{}    // closed when our own connection has ended
	once   sync.Once        // of shut
}

func (c *connection) own() bool { return c.dialer != nil }

// hangUp breaks our own connection, so that nobody waits for the server any longer.
func (c *connection) hangUp() {
	if c.own() {
		c.dialer.hangUp()
	}
}

// shut ends our own connection, and stops listening to the application's. It waits for those who call p.heard.
func (c *connection) shut() {
	c.once.Do(func() {
		defer time.AfterFunc(flushTimeout, c.hangUp).Stop()
		c.RemoveStatusListener(c.status)
		if c.own() {
			c.Close()
			<-c.ended
		}
	})
}

// connect returns a connection that is up: a new one, or the application's.
func (p *Provider) connect(ctx context.Context) (*connection, error) {
	if p.brought != nil {
		if !p.brought.IsConnected() {
			return nil, fmt.Errorf("nats: the application's connection is %v; connect it before the Broker starts", p.brought.Status())
		}
		p.wrapErrorHandler()
		return &connection{Conn: p.brought, status: p.brought.StatusChanged()}, nil
	}
	d := &dialer{ctx: ctx, lost: func() { p.fail(errLost) }}
	ended := make(chan struct{})
	conn, err := d.connect(ctx, p.cfg.servers, p.env.Site, append(p.options[:len(p.options):len(p.options)],
		nats.ErrorHandler(p.heard),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { p.fail(p.unreachable(err)) }),
		nats.ClosedHandler(func(*nats.Conn) { close(ended) })))
	if err != nil {
		return nil, err
	}
	d.use(p.ctx)
	return &connection{Conn: conn, status: conn.StatusChanged(), dialer: d, ended: ended}, nil
}

// connect returns a connection whose sockets d dials, with these options.
func (d *dialer) connect(ctx context.Context, servers string, of site.ID, options []nats.Option) (*nats.Conn, error) {
	all := nats.GetDefaultOptions()
	for _, set := range append(options, nats.Name("carillon "+of.String()), nats.SetCustomDialer(d)) {
		if err := set(&all); err != nil {
			return nil, fmt.Errorf("nats: set up the connection: %w; check CredentialsFile and NKeyFile", err)
		}
	}
	// nats.go knows no context: whatever it waits for while it connects, it waits for on the connection.
	defer context.AfterFunc(ctx, d.hangUp)()
	conn, err := all.Connect()
	switch dialled := d.failure(); {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, nats.ErrNoServers) && dialled != nil:
		err = dialled // nats.go forgets why
	}
	return nil, unreachable(servers, err)
}

// wrapErrorHandler hears of errors on the application's connection, which goes on hearing of them itself.
func (p *Provider) wrapErrorHandler() {
	before := p.brought.ErrorHandler()
	p.brought.SetErrorHandler(func(conn *nats.Conn, sub *nats.Subscription, err error) {
		if p.ctx.Err() == nil {
			p.heard(conn, sub, err)
		}
		if before != nil {
			before(conn, sub, err)
		}
	})
}

// A dialer makes the connections of one nats.Conn, one at a time, and can break the one in use.
type dialer struct {
	lost func() // told when a connection was closed, at once

	mu   sync.Mutex // guards the fields below
	ctx  context.Context
	conn net.Conn
	err  error // of the last attempt
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	ctx := d.ctx
	d.mu.Unlock()
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	if err != nil {
		return nil, err
	}
	d.conn = conn
	if d.ctx.Err() != nil { // hangUp came while it was not there yet
		conn.Close()
	}
	return &link{Conn: conn, lost: d.lost}, nil
}

// use makes further connections depend on ctx.
func (d *dialer) use(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ctx = ctx
}

func (d *dialer) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// hangUp breaks the connection, so that nobody waits for it any longer.
func (d *dialer) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close()
	}
}

// A link is a connection that tells when it is given up: nats.go tells it later, when it may be holding everybody up for the
// next attempt to connect. One that cannot be written to is given up as well: nats.go would go on, without a subscription that it could not write.
type link struct {
	net.Conn
	lost func()
}

// Write writes b.
func (l *link) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	if err != nil {
		l.Close()
	}
	return n, err
}

// Close closes the connection.
func (l *link) Close() error {
	l.lost()
	return l.Conn.Close()
}
