// Package rabbitbus carries frames through RabbitMQ.
//
// # Configuration
//
// [Config.URLs] names the server, or the nodes of a cluster. All instances of a site use the same virtual
// host and the same [Config.Prefix]. Every site has a direct exchange, prefix.SITE, which is made by whoever comes first and stays. Every
// instance has a queue, prefix.SITE.RANDOM, bound with the key "all" and with "to.STREAM", which is for what is meant
// for it alone. Close deletes the queue; that of an instance that died the server deletes after [Config.QueueExpiry].
//
// # Delivery
//
// Frames of one sender arrive in order. Send writes the frames of a batch one behind the other and waits, once, until the server
// has confirmed that all of them are in the queues of all who listen, and for no receiver. A receiver acknowledges what
// the Broker has put where it belongs, or counted as dropped. So what was under way when a connection broke comes again, once it is
// restored, and what others sent meanwhile has waited in the queue: a short interruption loses nothing, and makes repetitions, which the Broker drops.
//
// A frame is lost in four ways. The server is killed: frames are kept in its memory, unless [Config.Persistent] says otherwise;
// exchanges and queues are durable, so that whatever is sent as soon as it is back waits for those who are not. An instance
// takes nothing until more than [Config.QueueBytes] wait: the oldest go, so that nobody can fill the server; senders are paced so that this
// happens to nobody who takes anything at all. An instance stays away for longer than QueueExpiry. Somebody deletes its queue. After each of
// them the Broker is told to ask for what it missed.
//
// Frames are not persistent by default, as that buys little: it makes Send wait for a disk, while the
// instances have kept what they sent, and send it again.
//
// RabbitMQ sends an instance's own frames to its queue as well. So each message names in its property app-id the connection through which it was
// sent, with 8 random bytes; an instance drops its own when it has compared these.
//
// A server that is short of memory or disk takes nothing from anybody. Send then fails at once, and says so; what it has it still
// delivers, which is why an instance receives through a connection of its own.
//
// # Limits
//
// A frame is a message of [Config.MaxFrameBytes] at most, and 1 MiB in any case. Whoever may write to the
// exchange makes every instance receive what he sends; the Broker's seals see to it that it does no harm, permissions that
// he cannot. The queue of an instance is at one node of a cluster. When that node is down the instance connects to another and begins a new queue there. That a
// queue is out of reach, or has crashed, is no reason for Send to fail, which would be one for all; whoever has it, misses the frame and asks for it.
//
// # Requirements
//
// RabbitMQ 3.8 or later. The user needs the permissions to configure, to write and to read what begins with "prefix."; the error of
// Start has the command that grants what is missing. Tested against RabbitMQ 3.10.8, one node, with amqp091-go 1.16.0. Its own recovery of connections and
// topology is not used: it announces neither the gap nor, while it tries, the reason.
package rabbitbus

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

const name = "rabbit"

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
)

// A Provider is one instance's connection to the server. It is safe for concurrent use. Use [New] to make one.
type Provider struct {
	cfg     Config // without its URLs
	servers []*server
	keeper  *uplink.Keeper[*link]

	members atomic.Pointer[members]
	changed chan struct{} // holds one token while members may be newer than what the queue is bound to
	own     ownTags
	sent    atomic.Uint64 // calls of SendTo
	failed  atomic.Uint64 // attempts to connect; chooses the server that is next

	queue string // of connect alone, which runs once at a time: what the server keeps for this instance; the same from one link to the next, as long as it can be had. Empty: a new one
}

// members is what SetMembers said: who this instance is, and which streams belong to another site than its own.
type members struct {
	self    site.StreamID
	foreign map[site.StreamID]site.ID
}

// New returns a Provider that is not connected yet. An error names the field of cfg.
func New(cfg Config) (*Provider, error) {
	cfg, servers, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: cfg, servers: servers, changed: make(chan struct{}, 1)}
	p.keeper = uplink.New(uplink.Options[*link]{Name: name, MaxFrameBytes: cfg.MaxFrameBytes, Connect: p.connect})
	return p, nil
}

// Name returns "rabbit".
func (p *Provider) Name() string { return name }

// Format names the transport, with every verb, so that no setting is printed.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprint(f, "rabbitbus.Provider") }

// LogValue implements [slog.LogValuer].
func (p *Provider) LogValue() slog.Value { return slog.StringValue("rabbitbus.Provider") }

// Capabilities implements [provider.Provider]. What was not acknowledged when a connection broke comes once more.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{MaxFrameBytes: p.cfg.MaxFrameBytes, Ordered: true, Redelivers: true, Durable: p.cfg.Persistent}
}

// Start implements [provider.Provider]. When it returns the server has a queue for this instance, and has taken a message of the
// largest length that no queue is bound to, so that a missing right or a lower limit shows here.
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	return p.keeper.Start(ctx, env)
}

// Close implements [provider.Provider]. The queue goes with the instance. What Send accepted the server has confirmed, so there is nothing to flush.
func (p *Provider) Close() error { return p.keeper.Close() }

// SetMembers implements [provider.MemberWatcher]. The queue is bound to what this asks for soon after.
func (p *Provider) SetMembers(m provider.Members) {
	own := p.keeper.Env().Site
	next := &members{self: m.Self}
	for i := range m.Others {
		if o := &m.Others[i]; o.Site != own {
			if next.foreign == nil {
				next.foreign = make(map[site.StreamID]site.ID)
			}
			next.foreign[o.Stream] = o.Site
		}
	}
	p.members.Store(next)
	select {
	case p.changed <- struct{}{}:
	default:
	}
}
