// Package tcpbus carries frames over TCP: a full mesh of connections between
// the instances of a site, which find each other through their member rows.
//
// # Configuration
//
// The zero [Config] works: the system chooses a port, the member row tells the
// others, and who is there comes from the member rows as well, so instances may come
// and go. Where the rows cannot tell, [Config.Endpoints] lists host:port pairs
// instead. Addresses outside [Config.AllowNetworks] are neither dialled nor let in.
//
// # Delivery
//
// Frames of one sender arrive in order, each at most once. Every other instance has a
// queue of its own, which exists from the moment its member row or its
// connection is known, whether it is connected or not; a slow or dead one
// fills its own queue and delays nobody. What no longer fits is dropped for that
// instance alone, counted and logged. When a connection breaks, what the
// kernel had taken and not delivered is lost; what waited in the queue is not.
//
// Both ends of every connection prove that they hold a key of the site before
// anything else is read or sent. That keeps strangers out; it does not hide
// or protect what follows: the Broker's seals, or TLS, do that.
//
// # Limits
//
// A frame sent has at most [Config.MaxFrameBytes], a frame received at most
// 1 MiB. A sender writes once per peer, so beyond a few dozen instances
// a transport with a message broker of its own costs less.
//
// # Requirements
//
// Every instance reaches every other one, in at least one direction, at the
// address that its member row advertises. TLS, where configured, is version 1.3.
package tcpbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// name is the key of our addresses in member rows.
const name = "tcp"

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.Advertiser    = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
)

// A Provider is one instance's part of the mesh. It is safe for concurrent use.
// Use [New] to make one.
type Provider struct {
	cfg      Config
	lim      limits
	dialWith func(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) // tests put a network between

	// Set by Start and read-only afterwards.
	env      provider.Env
	log      *slog.Logger
	ln       net.Listener
	addrs    []string       // what Addresses returns
	networks []netip.Prefix // who may connect, and which advertised addresses are dialled
	ctx      context.Context
	cancel   context.CancelFunc

	conns sync.Pool      // *[]*conn, of Send
	tasks sync.WaitGroup // every goroutine; added to only while state is started or by one of them

	mu       sync.Mutex // guards the fields below and those of peers, targets and conns; not held while calling out
	state    state
	self     site.StreamID // zero until the first SetMembers
	selfSet  chan struct{} // closed by the first SetMembers
	peers    map[site.StreamID]*peer
	gone     streamSet                  // streams whose member rows went away; they never return
	targets  []*target                  // of Config.Endpoints
	proving  map[site.StreamID]bool     // peers to which a dial of ours has sent its proof and has no answer yet
	dials    map[[nonceLen]byte]*target // hellos under way to endpoints, to notice our own
	unproven unproven                   // connections that came in
	lastConn uint64                     // number of the newest connection
	refused  [reasonCount]refusals
	dropped  uint64        // frames dropped for peers that are gone by now
	settled  chan struct{} // poked when Close may have one thing less to wait for
	closed   chan struct{} // closed when the first Close is through
	records  []record      // what to log once mu is not held
}

// A record is a line of the log.
type record struct {
	level slog.Level
	msg   string
	attrs []slog.Attr
}

// logLocked logs when p.mu is unlocked with unlock: whoever writes the log may
// want to know who is connected. p.mu is held.
func (p *Provider) logLocked(level slog.Level, msg string, attrs ...slog.Attr) {
	p.records = append(p.records, record{level, msg, attrs})
}

// unlock unlocks p.mu and writes what logLocked was given.
func (p *Provider) unlock() {
	log, records := p.log, p.records
	p.records = nil
	p.mu.Unlock()
	for _, r := range records {
		log.LogAttrs(context.Background(), r.level, r.msg, r.attrs...)
	}
}

// state is where a Provider is in its life. It only grows.
type state uint8

const (
	stateNew     state = iota
	stateStarted       // between a Start that succeeds and Close
	stateClosing       // Close flushes: nothing new is taken, nobody let in
	stateClosed
)

