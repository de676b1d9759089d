// Package mqttbus carries frames through an MQTT 5 server, such as Mosquitto: a message a frame, with QoS 1.
//
// # Configuration
//
// [Config.URLs] name the server. All instances of a site use the same server, or nodes of one cluster, and the same [Config.Prefix]. With
// S as the site's ID, every instance publishes and subscribes to carillon/S/all, and takes what is meant for it alone from carillon/S/to/STREAM; a user needs to
// read and write carillon/#. An instance that accepts other sites needs their topics as well.
//
// # Delivery
//
// Send returns when the server has acknowledged every message of the batch, which says nothing about receivers. A received message is
// acknowledged when its events are in their subscribers' queues, or were dropped for a counted reason. So frames arrive at least once, and those of one
// instance in order: after a connection broke some come again, from the first that was not acknowledged. No instance hears itself (No Local).
//
// The server keeps a session for each instance: what arrives while the connection is broken comes when it is back, within
// [Config.SessionExpiry]. The session of an instance that ends without Close goes by itself when that has passed; Close removes it at once. Its name is random, and new with each Start.
//
// Frames are lost where the server drops them, and of that it tells nobody: beyond what it keeps for a client that is slow or away, 1,000
// messages unless mosquitto is told otherwise (max_queued_messages); with all sessions, if it is killed, or if it keeps none on its disk; and
// where the user may not read. Receivers pace the senders, so that no more than
// [Config.ReceiveBytes] are under way to one that is slow. Whenever a connection was made anew the Broker is told, and asks for what it missed.
//
// A connection over which nothing comes, or a message is not acknowledged, is given up after ten seconds. It is made again at once, then at growing intervals up to
// 5 s. Where another client takes the name of this one, which a copy of its process does, a new name is taken.
//
// # Limits
//
// A frame has [Config.MaxFrameBytes] at most. Start fails where the server takes less, as its Maximum Packet Size says. At most 256 messages are sent
// before the first of them is acknowledged, or fewer if the server wants that (its Receive Maximum): mosquitto says 20.
//
// Whoever may publish in the topics makes every instance receive what he sends; the Broker's seals see to it that it does no
// harm, rights that he cannot.
//
// # Requirements
//
// A server that speaks MQTT 5 with QoS 1. Shared subscriptions, wildcards, retained messages and topic aliases are not used. Tested against Mosquitto 2.0.11, with
// paho.golang 0.23.0.
//
// Of that library the codec and package paho are used. The session is ours, see inFlight for why; package autopaho is not used, since package uplink does
// what it does, for all providers in the same way.
package mqttbus

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

const name = "mqtt"

// followWithin bounds how long SetMembers waits for the network.
const followWithin = 100 * time.Millisecond

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
)

// A Provider is one instance's place at the server. It is safe for concurrent use. Use [New] to make one.
type Provider struct {
	cfg     settings
	keeper  *uplink.Keeper[*link]
	members atomic.Pointer[members]
	changed chan struct{} // holds one token while members may be newer than the subscriptions

	// The rest belongs to connect, and to the link that there is.
	turn     int             // of the endpoint that is tried first
	clientID string          // of the session at the server; empty: a new one is to be made
	settled  bool            // there is a session at the server, as far as is known, and all that a link needs was made in it
	cutShort int             // connections in a row that were ended soon, without a word
	topics   map[string]bool // what the session is subscribed to, as far as is known

	keepAlive, readingWithin time.Duration // as the constants, but in tests
}

// members is what SetMembers said: who this instance is, and of which site each other one is.
type members struct {
	self     site.StreamID
	sites    map[site.StreamID]site.ID // of the others, by their stream
	followed chan struct{}             // closed when the topic of self is subscribed to
}

// New returns a Provider that is not connected yet. An error names the field of cfg.
func New(cfg Config) (*Provider, error) {
	s, err := cfg.check()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: s, changed: make(chan struct{}, 1), keepAlive: keepAlive, readingWithin: readingWithin}
	p.keeper = uplink.New(uplink.Options[*link]{Name: name, MaxFrameBytes: s.capabilities.MaxFrameBytes, Connect: p.connect})
	return p, nil
}

// Name returns "mqtt".
func (p *Provider) Name() string { return name }

// Format implements [fmt.Formatter] for every verb: no setting is printed.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprint(f, "mqttbus.Provider") }

// Capabilities implements [provider.Provider].
func (p *Provider) Capabilities() provider.Capabilities { return p.cfg.capabilities }

// Start implements [provider.Provider]. It returns when the server has confirmed the subscription, and has carried a message without contents to this
// instance and to all others, so that a missing right shows here.
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	return p.keeper.Start(ctx, env)
}

// Send implements [provider.Provider]. It waits for the server, and for nobody else.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		_, err := l.publish(ctx, p.toAll(l.env.Site), frames, nil)
		return err
	})
}

// SendTo implements [provider.Unicaster]. A stream is unreachable if no member has it, or if the server says that nobody is subscribed to its
// topic, which not every server does.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		unreachable := fmt.Errorf("mqtt: send to %v: %w", to, provider.ErrUnreachable)
		m := p.members.Load()
		if m == nil {
			return unreachable
		}
		of, ok := m.sites[to]
		if !ok {
			return unreachable
		}
		unheard, err := l.publish(ctx, p.toOne(of, to), frames, nil)
		if err == nil && unheard > 0 {
			return unreachable
		}
		return err
	})
}

// SetMembers implements [provider.MemberWatcher]. What it asks for is subscribed to soon after. For the subscription to what is sent to this instance alone it
// waits, 0.1 s at most, so that whoever hears from it can reach it.
func (p *Provider) SetMembers(m provider.Members) {
	next := &members{self: m.Self, sites: make(map[site.StreamID]site.ID), followed: make(chan struct{})}
	if was := p.members.Load(); was != nil && was.self == next.self {
		next.followed = was.followed
	}
	for i := range m.Others {
		next.sites[m.Others[i].Stream] = m.Others[i].Site
	}
	p.members.Store(next)
	select {
	case p.changed <- struct{}{}:
	default:
	}
	if _, ok := p.keeper.Link(); !ok {
		return
	}
	patience := time.NewTimer(followWithin)
	defer patience.Stop()
	select {
	case <-next.followed:
	case <-patience.C:
	}
}

// Close implements [provider.Provider]. What Send accepted the server has taken, so there is nothing to flush. The session at the
// server is removed, unless there is no connection just now.
func (p *Provider) Close() error { return p.keeper.Close() }

// toAll is the topic of all instances of a site.
func (p *Provider) toAll(s site.ID) string { return p.cfg.prefix + "/" + s.String() + "/all" }

// toOne is the topic of one instance.
func (p *Provider) toOne(s site.ID, stream site.StreamID) string {
	return p.cfg.prefix + "/" + s.String() + "/to/" + stream.String()
}

// newClientID returns a name that no other client has. It is made of what MQTT makes every server accept: 23 letters and digits.
func newClientID() string {
	var b [10]byte
	rand.Read(b[:])
	return "carillon" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))[:15]
}
