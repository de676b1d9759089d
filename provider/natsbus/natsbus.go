// Package natsbus carries frames over NATS, a message a frame: a [Provider] through subjects of its core, a [JetStream] through
// streams that keep them for a while. What follows is of the first; that type says where the second differs.
//
// # Configuration
//
// [Config] names the servers and the credentials, or brings a connection that the application has. Every instance of a site
// uses the same servers, or servers of one cluster, in the same account. With S as the site's ID, the rights that an
// instance needs are to publish and to subscribe to carillon.S.all and carillon.S.to.*; [Config.Prefix] replaces the first word. What accepts other
// sites needs to subscribe to their carillon.S.all, and to publish to their carillon.S.to.*.
//
// # Delivery
//
// At most once. Frames of one instance to all arrive in order, and so do those to one; between the two kinds there is no order. An instance
// does not hear itself, unless it uses a connection that the application brought without nats.NoEcho: then Echoes is claimed.
//
// Frames are lost in five ways, of all of which the Broker learns from a gap or from Reconnected, and repairs: with a connection that breaks, what
// was on its way in either direction; while it is away, what others send, since the server keeps nothing (Send returns an error meanwhile, and the client
// buffers nothing); where this instance does not take what arrives, what exceeds [Config.ReceiveBytes], counted by [Provider.Dropped], though senders are paced so that
// this does not happen; where its process stands still for longer than the server's write_deadline (10 s) or for more
// than its max_pending (64 MiB), everything until it is connected again, for the server then closes the connection; and where rights are missing.
//
// # Limits
//
// A frame has at most [Config.MaxFrameBytes], 32 KiB by default. Start fails if that is more than the server's max_payload. What waits for
// this instance is bounded by [Config.ReceiveBytes].
//
// # Requirements
//
// A NATS server, or several in a cluster, of which each tells the others of a subscription some milliseconds after it has confirmed it; for [JetStream], with that switched on. Tested against
// nats-server 2.15.2, alone and as a cluster of two, with nats.go 1.55.0.
package natsbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// name is what operators know this transport by.
const name = "nats"

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
)

const (
	flushTimeout = time.Second     // for Close
	answerWithin = 5 * time.Second // for one round trip to the server, where nobody set another limit

	followPatience = 100 * time.Millisecond
)

// A Provider is one instance's place on a NATS system. It is safe for concurrent use. Use [New] to make one.
type Provider struct {
	cfg     settings      // read-only, and without secrets
	brought *nats.Conn    // of the application; nil: the connection is our own
	options []nats.Option // of our own connection; what they hold of credentials, they hold in functions

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // of Start and of the goroutine that it began

	env  provider.Env               // read-only after Start
	conn atomic.Pointer[connection] // nil before Start; replaced by the goroutine of watch, if nats.go gives it up

	trouble atomic.Pointer[trouble] // why nothing can be sent now; nil: it can
	wake    chan struct{}           // holds a token when the goroutine of watch has something to do

	inbox   inbox
	members atomic.Pointer[members]

	closing sync.Mutex // held by Close, so that every Close waits

	mu    sync.Mutex // guards state; not held while calling out
	state state
}

type state uint8

const (
	stateNew state = iota
	stateStarting
	stateStarted
	stateClosed
)

// New checks cfg and returns a Provider that is not started. An error names the field that is wrong; it never holds
// a credential. It reads the file of [Config.NKeyFile], if that is set.
func New(cfg Config) (*Provider, error) {
	s, options, err := cfg.check()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: s, brought: cfg.Conn, options: options, wake: make(chan struct{}, 1)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p, nil
}

// Name returns "nats".
func (p *Provider) Name() string { return name }

// Format implements [fmt.Formatter] for every verb: it names the transport, so that no setting is printed.
func (p *Provider) Format(f fmt.State, _ rune) { io.WriteString(f, "natsbus.Provider") }

// Capabilities implements [provider.Provider].
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		MaxFrameBytes: p.cfg.maxFrameBytes,
		Ordered:       true,
		Echoes:        p.brought != nil && !p.brought.Opts.NoEcho,
	}
}

// Dropped returns how many frames the client dropped because this instance did not take what arrived, since Start.
func (p *Provider) Dropped() uint64 { return p.inbox.droppedFrames() }

