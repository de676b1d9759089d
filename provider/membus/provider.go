package membus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// ErrCut is returned by Send and SendTo between [Provider.Cut] and [Provider.Heal].
var ErrCut = errors.New("membus: the link is cut")

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
)

// A Provider is one instance's place on a Bus. It is safe for concurrent use.
// Use [Bus.Provider] to make one.
type Provider struct {
	bus   *Bus
	addr  string // what others see as Batch.From
	queue queue  // what others sent and Deliver has not been given yet

	self atomic.Pointer[site.StreamID] // set by SetMembers; nil before
	cut  atomic.Bool

	mu      sync.Mutex // guards the fields below; not held while calling out
	started bool
	closed  bool
	quit    chan struct{} // closed by Close; nil before Start
	done    chan struct{} // closed by the goroutine of receive when it ends
}

// Name returns "mem".
func (p *Provider) Name() string { return "mem" }

// Capabilities implements [provider.Provider].
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{Ordered: true, Prompt: true}
}

// Start implements [provider.Provider].
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mem: start: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return provider.ErrClosed
	case p.started:
		return errors.New("mem: started twice; make one Provider per instance")
	}
	p.started = true
	p.quit, p.done = make(chan struct{}), make(chan struct{})
	p.queue.open()
	go p.receive(env, p.quit, p.done)
	p.bus.attach(p)
	return nil
}

// receive hands what is queued to env until quit is closed, then closes done.
func (p *Provider) receive(env provider.Env, quit <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	var overflow overflow
	for {
		select {
		case <-quit:
			return
		case <-p.queue.wake:
		}
		// Close empties the queue, so it waits for the Deliver that runs and for no
		// further one.
		for it, ok := p.queue.next(); ok; it, ok = p.queue.next() {
			if it.reconnected {
				env.Reconnected()
			} else {
				env.Deliver(provider.Batch{Frames: it.frames, From: it.from})
			}
			overflow.report(env.Logger, p.queue.refused())
		}
	}
}

// overflow remembers what was said about a full queue, so that a flood is one line a
// second.
type overflow struct {
	frames uint64
	next   time.Time
}

func (o *overflow) report(log *slog.Logger, dropped uint64) {
	if dropped == o.frames || time.Now().Before(o.next) {
		return
	}
	o.frames, o.next = dropped, time.Now().Add(time.Second)
	log.LogAttrs(context.Background(), slog.LevelWarn, "receive queue full, frames dropped",
		slog.Uint64("dropped", dropped))
}

// Send implements [provider.Provider]. It never waits.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	if err := p.ready(ctx); err != nil {
		return err
	}
	if len(frames) == 0 {
		return nil
	}
	it := item{frames: slices.Clone(frames), from: p.addr}
	for _, to := range p.bus.receivers() {
		if to != p {
			to.accept(it)
		}
	}
	return nil
}

// SendTo implements [provider.Unicaster]. It never waits.
func (p *Provider) SendTo(ctx context.Context, stream site.StreamID, frames [][]byte) error {
	if err := p.ready(ctx); err != nil {
		return err
	}
	to := p.bus.find(stream)
	if to == nil || to == p || to.cut.Load() {
		return fmt.Errorf("mem: send to %v: %w", stream, provider.ErrUnreachable)
	}
	if len(frames) > 0 {
		to.accept(item{frames: slices.Clone(frames), from: p.addr})
	}
	return nil
}

// ready says why p cannot send, if it cannot.
func (p *Provider) ready(ctx context.Context) error {
	p.mu.Lock()
	started, closed := p.started, p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return provider.ErrClosed
	case !started:
		return errors.New("mem: send before start")
	case p.cut.Load():
		return ErrCut
	}
	return ctx.Err()
}

// accept queues what another Provider sent.
func (p *Provider) accept(it item) {
	if !p.cut.Load() {
		p.queue.put(it)
	}
}

// SetMembers implements [provider.MemberWatcher].
func (p *Provider) SetMembers(m provider.Members) {
	self := m.Self
	p.self.Store(&self)
}

// Cut takes p off the Bus: what others send does not reach it, what it
// had not delivered yet is lost, and its own Send returns [ErrCut]. Cutting twice is fine.
func (p *Provider) Cut() {
	p.cut.Store(true)
	p.queue.clear()
}

// Heal puts p back on the Bus after [Provider.Cut] and tells its Broker, through Reconnected,
// that frames may have been lost. Without a Cut before, it does nothing.
func (p *Provider) Heal() {
	if p.cut.CompareAndSwap(true, false) {
		p.queue.put(item{reconnected: true})
	}
}

// Close implements [provider.Provider]. What Send accepted is in the queues of
// its receivers already, so there is nothing to flush.
func (p *Provider) Close() error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	quit, done := p.quit, p.done
	p.mu.Unlock()
	if quit == nil {
		return nil
	}
	if first {
		p.bus.detach(p)
		p.queue.close()
		close(quit)
	}
	<-done
	return nil
}
