// Package pgbus carries frames through LISTEN and NOTIFY of a PostgreSQL server: often the one that has the site database, so
// that nothing else must be run.
//
// # Configuration
//
// [Config.URL] or [Config.ConnConfig] says where the server is; [Config.Pool] brings a pool that the application has. All instances of a site use
// the same database of the same server, [Config.Prefix] and [Config.Table]. An instance has one connection that listens, and a pool of two to notify, or the application's.
// Every site has one channel for all its instances, prefix:SITE:all, and each instance one for what is meant for it alone,
// prefix:SITE:to:STREAM. PostgreSQL takes names of 63 bytes; one that is longer is replaced by its hash.
//
// # Delivery
//
// Frames of one sender to all arrive in order, each at most once, and so do those to one; between the two kinds there is no order. Send is one statement and one transaction, however many
// frames it takes, and waits for its commit, never for a receiver. While the server is away Send fails, and nothing is kept for later: the Broker sends it again.
//
// A payload is text of less than 8,000 bytes. Frames are packed into it, as many as fit, in base64, behind 12 bytes that tell a sender its own and see to it that no two payloads are the
// same: of equal ones in a transaction PostgreSQL delivers one. A frame that is too large for a payload becomes a row of [Config.Table], and the payload names the row. Rows are removed when they are two
// minutes old by the server's clock, by whichever instance comes first.
//
// PostgreSQL keeps notifications for those who listen, on disk if need be, and nothing for those who are not connected: what is on its way when a connection breaks, or the server stops, is lost for this instance. A
// connection that breaks is made again, at once and then at growing intervals up to 5 s; listening again, the Broker is told, and asks for what it missed. The connection is tried when it was silent for five
// seconds, and given up when the answer, or an instance's own notification, does not come. An instance that takes nothing for a minute is disconnected by the server, so that it does not fill the
// queue of all databases. A frame in the table is lost for who comes to read it after two minutes; see [Provider.Lost].
//
// # Limits
//
// A frame has [Config.MaxFrameBytes] at most: by default 5,985 bytes, which is what a payload holds, so that no table is needed. Larger ones halve the processor time of an event
// at full speed, and pay with a table that grows by everything sent in two minutes: see the comment of the constant inlineBytes. What waits for all listeners of all databases is bounded by the server (8 GB, or
// max_notify_queue_pages); receivers pace the senders, so that no more than 8 MiB are on the way to one. Commits that notify take place one after the other, whatever their database.
//
// Everybody who may connect to the database may notify and listen; there is no right for it. The Broker's seals see to it that a stranger does no harm beyond the work, and an encrypting suite that he reads nothing.
//
// # Requirements
//
// PostgreSQL 12 or later, its primary: a standby takes neither LISTEN nor NOTIFY. The user needs CONNECT; for frames above the default also INSERT, SELECT and DELETE on the table, and CREATE in
// the schema unless the table is there. Between instance and server there may be a connection pooler in session mode; one that shares connections among
// transactions, as PgBouncer in transaction mode, loses what is listened to, which Start finds out. Tested against PostgreSQL 15.18, alone, as primary and standby, and behind PgBouncer 1.18, with pgx 5.12.0.
package pgbus

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

const name = "postgres"

// receiveBufferBytes is what may be on its way to an instance. The server would keep far more, at the cost of
// all who notify, in all its databases.
const receiveBufferBytes = 8 << 20

var (
	_ provider.Unicaster     = (*Provider)(nil)
	_ provider.MemberWatcher = (*Provider)(nil)
)

// A Provider is one instance's place at the server. It is safe for concurrent use. Use [New] to make one.
type Provider struct {
	cfg    settings
	times  times
	keeper *uplink.Keeper[*link]

	members atomic.Pointer[members]
	changed waker // poked when members may be newer than what is listened to
	last    *tag  // of the last link; used by connect alone
	lost    atomic.Uint64
}

// times are the limits of a Provider, which tests shorten.
type times struct {
	hear   time.Duration // within which what Start notifies must be heard
	answer time.Duration // within which the server must have done a statement
	quiet  time.Duration // after which a connection that heard nothing is tried
	stall  time.Duration // after which the server disconnects who takes nothing
	keep   time.Duration // how old a row becomes
	sweep  time.Duration // between two looks for old rows
}

// members is what SetMembers said.
type members struct {
	self  site.StreamID
	sites map[site.StreamID]site.ID // of the others
}

// New returns a Provider that is not connected yet. An error names the field of cfg.
func New(cfg Config) (*Provider, error) {
	s, err := cfg.check()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: s, times: times{
		hear: 5 * time.Second, answer: 10 * time.Second, quiet: 5 * time.Second, stall: time.Minute, keep: 2 * time.Minute, sweep: 30 * time.Second,
	}}
	p.keeper = uplink.New(uplink.Options[*link]{Name: name, MaxFrameBytes: s.maxFrameBytes, Connect: p.connect})
	return p, nil
}

// Name returns "postgres".
func (p *Provider) Name() string { return name }

// Format names the transport for every verb, so that no setting is printed.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprint(f, "pgbus.Provider") }

// Capabilities implements [provider.Provider].
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{MaxFrameBytes: p.cfg.maxFrameBytes, Ordered: true}
}

// Lost returns how many frames of others were announced to this instance and not found in the table, since Start: they were removed before it came to read
// them, or it lacks the right to.
func (p *Provider) Lost() uint64 { return p.lost.Load() }

// Start implements [provider.Provider]. It returns when the server has confirmed what is listened to, and when a notification of
// this instance has come back to it.
func (p *Provider) Start(ctx context.Context, env provider.Env) error {
	if err := p.keeper.Start(ctx, env); err != nil {
		return err
	}
	env.ReceiveBuffer(receiveBufferBytes)
	return nil
}

// SetMembers implements [provider.MemberWatcher]. The channels that it asks for are listened to soon after.
func (p *Provider) SetMembers(m provider.Members) {
	next := &members{self: m.Self, sites: make(map[site.StreamID]site.ID, len(m.Others))}
	for i := range m.Others {
		next.sites[m.Others[i].Stream] = m.Others[i].Site
	}
	p.members.Store(next)
	p.changed.poke()
}

// Send implements [provider.Provider]. It waits for the server, and for nobody else.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		return l.sendAll(ctx, frames)
	})
}

// SendTo implements [provider.Unicaster]. An instance can be reached if it is among the members.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		m := p.members.Load()
		if m != nil {
			if of, ok := m.sites[to]; ok {
				return l.send(ctx, p.cfg.toOne(of, to), frames)
			}
		}
		return fmt.Errorf("postgres: send to %v: %w", to, provider.ErrUnreachable)
	})
}

// Close implements [provider.Provider]. What Send accepted is committed, so there is nothing to flush. A pool that the application
// brought stays open.
func (p *Provider) Close() error { return p.keeper.Close() }