// Start implements [provider.Provider]. It fails if no server answers, if the credentials are refused, if a right is missing, and if the server takes
// no frames of [Config.MaxFrameBytes].
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("nats: start: %w", err)
	}
	if err := p.begin(); err != nil {
		return err
	}
	defer p.wg.Done()
	p.env = env
	starting := p.fail(errors.New("nats: it is not started yet"))
	if err := p.open(ctx); err != nil {
		p.inbox.close()
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case p.state == stateClosed:
			return provider.ErrClosed
		case ctx.Err() != nil:
			return fmt.Errorf("nats: start: %w", ctx.Err())
		}
		return err
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == stateClosed {
		return provider.ErrClosed // Close takes down what was made
	}
	p.state = stateStarted
	env.ReceiveBuffer(p.cfg.receiveBytes)
	p.trouble.CompareAndSwap(starting, nil) // or else the connection broke already, and watch mends it
	p.wg.Go(p.watch)
	return nil
}

// begin makes sure that Start is called once, and counts it as running.
func (p *Provider) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.state {
	case stateNew:
		p.state = stateStarting
		p.wg.Add(1)
		return nil
	case stateClosed:
		return provider.ErrClosed
	}
	return errors.New("nats: started twice; make one Provider per instance")
}

// open connects and subscribes. What it has made when it fails, it takes down.
func (p *Provider) open(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	c, err := p.connect(ctx)
	if err != nil {
		return err
	}
	p.conn.Store(c)
	if err := p.subscribeAll(ctx, c); err != nil {
		p.shut()
		return err
	}
	return nil
}

// subscribeAll subscribes over a new connection, and sees to it that everything is allowed that has to be.
func (p *Provider) subscribeAll(ctx context.Context, c *connection) error {
	if limit := c.MaxPayload(); limit < int64(p.cfg.maxFrameBytes) {
		return payloadError(limit, p.cfg.maxFrameBytes)
	}
	before := c.LastError()
	if err := p.listen(); err != nil {
		return fmt.Errorf("nats: subscribe: %w", err)
	}
	if err := p.probe(""); err != nil {
		return err
	}
	return p.settled(ctx, before)
}

// settled waits until the server has taken what was subscribed and published, and returns what it refused since the last
// error was before.
func (p *Provider) settled(ctx context.Context, before error) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	c := p.conn.Load()
	if err := c.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("nats: the server does not answer: %w", err)
	}
	if err := c.LastError(); errors.Is(err, nats.ErrPermissionViolation) && err != before {
		return explain(err)
	}
	return nil
}

// SetMembers implements [provider.MemberWatcher]. The subscription for what is sent to this instance alone is made before the next Send
// of this instance, so that whoever hears from it can reach it. It waits for that, but not for the network, which may keep nats.go's mutex: 0.1 s at most.
func (p *Provider) SetMembers(m provider.Members) {
	is := p.setMembers(m)
	p.poke()
	if !p.runs() || p.trouble.Load() != nil {
		return
	}
	patience := time.NewTimer(followPatience)
	defer patience.Stop()
	select {
	case <-is.followed:
	case <-patience.C:
	case <-p.ctx.Done():
	}
}

func (p *Provider) runs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == stateStarted
}

// poke wakes the goroutine of watch.
func (p *Provider) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Close implements [provider.Provider]. A connection that the application brought stays open, and keeps its handlers.
func (p *Provider) Close() error {
	p.mu.Lock()
	was := p.state
	p.state = stateClosed
	p.mu.Unlock()
	p.closing.Lock()
	defer p.closing.Unlock()
	c := p.conn.Load()
	if was == stateStarted && p.trouble.Load() == nil {
		p.flush(c)
	}
	p.stop()
	if c != nil { // the goroutine of watch may wait for one who waits for the server
		defer time.AfterFunc(followPatience, c.hangUp).Stop()
	}
	p.wg.Wait()
	p.shut()
	return nil
}

// flush waits until the server has taken what was sent, for a second at most.
func (p *Provider) flush(c *connection) {
	defer time.AfterFunc(flushTimeout, c.hangUp).Stop() // who waits to write keeps everybody else waiting
	if err := c.FlushTimeout(flushTimeout); err != nil {
		p.env.Logger.LogAttrs(context.Background(), slog.LevelDebug, "not all was flushed", slog.String("error", err.Error()))
	}
}

// shut ends all deliveries and subscriptions, and our own connection. Calling it twice is fine.
func (p *Provider) shut() {
	if p.ctx.Err() != nil {
		p.inbox.close()
	}
	c := p.conn.Load()
	if c == nil {
		return
	}
	p.inbox.unsubscribe(!c.own())
	c.shut()
}

// site returns the subjects of a site.
func (p *Provider) site(s site.ID) subjects { return subjects{p.cfg.prefix + "." + s.String()} }

// subjects are those of one site.
type subjects struct{ root string }

func (s subjects) all() string                    { return s.root + ".all" }
func (s subjects) to(stream site.StreamID) string { return s.root + ".to." + stream.String() }
