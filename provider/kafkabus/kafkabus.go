// Package kafkabus carries frames over Kafka: a topic for each site, a record for each frame.
//
// # Configuration
//
// [Config] names brokers and credentials. Every instance of a site uses the same cluster. The topic of the site with the ID S is
// carillon-S; [Config.Prefix] replaces the first word. It is made when it is missing and this user may: with the partitions and replicas that
// [Config] or else the brokers say, and with [Config.Retention] (10 minutes). An operator who makes it himself chooses these, with
// cleanup.policy=delete and compression.type=uncompressed: Start refuses a topic that is compacted, which would forget frames, and one that compresses, as
// nothing is unpacked here. An instance needs the rights to describe, read and write the topic, and to create it unless it is there; what accepts
// other sites needs to describe and read theirs.
//
// # Delivery
//
// Frames of one instance arrive in order, each once. The key of a record is the stream, so that all frames of an instance are in one partition; it keeps
// to that partition when others are added. There are no consumer groups and no offsets are committed: each instance reads every partition, from
// the end that it found before Start returned. Send returns when all replicas in sync have the frames, which then survive a restart of the brokers.
// An instance does not hear itself: it knows its own records by a header, and drops them after they have made the way.
//
// When the connection breaks, the instance goes on where it was. So an outage loses nothing, up to the retention: what was deleted before the
// instance came back is lost, and it continues at the earliest there is. The same goes for what an unclean election of a leader, or somebody who deletes the
// topic, takes away. In all these cases, and after every new connection, the Broker hears it through Reconnected, and repairs. While brokers are away Send
// fails, after 5 s at most, and keeps nothing for later.
//
// # Limits
//
// A frame has at most [Config.MaxFrameBytes], 32 KiB by default. The topic must take batches of 256 KiB, and of a frame (max.message.bytes, 1 MiB unless changed).
// New partitions, a deleted topic and a right that was taken away are noticed after 5 s at most.
//
// # Requirements
//
// Brokers of Kafka 2.4 or later; before 3.0 the user also needs IdempotentWrite on the cluster. Tested with franz-go 1.22.2 against kfake, the broker that
// comes with it for tests, and against nothing else: no real Kafka could be had where this was written.
package kafkabus

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

// name is what operators know this transport by.
const name = "kafka"

var _ provider.MemberWatcher = (*Provider)(nil)

// A Provider is one instance's place on a Kafka cluster. It is safe for concurrent use. Use [New] to make one.
type Provider struct {
	cfg     settings  // read-only
	options []kgo.Opt // of every client; what they hold of credentials, they hold in functions
	tag     tag       // in all records of this instance
	place   place     // where they go

	positions positions // used by connect and by the link there is, one after the other
	keeper    *uplink.Keeper[*link]
}

// New checks cfg and returns a Provider that is not started. An error names the field that is wrong; it never holds a password.
func New(cfg Config) (*Provider, error) {
	s, options, err := cfg.check()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: s, options: options}
	rand.Read(p.tag[:])
	p.place.move(hex.EncodeToString(p.tag[:8])) // until the stream is known
	p.keeper = uplink.New(uplink.Options[*link]{
		Name:           name,
		MaxFrameBytes:  s.maxFrameBytes,
		Connect:        p.connect,
		AttemptTimeout: attemptTimeout,
	})
	return p, nil
}

// Name returns "kafka".
func (p *Provider) Name() string { return name }

// Capabilities implements [provider.Provider].
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{MaxFrameBytes: p.cfg.maxFrameBytes, Ordered: true, Durable: true}
}

// Start implements [provider.Provider]. It fails if no broker answers, if credentials are refused, if a right is missing, and if the topic of the site is
// neither there nor may be made, or cannot carry frames. It has written to the topic and read from it when it returns nil.
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	return p.keeper.Start(ctx, env)
}

// Send implements [provider.Provider]. It waits until the replicas in sync have the frames, for 5 s at most.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error { return l.send(ctx, frames) })
}

// SetMembers implements [provider.MemberWatcher]. From the next Send on, records have the stream as their key.
func (p *Provider) SetMembers(m provider.Members) { p.place.move(m.Self.String()) }

// Close implements [provider.Provider].
func (p *Provider) Close() error { return p.keeper.Close() }

// topic returns the topic of a site.
func (p *Provider) topic(s site.ID) string { return p.cfg.prefix + "-" + s.String() }