// New returns a Provider that is not connected yet. It checks cfg and copies
// it; an error names the field.
func New(cfg Config) (*Provider, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Provider{
		cfg: cfg,
		lim: defaultLimits,
		dialWith: func(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", address)
		},
		selfSet: make(chan struct{}),
		peers:   make(map[site.StreamID]*peer),
		proving: make(map[site.StreamID]bool),
		dials:   make(map[[nonceLen]byte]*target),
		settled: make(chan struct{}, 1),
		closed:  make(chan struct{}),
	}, nil
}

// Name returns "tcp".
func (p *Provider) Name() string { return name }

// Capabilities implements [provider.Provider]. The channel counts as secure when
// TLS is configured: the handshake proves that the far end of that very TLS
// connection holds a key of the site.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		MaxFrameBytes: p.cfg.MaxFrameBytes,
		Ordered:       true,
		SecureChannel: p.cfg.TLS != nil,
		Prompt:        true,
	}
}

// Start implements [provider.Provider]. Connections are made once SetMembers has said
// who this instance is; until then those that come in wait.
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("tcp: start: %w", err)
	}
	p.mu.Lock()
	defer p.unlock()
	switch p.state {
	case stateNew:
	case stateStarted:
		return errors.New("tcp: started twice; make one Provider per instance")
	default:
		return provider.ErrClosed
	}
	p.env, p.log = env, env.Logger
	if err := p.listen(ctx); err != nil {
		return err
	}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.state = stateStarted
	p.tasks.Go(p.acceptAll)
	p.logLocked(slog.LevelInfo, "listening", slog.String(keyAddress, p.ln.Addr().String()), slog.Any(keyAdvertised, p.addrs))
	return nil
}

// Addresses implements [provider.Advertiser].
func (p *Provider) Addresses() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.addrs)
}

// SetMembers implements [provider.MemberWatcher]. A member without an address of this
// transport becomes a peer only when it connects. One whose row went away stays one while it is
// connected, for a minute at most, and is not let in again. When m.Self has changed,
// all connections are closed and made again under the new stream.
func (p *Provider) SetMembers(m provider.Members) {
	p.mu.Lock()
	defer p.unlock()
	if p.state != stateStarted {
		return
	}
	p.becomeLocked(m.Self)
	there := make(map[site.StreamID]bool, len(m.Others))
	addresses := make(map[string]bool, len(m.Others))
	for i := range m.Others {
		o := &m.Others[i]
		if o.Stream == m.Self || o.Stream == (site.StreamID{}) || len(o.Addresses[name]) == 0 {
			continue
		}
		there[o.Stream] = true
		pe := p.peers[o.Stream]
		if pe == nil {
			pe = p.addPeerLocked(o.Stream)
		}
		p.listLocked(pe, o.Addresses[name])
		for _, a := range pe.addresses {
			addresses[a] = true
		}
	}
	for _, pe := range p.peers {
		if pe.listed && !there[pe.stream] {
			p.unlistLocked(pe)
		}
		if pe.gone {
			pe.replaced = slices.ContainsFunc(pe.addresses, func(a string) bool { return addresses[a] })
		}
	}
}

// becomeLocked makes self the stream of this instance. p.mu is held.
func (p *Provider) becomeLocked(self site.StreamID) {
	if self == p.self {
		return
	}
	first := p.self == site.StreamID{}
	p.self = self
	if first {
		close(p.selfSet)
		for _, e := range p.cfg.Endpoints {
			p.targets = append(p.targets, p.startTargetLocked(site.StreamID{}, []string{e}))
		}
		return
	}
	// What is queued stays queued. Dials that are under way notice by themselves.
	for _, pe := range p.peers {
		if pe.cur != nil {
			pe.cur.endLocked(modeStop, p.lim.drain)
		}
	}
}

// Send implements [provider.Provider]. It never waits.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	conns, err := p.queueForAll(ctx, frames)
	for i, c := range conns {
		c.writeNow()
		conns[i] = nil
	}
	p.conns.Put(&conns)
	return err
}

