// Package uplink is what transports on a server have in common: an instance's
// connection to that server, made at Start, made again whenever it breaks, and taken
// down at Close. It keeps the rules of [provider.Provider] that concern the life of a transport,
// so that one on NATS or on PostgreSQL need only say how to connect and how to send:
//
//	type Provider struct {
//		keeper *uplink.Keeper[*link] // link is yours: connected and subscribed
//	}
//
//	func New(cfg Config) *Provider {
//		p := &Provider{}
//		p.keeper = uplink.New(uplink.Options[*link]{Name: "example", MaxFrameBytes: 32 << 10, Connect: p.connect})
//		return p
//	}
//
//	func (p *Provider) Start(ctx context.Context, env provider.Env) error { return p.keeper.Start(ctx, env) }
//	func (p *Provider) Close() error                                      { return p.keeper.Close() }
//	func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
//		return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error { return l.publish(ctx, frames) })
//	}
//
// A client library that makes its own connection again, and keeps its subscriptions, needs none of this.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// A Link is what is between an instance and the server for as long as it holds: one connection, or several that are replaced together.
type Link interface {
	// Wait blocks until the link can be used no longer, and returns why; or until ctx ends. It is called once. What
	// must be done meanwhile, such as to follow the members, may be done in it.
	Wait(ctx context.Context) error

	// Close releases everything; no goroutine of the link is left when it returns. It is called once, when Wait has
	// returned, perhaps beside a Send that still uses the link. If ctx has not ended yet, the instance is stopping: what Send
	// accepted is flushed and what the server keeps for the instance is removed, until ctx ends. If it has, the link was lost, and what
	// the server keeps is wanted by the next one.
	Close(ctx context.Context)
}

// Options say how a [Keeper] works. Name and Connect are required.
type Options[L Link] struct {
	Name          string // of the provider: begins its errors
	MaxFrameBytes int    // of a frame that Send takes; 0 means no limit

	// Connect returns a link that is subscribed, with the server's word for it, and has
	// tried out the rights that sending needs. ctx bounds this alone, and ends with Close too. When it fails
	// it leaves nothing behind. One call runs at a time. env is that of Start, but its Deliver, Disconnected and Reconnected do nothing
	// once Close has begun, and Close waits for those that run.
	Connect func(ctx context.Context, env provider.Env) (L, error)

	AttemptTimeout time.Duration // bounds Connect when a link is replaced; 0 means 10 s
}

const (
	firstPause   = 50 * time.Millisecond // between two attempts; the pauses double from here
	lastPause    = 5 * time.Second       // up to here
	flushTimeout = time.Second           // of the last link
)

// A Keeper keeps one instance linked to the server. It is safe for concurrent use. Use [New] to make one.
type Keeper[L Link] struct {
	options Options[L]
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	tasks   sync.WaitGroup // of Start and of keep
	env     provider.Env   // set by Start and read-only afterwards
	gate    gate

	mu    sync.Mutex // guards the fields below; not held while calling out
	state state
	link  L     // valid while away is nil and state is stateStarted
	away  error // why there is no link
}

// state is where a Keeper is in its life. It only grows.
type state uint8

const (
	stateNew state = iota
	stateStarting
	stateStarted
	stateClosed
)

// New returns a Keeper that is not started.
func New[L Link](o Options[L]) *Keeper[L] {
	if o.AttemptTimeout == 0 {
		o.AttemptTimeout = 10 * time.Second
	}
	k := &Keeper[L]{options: o}
	k.ctx, k.stop = context.WithCancel(context.Background())
	return k
}

// Start does what Start of a [provider.Provider] must: it connects for the first time. What Connect says of its failure it returns as it is.
func (k *Keeper[L]) Start(ctx context.Context, env provider.Env) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: start: %w", k.options.Name, err)
	}
	if err := k.begin(); err != nil {
		return err
	}
	defer k.tasks.Done()
	k.env = k.gate.guard(env)
	l, err := k.connect(ctx)
	if err != nil {
		switch {
		case k.ctx.Err() != nil:
			return provider.ErrClosed
		case ctx.Err() != nil:
			return fmt.Errorf("%s: start: %w before the server answered; is it up, and the network to it?", k.options.Name, ctx.Err())
		}
		return err
	}
	if !k.use(l) {
		k.release(l)
		return provider.ErrClosed
	}
	k.tasks.Go(func() { k.keep(l) })
	return nil
}

// begin makes sure that Start is called once, and counts it as running.
func (k *Keeper[L]) begin() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch k.state {
	case stateNew:
		k.state = stateStarting
		k.tasks.Add(1)
		return nil
	case stateClosed:
		return provider.ErrClosed
	}
	return fmt.Errorf("%s: started twice; make one Provider per instance", k.options.Name)
}

