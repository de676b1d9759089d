// Package awsbus carries frames through Amazon SNS and SQS: a topic for each site, and a queue for each instance.
//
// # Configuration
//
// [Config.AWS] is what config.LoadDefaultConfig of the AWS SDK returns: credentials and a region. All instances of a site use
// the same account, region and [Config.Prefix]. Topics and queues are made and removed by the instances themselves:
// prefix-SITE is the topic, prefix-SITE-INSTANCE the queue of an instance, whose last part is random. The topic stays. docs/providers.md
// has the policy that grants the rights.
//
// # Delivery
//
// At least once, in no order, usually within some tens of milliseconds. Send waits until SNS has taken the batch, and for no receiver. Frames are packed: as many as
// make 64 KiB, which is charged for as one request, go as one message, in base64url, since a message is text. (A binary attribute would hold a third more, and needs
// a text beside it all the same; that SNS passes on such large ones unchanged could not be tried.) Two attributes, from and to, tell who sent it and whom it is for;
// by them each subscription filters, so that an instance neither hears itself nor what is for another. A filter policy may take effect late, and a topic may have only so
// many: the instance compares the attributes as well.
//
// A message is deleted when every event in it is in the queues of its subscribers: up to ten at a time, and those of them
// that fail again. What was received and not deleted comes again after 30 s. Frames are lost where the queue is deleted by hand, where nobody
// receives for ten minutes, and where SNS gives up delivering. Whenever a call to receive breaks off, what it carried stays away for 30 s; so
// the Broker is told, and asks for it.
//
// Durable is not claimed. SQS keeps messages in several places, says Amazon; an emulator can prove nothing of the kind.
//
// # Limits
//
// A message has 256 KiB, a frame at most 196,000 bytes. Every raise costs money, and so does waiting: an instance that hears nothing asks 180
// times in an hour. It sends nothing while idle: IdleHeartbeat is negative, so that the end of a stream is told by the member rows. A topic has at
// most 200 subscriptions with filters unless Amazon grants more; further ones go without.
//
// # Requirements
//
// Rights to SNS and SQS. Nothing but HTTPS, outwards. Tested with the SDK's clients sns v1.47.8 and sqs v1.52.9 against the emulator in awsbustest. Not tested at Amazon.
package awsbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

const name = "aws"

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
	_ provider.Cleaner       = (*Provider)(nil)
)

// reorderDelay is for how long messages may overtake each other. SNS delivers most of them within a tenth of a second; asking
// too early costs money, and waiting costs time where something is lost, which is rare.
const reorderDelay = time.Second

// A Provider is one instance's place on a topic. It is safe for concurrent use. Use [New] to make one.
type Provider struct {
	cfg     Config // without AWS
	names   names
	clients clients
	keeper  *uplink.Keeper[*link]
	times   times

	// Set by the first connect and read-only afterwards.
	own   instanceID
	queue string // its name

	members  atomic.Pointer[members]
	finished *finished

	mu     sync.Mutex // guards what is below; not held while calling out
	closed bool
	made   made
}

// times are other than defaultTimes in tests alone.
type times struct {
	poll   time.Duration // for which a call to receive waits, whole seconds
	linger time.Duration // for which a deletion waits for others
	check  time.Duration // between two looks whether the subscriptions are there
	probe  time.Duration // for which what tries out the way is waited for, before it is sent again
	way    time.Duration // within which one has to arrive
	answer time.Duration // within which the services have to answer, beside the time of a long poll
	remove time.Duration // for what is removed by Close
}

var defaultTimes = times{
	poll: 20 * time.Second, linger: time.Second, check: 15 * time.Minute, probe: 2 * time.Second, way: 20 * time.Second,
	answer: 10 * time.Second, remove: time.Second,
}

// members is where the others are: of which site, and which instance.
type members struct {
	sites map[site.ID]bool
	of    map[site.StreamID]address
}

type address struct {
	site     site.ID
	instance instanceID
}

// New returns a Provider that is not connected yet. An error names the field of cfg.
func New(cfg Config) (*Provider, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Provider{names: newNames(cfg.Prefix), clients: newClients(cfg), times: defaultTimes, finished: newFinished()}
	cfg.AWS = aws.Config{}
	p.cfg = cfg
	p.keeper = uplink.New(uplink.Options[*link]{
		Name: name, MaxFrameBytes: cfg.MaxFrameBytes, Connect: p.connect,
		AttemptTimeout: 40 * time.Second, // a new subscription may need some seconds
	})
	return p, nil
}

// Name returns "aws".
func (p *Provider) Name() string { return name }

// Format implements [fmt.Formatter] for every verb, so that no setting is printed.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprint(f, "awsbus.Provider") }

// Capabilities implements [provider.Provider].
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		MaxFrameBytes: p.cfg.MaxFrameBytes,
		Redelivers:    true,
		IdleHeartbeat: -1,
		ReorderDelay:  reorderDelay,
	}
}

// Start implements [provider.Provider]. It returns when a message that it has published has arrived in its queue.
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	if err := p.keeper.Start(ctx, env); err != nil {
		p.remove()
		p.clients.close()
		return err
	}
	env.Logger.LogAttrs(ctx, slog.LevelInfo, "subscribed", slog.String(keyRegion, p.cfg.Region),
		slog.String(keyTopic, p.names.topic(env.Site)), slog.String(keyQueue, p.queue))
	return nil
}

// Addresses implements [provider.Advertiser]: the name of the queue.
func (p *Provider) Addresses() []string {
	if p.queue == "" {
		return nil
	}
	return []string{p.queue}
}

// SetMembers implements [provider.MemberWatcher]. When instances of another site turn up, its topic is subscribed to soon after.
func (p *Provider) SetMembers(m provider.Members) {
	next := &members{sites: make(map[site.ID]bool), of: make(map[site.StreamID]address)}
	for i := range m.Others {
		o := &m.Others[i]
		next.sites[o.Site] = true
		for _, queue := range o.Addresses[name] {
			if id, ok := p.names.instance(o.Site, queue); ok {
				next.of[o.Stream] = address{o.Site, id}
			}
		}
	}
	p.members.Store(next)
	if l, ok := p.keeper.Link(); ok {
		for s := range next.sites {
			if _, ok := l.topics[s]; !ok {
				l.end(errAnotherSite)
			}
		}
	}
}

var errAnotherSite = errors.New("aws: instances of another site have turned up, whose topic is not subscribed to yet")

// Send implements [provider.Provider]. It waits for SNS, and for nobody else.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		return l.publish(ctx, l.topics[l.env.Site], toAll, frames)
	})
}

// SendTo implements [provider.Unicaster]. An instance can be reached if it is among the members. SNS does not say whether it is there.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		if m := p.members.Load(); m != nil {
			if a, ok := m.of[to]; ok && l.topics[a.site] != "" {
				return l.publish(ctx, l.topics[a.site], string(a.instance), frames)
			}
		}
		return fmt.Errorf("aws: send to %v: %w", to, provider.ErrUnreachable)
	})
}

// Close implements [provider.Provider]. It removes the subscription and the queue, if that takes no longer than a second.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.keeper.Close()
	p.finished.close()
	p.remove()
	p.clients.close()
	return err
}
