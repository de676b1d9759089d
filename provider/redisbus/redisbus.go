// Package redisbus carries frames through the pub/sub of a Redis server, or of
// one that speaks its protocol, such as Valkey.
//
// # Configuration
//
// [Config.URL] names the server, its Sentinels, or nodes of a Cluster;
// [Config.Client] brings a client that the application has already. All
// instances of a site use the same server and the same [Config.Prefix].
// Every site has one channel for all its instances, prefix:SITE:all, and each instance one for
// what is meant for it alone, prefix:SITE:to:STREAM.
//
// # Delivery
//
// Frames of one sender arrive in order, each at most once. Send hands the frames of a batch over in one
// pipeline and waits for the server's word that it has taken all of them, never for a receiver. While the
// server is away Send fails, and nothing is kept for later: the Broker sends it again.
//
// Redis keeps nothing for those who are not connected. It also disconnects a subscriber
// that falls behind by more than client-output-buffer-limit allows: by default 32 MB at
// once, or 8 MB for a minute. That is how messages are lost. Receivers pace the senders so that
// no more than 3 MiB of others' frames are on the way to one, which with the echo of as much of its
// own stays below the smaller limit, for as long as it takes anything at all. A connection that breaks is made again, at once and then at
// growing intervals up to 5 s; once subscribed again the Broker is told, and asks for what it missed.
//
// Redis sends every message to all subscribers of its channel, the sender included. So each begins with 8 random
// bytes that say through which connection it was sent; an instance drops its own when it has compared these. To
// claim that the transport echoes would have saved their copying, and cost the Broker a look into
// each of its own frames. The bytes are new for each connection, so that of two copies of one process, which keep only
// one of the connections, each hears what the other sends.
//
// With [Config.Keep] what is sent to all goes through a Redis stream for each site instead, and waits there for those whose
// connection is away: they read on where they were. Senders wait for the same answer of the server, which now holds the frames; whether it still does after a restart depends on
// its appendonly and appendfsync, so Durable is not claimed. What has waited for longer than Keep frames is gone, and the Broker asks for it. An instance that
// starts begins with what comes next.
//
// # Limits
//
// A frame has [Config.MaxFrameBytes] at most, and 1 MiB in any case. Whoever may publish in
// the channels makes every instance receive what he sends; the Broker's seals see to it that it does no harm, an ACL that
// he cannot. In a Cluster every message goes to all nodes, so nodes add no throughput; and what is meant for an instance at
// another node goes to everybody, since nodes count only their own subscribers.
//
// # Requirements
//
// Redis 6 or later, at its primary: what is published at a replica is not heard at the primary. The user needs
// the commands PUBLISH, SUBSCRIBE and PING and the channels prefix:*; with Keep, XADD, XREAD, XREVRANGE and EXPIRE and the keys prefix:* as well. Tested against Redis 7.0.15.
//
// The client is rueidis. Of go-redis it was to be preferred for three reasons: a dedicated connection tells when it ends, where the
// other subscribes again by itself and leaves it to be guessed from a second confirmation; it is probed in the
// background, where the other's probes come only with a queue that drops messages; and one form of URL covers
// servers, Sentinels and Clusters.
package redisbus

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

const (
	name = "redis"

	// streamsName is the name with [Config.Keep], so that a site can use both while it moves.
	streamsName = "redisstreams"
)

// receiveBufferBytes is what may be on its way to an instance: with the echo of as
// much of its own, and Redis' bookkeeping, it stays below the 8 MB that a subscriber
// may be behind for long.
const receiveBufferBytes = 3 << 20

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
)

// A Provider is one instance's connection to the server. It is safe for concurrent use.
// Use [New] to make one.
type Provider struct {
	cfg    Config // without its URL
	source source

	keeper *uplink.Keeper[*link]

	turn   int // which of source.options is next; of connect alone
	echo   echo
	places places // with Config.Keep

	// delivering is held while Deliver runs: with Config.Keep there are two who do, and to the Broker they are one connection.
	delivering sync.Mutex

	members atomic.Pointer[members]
	changed chan struct{} // holds one token while members may be newer than the subscriptions
	batches sync.Pool     // *batch
}

// members is what SetMembers said: who this instance is, and which streams belong to another site than its own.
type members struct {
	self    site.StreamID
	foreign map[site.StreamID]site.ID
}

// New returns a Provider that is not connected yet. An error names the field of cfg.
func New(cfg Config) (*Provider, error) {
	cfg, source, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: cfg, source: source, changed: make(chan struct{}, 1)}
	p.batches.New = func() any { return new(batch) }
	p.keeper = uplink.New(uplink.Options[*link]{Name: name, MaxFrameBytes: cfg.MaxFrameBytes, Connect: p.connect})
	return p, nil
}

// Name returns "redis", or "redisstreams" with [Config.Keep].
func (p *Provider) Name() string {
	if p.cfg.Keep > 0 {
		return streamsName
	}
	return name
}

// Format implements [fmt.Formatter] for every verb: it names the transport, so that no setting is printed.
func (p *Provider) Format(f fmt.State, _ rune) { io.WriteString(f, "redisbus.Provider") }

// Capabilities implements [provider.Provider]. A client of the application's that knows a Cluster
// publishes at any of its nodes, so then no order is claimed.
func (p *Provider) Capabilities() provider.Capabilities {
	cluster := p.cfg.Client != nil && p.cfg.Client.Mode() == rueidis.ClientModeCluster
	return provider.Capabilities{MaxFrameBytes: p.cfg.MaxFrameBytes, Ordered: !cluster}
}

// Start implements [provider.Provider]. It returns when the server has confirmed the
// subscription, and has taken a message that holds no frame, so that a missing right shows here.
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	return p.keeper.Start(ctx, env)
}

// SetMembers implements [provider.MemberWatcher]. The channels that it asks for are subscribed to soon after.
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

// toAll is the channel of all instances of a site.
func (p *Provider) toAll(s site.ID) string { return p.cfg.Prefix + ":" + s.String() + ":all" }

// toOne is the channel of one instance.
func (p *Provider) toOne(s site.ID, stream site.StreamID) string {
	return p.cfg.Prefix + ":" + s.String() + ":to:" + stream.String()
}

// Close implements [provider.Provider]. What Send accepted the server has taken, so there is nothing to flush.
func (p *Provider) Close() error { return p.keeper.Close() }
