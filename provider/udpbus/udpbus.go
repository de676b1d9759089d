// Package udpbus carries frames as UDP datagrams: by multicast, by broadcast in
// a subnet, or to a list of addresses.
//
// # Configuration
//
// The zero [Config] sends to the multicast group [DefaultGroup], port
// [DefaultPort], on the interface that leads to the site database. Group and port
// must be the same in all instances of a site. Several sites may share
// them: each drops what is not its own.
//
// # Delivery
//
// One datagram per frame, sent once, whatever the number of instances. Nothing is repeated,
// ordered or acknowledged: datagrams may be lost, overtaken or
// doubled, and the Broker, which numbers them, notices. Instances on one machine hear each
// other; none hears itself. What the kernel's buffer cannot hold is lost; its size is told through
// Env.ReceiveBuffer, so that senders are paced. When the interface goes
// away, Send fails; when it is back, or has another address, the group is joined
// again and Reconnected is called.
//
// Datagrams travel in the clear, and anybody in reach can send and read
// them. What a stranger sends fails the Broker's check.
//
// # Limits
//
// A frame sent has at most [Config.MaxFrameBytes], 1,200 by default, so that it
// passes everywhere without IP fragmentation, which is switched off, and 65,000 on the
// loopback interface. Frames received may have any length. Multicast and broadcast end at the next router unless TTL
// and the network are set up for more, and few clouds pass them at all.
//
// # Requirements
//
// Multicast needs an interface of the network shared by the instances; a switch
// with IGMP snooping needs an IGMP querier. The kernel should grant a receive
// buffer of 4 MiB (Linux: net.core.rmem_max); what it granted is logged. With less senders wait more often. Unicast
// needs a port of its own for each instance on a machine.
//
// Developed and tested on Linux, where many datagrams cross into the kernel at once, and those of one length
// in one piece, if the interface takes that. Elsewhere they are sent and received one by one.
package udpbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// name is what operators know this transport by.
const name = "udp"

var _ provider.Provider = (*Provider)(nil)

// A Provider is one instance's place on the network. It is safe for concurrent
// use. Use [New] to make one.
type Provider struct {
	cfg Config // with defaults; read-only

	// What a test replaces before Start.
	interfaces func() ([]nic, error)
	localAddr  func() (netip.Addr, error) // of the route to the group
	lookup     func(ctx context.Context, host string) ([]netip.Addr, error)
	poll       time.Duration // between two looks at the interface
	refresh    time.Duration // between two looks at the names in Peers

	env  provider.Env    // read-only after Start
	log  *slog.Logger    // never nil after Start
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // of the goroutines that Start began

	link     atomic.Pointer[link]             // nil while the interface is away
	away     atomic.Pointer[error]            // why link was nil the last time
	peers    atomic.Pointer[[]netip.AddrPort] // in unicast mode: what Peers resolved to
	resolved map[string][]netip.Addr          // what each name in Peers stood for the last time
	suspect  chan struct{}                    // holds a token when sending says that the interface is not what it was

	mu     sync.Mutex // guards state; not held while calling out
	state  state
	sendMu sync.Mutex // guards out; held while the kernel takes datagrams
	out    outbox

	lost reporter // datagrams that the network refused
}

type state uint8

const (
	stateNew state = iota
	stateStarting
	stateStarted
	stateClosed
)

// New checks cfg and returns a Provider that is not started. An error names the
// field that is wrong.
func New(cfg Config) (*Provider, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Provider{
		cfg:        cfg,
		interfaces: systemInterfaces,
		lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		poll:     time.Second,
		refresh:  30 * time.Second,
		suspect:  make(chan struct{}, 1),
		resolved: make(map[string][]netip.Addr),
	}
	p.localAddr = func() (netip.Addr, error) { return routeTo(netip.AddrPortFrom(cfg.Group, uint16(cfg.Port))) }
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p, nil
}

// Name returns "udp".
func (p *Provider) Name() string { return name }

// Capabilities implements [provider.Provider]. Networks double datagrams now and
// then, so Redelivers is claimed.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{MaxFrameBytes: p.cfg.MaxFrameBytes, Redelivers: true, Prompt: true}
}

// Start implements [provider.Provider]. It fails if the interface is not there or the
// port is taken, and waits for nothing but the names in [Config.Peers].
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("udp: start: %w", err)
	}
	if err := p.begin(); err != nil {
		return err
	}
	p.env, p.log = env, env.Logger
	if p.cfg.Mode == Unicast {
		if err := p.resolve(ctx); err != nil {
			return err
		}
	}
	on, err := p.choose()
	if err != nil {
		return p.failed(err)
	}
	l, err := p.open(on)
	if err != nil {
		return p.failed(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == stateClosed {
		l.close()
		return provider.ErrClosed
	}
	p.state = stateStarted
	p.use(l)
	p.wg.Go(p.watch)
	if p.cfg.Mode == Unicast && p.hasNames() {
		p.wg.Go(p.refreshPeers)
	}
	return nil
}

// begin makes sure that Start is called once.
func (p *Provider) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.state {
	case stateNew:
		p.state = stateStarting
		return nil
	case stateClosed:
		return provider.ErrClosed
	}
	return errors.New("udp: started twice; make one Provider per instance")
}

// failed adds what was tried to the error of Start.
func (p *Provider) failed(err error) error {
	if e, ok := errors.AsType[*placeError](err); ok {
		return fmt.Errorf("udp: %s on %w", p.cfg.what(), e)
	}
	return fmt.Errorf("udp: %s: %w", p.cfg.what(), err)
}

// Close implements [provider.Provider]. The kernel has taken what Send has
// accepted, so there is nothing to flush.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.state = stateClosed
	p.mu.Unlock()
	p.stop()
	if l := p.link.Load(); l != nil {
		l.close()
	}
	// From here on nobody puts a link in place: watch looks at state before it does.
	p.wg.Wait()
	return nil
}