// queueForAll queues frames for every peer and returns the connections to write to.
func (p *Provider) queueForAll(ctx context.Context, frames [][]byte) ([]*conn, error) {
	p.mu.Lock()
	defer p.unlock()
	var conns []*conn
	if had, ok := p.conns.Get().(*[]*conn); ok {
		conns = (*had)[:0]
	}
	if err := p.mayLocked(ctx, frames); err != nil {
		return conns, err
	}
	for _, pe := range p.peers {
		if !pe.wantedLocked() {
			continue
		}
		p.putLocked(pe, frames)
		if pe.cur != nil {
			conns = append(conns, pe.cur)
		}
	}
	return conns, nil
}

// SendTo implements [provider.Unicaster]. It never waits.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	c, err := p.queueFor(ctx, to, frames)
	if c != nil {
		c.writeNow()
	}
	return err
}

// queueFor queues frames for one peer and returns its connection, if it has one.
func (p *Provider) queueFor(ctx context.Context, to site.StreamID, frames [][]byte) (*conn, error) {
	p.mu.Lock()
	defer p.unlock()
	if err := p.mayLocked(ctx, frames); err != nil {
		return nil, err
	}
	pe := p.peers[to]
	if pe == nil || !pe.wantedLocked() {
		return nil, fmt.Errorf("tcp: send to %v: %w", to, provider.ErrUnreachable)
	}
	p.putLocked(pe, frames)
	return pe.cur, nil
}

// mayLocked says why frames are not taken, if they are not. p.mu is held.
func (p *Provider) mayLocked(ctx context.Context, frames [][]byte) error {
	switch p.state {
	case stateNew:
		return errors.New("tcp: send before start")
	case stateStarted:
	default:
		return provider.ErrClosed
	}
	for _, f := range frames {
		if len(f) > p.cfg.MaxFrameBytes {
			return fmt.Errorf("tcp: a frame of %d bytes, at most %d are sent: %w", len(f), p.cfg.MaxFrameBytes, provider.ErrFrameTooLarge)
		}
	}
	return ctx.Err()
}

// putLocked queues frames for pe and drops what does not fit. p.mu is held.
func (p *Provider) putLocked(pe *peer, frames [][]byte) {
	before := pe.queue.dropped()
	pe.queue.put(frames)
	if now := time.Now(); pe.queue.dropped() != before && now.Sub(pe.warned) >= time.Second {
		pe.warned = now
		p.logLocked(slog.LevelWarn, "queue of a peer is full, newest frames dropped",
			slog.Any(keyStream, pe.stream), slog.Uint64(keyDropped, pe.queue.dropped()), slog.Bool(keyConnected, pe.cur != nil))
	}
}

// Close implements [provider.Provider]. It gives connected peers a second to
// take what is queued for them, and those that are being dialled for the
// first time as well.
func (p *Provider) Close() error {
	p.mu.Lock()
	switch p.state {
	case stateNew:
		p.state = stateClosed
		close(p.closed)
		p.mu.Unlock()
		return nil
	case stateStarted:
	default:
		p.mu.Unlock()
		<-p.closed
		return nil
	}
	p.state = stateClosing
	p.ln.Close()
	p.unproven.closeAll()
	for _, pe := range p.peers {
		if pe.cur != nil {
			pe.cur.endLocked(modeFlush, p.lim.flush)
		}
	}
	p.pokeTargetsLocked()
	p.mu.Unlock()

	p.awaitFlushed()

	p.mu.Lock()
	p.state = stateClosed
	p.cancel()
	for _, pe := range p.peers {
		if pe.forget != nil {
			pe.forget.Stop()
		}
		if pe.cur != nil {
			pe.cur.raw.Close()
		}
	}
	p.mu.Unlock()
	p.tasks.Wait()
	close(p.closed)
	return nil
}

// awaitFlushed returns when nothing is left that waiting could still send, or
// when the time for it is over.
func (p *Provider) awaitFlushed() {
	end := time.NewTimer(p.lim.flush)
	defer end.Stop()
	for {
		p.mu.Lock()
		busy := false
		for _, pe := range p.peers {
			busy = busy || pe.cur != nil || !pe.queue.empty() && pe.hopefulLocked(p.targets)
		}
		p.mu.Unlock()
		if !busy {
			return
		}
		select {
		case <-p.settled:
		case <-end.C:
			return
		}
	}
}

// poke leaves one token in ch, a channel of capacity 1 that somebody waits at.
func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
