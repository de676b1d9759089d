// Package azurebus carries frames through Azure Service Bus: a topic for each site, and in it a subscription for each instance.
//
// # Configuration
//
// [Config] names the namespace and either a key, in a connection string, or an identity. With the right to manage, an instance
// makes the topic and its subscription itself, and removes the subscription when it is closed; the topic stays. With the rights to send and to listen alone, the
// topic and a subscription for each instance are made beforehand, and [Config.Subscription] names it.
//
// # Delivery
//
// At least once, without order. A message is stored when Send returns, and waits in the subscription of each instance for [Config.TimeToLive] at most. It is
// taken under a lock and acknowledged when the Broker has taken its events; with a connection that breaks before, it comes again after half a minute, and the Broker knows it. An instance
// does not get what it has sent, and what is for one instance alone, only that one gets: a rule of the subscription sees to both at the service.
//
// Frames are lost when an instance is away for longer than TimeToLive, or for longer than [Config.DeleteWhenIdle], which is when the service removes its subscription. It makes a
// new one of the same name then, also when somebody has removed it by hand, and the Broker is told by Reconnected.
//
// # Limits
//
// A frame has at most [Config.MaxFrameBytes], 32 KiB by default; as many as fit travel in one message of up to 252 KiB. Each operation is charged for, so an idle instance is
// silent: IdleHeartbeat is negative. Names are hashed where they are too long. Of subscriptions a topic has at most 2,000; of those who connect at once, a namespace has 5,000.
//
// # Requirements
//
// A namespace of the Standard or Premium tier, since Basic has no topics. Ports 5671 and 443 open to the outside, or 443 alone with [Config.NewWebSocketConn].
// Tested against an emulator on loopback, which is in the folder emulator, with azservicebus 1.11.0; not against Azure.
package azurebus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

// name is what operators know this transport by.
const name = "azure"

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
	_ provider.Cleaner       = (*Provider)(nil)
)

// reorderDelay is for how long a message may be behind others: the SDK gives back what arrives while it is
// not asked for more, and the service delivers it again.
const reorderDelay = 250 * time.Millisecond

// A Provider is one instance's place in a namespace. It is safe for concurrent use. Use [New] to make one.
type Provider struct {
	cfg       settings
	lookEvery time.Duration // at a subscription in which nothing arrives
	keeper    *uplink.Keeper[*link]

	members atomic.Pointer[map[site.StreamID]member]
	strange atomic.Uint64

	mu   sync.Mutex   // held while the subscription is made or removed
	made bool         // it is to be removed
	env  provider.Env // of Start; valid while made
}

// A member is where another instance is reached.
type member struct {
	site         site.ID
	subscription string
}

// New checks cfg and returns a Provider that is not started. An error names the field that is wrong; it never holds a key.
func New(cfg Config) (*Provider, error) {
	s, err := cfg.check()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: s, lookEvery: s.deleteWhenIdle / 3}
	p.keeper = uplink.New(uplink.Options[*link]{Name: name, MaxFrameBytes: s.maxFrameBytes, Connect: p.connect})
	return p, nil
}

// Name returns "azure".
func (p *Provider) Name() string { return name }

// Capabilities implements [provider.Provider].
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		MaxFrameBytes: p.cfg.maxFrameBytes,
		Redelivers:    true,
		Durable:       true,
		IdleHeartbeat: -1,
		ReorderDelay:  reorderDelay,
	}
}

// Strange returns how many messages were dropped, since New, because no instance can have sent them.
func (p *Provider) Strange() uint64 { return p.strange.Load() }

// Start implements [provider.Provider]. It fails if the namespace does not answer, if the key or the identity is refused, and if a right is missing.
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	return p.keeper.Start(ctx, env)
}

// connect is the Keeper's way to a link.
func (p *Provider) connect(ctx context.Context, env provider.Env) (*link, error) {
	p.mu.Lock()
	first := p.cfg.owned && !p.made
	if first {
		p.made, p.env = true, env // whatever becomes of it
	}
	p.mu.Unlock()
	if first {
		if err := p.make(ctx, env); err != nil {
			p.takeBack()
			return nil, p.explain(err)
		}
	}
	l, err := p.open(ctx, env)
	switch {
	case err != nil && first:
		p.takeBack()
	case isNotFound(err) && p.cfg.owned: // somebody has removed it, or it was idle for too long
		if err := p.make(ctx, env); err != nil {
			return nil, p.explain(err)
		}
		return p.open(ctx, env)
	}
	return l, err
}

// takeBack removes the subscription if this instance has made it.
func (p *Provider) takeBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made {
		p.made = false
		p.unmake(p.env)
	}
}

// Close implements [provider.Provider]. It removes the subscription.
func (p *Provider) Close() error {
	err := p.keeper.Close()
	p.takeBack()
	return err
}

// Addresses implements [provider.Advertiser]: it returns the name of the subscription.
func (p *Provider) Addresses() []string { return []string{p.cfg.subscription} }

// SetMembers implements [provider.MemberWatcher].
func (p *Provider) SetMembers(m provider.Members) {
	all := make(map[site.StreamID]member, len(m.Others))
	for _, other := range m.Others {
		if names := other.Addresses[name]; len(names) > 0 {
			all[other.Stream] = member{other.Site, names[0]}
		}
	}
	p.members.Store(&all)
}

func (p *Provider) find(stream site.StreamID) (m member, ok bool) {
	if all := p.members.Load(); all != nil {
		m, ok = (*all)[stream]
	}
	return m, ok
}

// accepted returns the sites whose frames are accepted, each once.
func accepted(env provider.Env) []site.ID {
	all := []site.ID{env.Site}
	for _, s := range env.Sites {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// topics returns those of the sites whose frames are accepted.
func (p *Provider) topics(env provider.Env) (all []string) {
	for _, s := range accepted(env) {
		all = append(all, topicOf(p.cfg.prefix, s))
	}
	return all
}

var errDetached = errors.New("the service detaches the receiver again and again")

// String returns the name of the subscription.
func (p *Provider) String() string { return fmt.Sprintf("azure: %s", p.cfg.subscription) }