// connect calls Connect with a ctx that ends with Close too.
func (k *Keeper[L]) connect(ctx context.Context) (L, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.ctx, cancel)()
	return k.options.Connect(ctx, k.env)
}

// use makes l the link that Send uses, unless Close has been called.
func (k *Keeper[L]) use(l L) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == stateClosed {
		return false
	}
	k.state, k.link, k.away = stateStarted, l, nil
	return true
}

// lose makes Send fail with err.
func (k *Keeper[L]) lose(err error) {
	var none L
	k.mu.Lock()
	k.link, k.away = none, err
	k.mu.Unlock()
}

// release closes l; with time to flush if that is because of Close.
func (k *Keeper[L]) release(l L) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if k.ctx.Err() == nil {
		cancel()
	}
	l.Close(ctx)
}

// keep replaces l whenever it breaks, until Close.
func (k *Keeper[L]) keep(l L) {
	for {
		err := l.Wait(k.ctx)
		if err == nil {
			err = errors.New("the link ended")
		}
		k.lose(err)
		stopped := k.ctx.Err() != nil
		k.release(l)
		if stopped {
			return
		}
		k.env.Disconnected(err)
		k.env.Logger.LogAttrs(k.ctx, slog.LevelWarn, "connection lost, frames may be missed", slog.Any("error", err))
		var ok bool
		if l, ok = k.reconnect(); !ok {
			return
		}
	}
}

// reconnect tries until there is a link, which it returns, or until Close.
func (k *Keeper[L]) reconnect() (l L, ok bool) {
	began := time.Now()
	var said string
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		// All instances lose a server at the same moment, and shall not return at the same.
		wait := time.NewTimer(rand.N(pause))
		select {
		case <-wait.C:
		case <-k.ctx.Done():
			wait.Stop()
			return l, false
		}
		ctx, cancel := context.WithTimeout(k.ctx, k.options.AttemptTimeout)
		l, err := k.connect(ctx)
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%s: no answer within %v: %w", k.options.Name, k.options.AttemptTimeout, err)
		}
		cancel()
		switch {
		case err == nil && k.use(l):
			k.env.Logger.LogAttrs(k.ctx, slog.LevelInfo, "subscribed again", slog.Duration("after", time.Since(began)))
			k.env.Reconnected()
			return l, true
		case err == nil:
			k.release(l)
			return l, false
		case k.ctx.Err() != nil:
			return l, false
		}
		k.lose(err)
		if err.Error() != said {
			said = err.Error()
			k.env.Disconnected(err)
			k.env.Logger.LogAttrs(k.ctx, slog.LevelWarn, "cannot connect, trying on", slog.Any("error", err))
		}
	}
}

// Env returns what Start was given, with the functions that Connect gets. It is valid once Start has returned.
func (k *Keeper[L]) Env() provider.Env { return k.env }

// Link returns the link that there is just now.
func (k *Keeper[L]) Link() (l L, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.link, k.state == stateStarted && k.away == nil
}

// Send does what Send and SendTo of a [provider.Provider] must: it calls fn with the link that there is, and with a ctx that ends with Close too.
// Where fn may not be called it says why: [provider.ErrClosed], [provider.ErrFrameTooLarge], the error of ctx, or why there is no link. It
// returns what fn returned, or whichever of Close and ctx interrupted it. An empty batch is not sent.
func (k *Keeper[L]) Send(ctx context.Context, frames [][]byte, fn func(ctx context.Context, l L) error) error {
	k.mu.Lock()
	l, state, away := k.link, k.state, k.away
	k.mu.Unlock()
	switch state {
	case stateNew, stateStarting:
		return fmt.Errorf("%s: send before start", k.options.Name)
	case stateClosed:
		return provider.ErrClosed
	}
	for _, f := range frames {
		if limit := k.options.MaxFrameBytes; limit > 0 && len(f) > limit {
			return fmt.Errorf("%s: a frame of %d bytes, at most %d are sent: %w", k.options.Name, len(f), limit, provider.ErrFrameTooLarge)
		}
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: send: %w", k.options.Name, ctx.Err())
	case len(frames) == 0:
		return nil
	case away != nil:
		return away
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.ctx, cancel)()
	err := fn(both, l)
	switch {
	case err == nil:
		return nil
	case k.ctx.Err() != nil:
		return provider.ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("%s: send: %w", k.options.Name, ctx.Err())
	}
	return err
}

// Close does what Close of a [provider.Provider] must.
func (k *Keeper[L]) Close() error {
	k.mu.Lock()
	k.state = stateClosed
	k.mu.Unlock()
	k.stop()
	k.gate.shut()
	k.tasks.Wait()
	return nil
}
