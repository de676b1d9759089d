package natsbus

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// An inbox takes what arrives on the subscriptions of one Provider.
type inbox struct {
	deliver func(provider.Batch)
	log     *slog.Logger

	// gate lets one message after the other through, of whichever subscription.
	gate   sync.Mutex
	closed bool      // guarded by gate
	one    [1][]byte // guarded by gate; the slice of every batch

	mu   sync.Mutex                    // guards the fields below; not held while calling out
	all  map[string]*nats.Subscription // of what is sent to all of a site, by subject
	self *nats.Subscription            // of what is sent to this instance alone; nil before SetMembers
	gone uint64                        // frames dropped by subscriptions that are gone

	told uint64 // of the dropped frames; used by the goroutine of nats.go alone
}

// members is who there is, and who of them has been subscribed to.
type members struct {
	self     site.StreamID
	to       map[site.StreamID]string // subjects of the others
	followed chan struct{}            // closed when there is a subscription for self
}

// following reports whether there is a subscription for self.
func (m *members) following() bool {
	select {
	case <-m.followed:
		return true
	default:
		return false
	}
}

// find returns the subject of an instance.
func (m *members) find(stream site.StreamID) (subject string, ok bool) {
	if m == nil {
		return "", false
	}
	subject, ok = m.to[stream]
	return subject, ok
}

// newMembers returns m with the subjects that a site has.
func newMembers(m provider.Members, of func(site.ID) subjects) *members {
	is := &members{self: m.Self, to: make(map[site.StreamID]string, len(m.Others)), followed: make(chan struct{})}
	for _, other := range m.Others {
		is.to[other.Stream] = of(other.Site).to(other.Stream)
	}
	return is
}

// setMembers is never called concurrently.
func (p *Provider) setMembers(m provider.Members) *members {
	is := newMembers(m, p.site)
	if was := p.members.Load(); was != nil && was.self == is.self {
		is.followed = was.followed
	}
	p.members.Store(is)
	return is
}

// listen subscribes to what is sent to all and, if this instance had a subscription for what is sent to it alone, to that.
func (p *Provider) listen() error {
	in := &p.inbox
	in.deliver, in.log = p.env.Deliver, p.env.Logger
	in.mu.Lock()
	defer in.mu.Unlock()
	in.all = make(map[string]*nats.Subscription)
	for _, s := range p.env.Sites {
		subject := p.site(s).all()
		if in.all[subject] != nil {
			continue
		}
		sub, err := p.subscribe(subject)
		if err != nil {
			return err
		}
		in.all[subject] = sub
	}
	if m := p.members.Load(); m != nil && m.following() {
		sub, err := p.subscribe(p.site(p.env.Site).to(m.self))
		if err != nil {
			return err
		}
		in.self = sub
	}
	return nil
}

// listenAgain makes every subscription anew, as the server forgets those that it refuses.
func (p *Provider) listenAgain() error {
	in := &p.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	again := func(sub *nats.Subscription) (*nats.Subscription, error) {
		in.dropLocked(sub)
		return p.subscribe(sub.Subject)
	}
	var err error
	for subject, sub := range in.all {
		if in.all[subject], err = again(sub); err != nil {
			return err
		}
	}
	if in.self != nil {
		if in.self, err = again(in.self); err != nil {
			return err
		}
	}
	return nil
}

// follow subscribes to what is sent to this instance alone, if it has become another since.
func (p *Provider) follow() {
	m := p.members.Load()
	if m == nil || m.following() {
		return
	}
	in := &p.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	m = p.members.Load() // SetMembers may have come meanwhile
	if m.following() {
		return
	}
	sub, err := p.subscribe(p.site(p.env.Site).to(m.self))
	if err != nil {
		return // the connection has been closed for good, and whoever sends will say so
	}
	if in.self != nil {
		in.dropLocked(in.self)
	}
	in.self = sub
	close(m.followed)
}

// subscribe begins to deliver what arrives on a subject.
func (p *Provider) subscribe(subject string) (*nats.Subscription, error) {
	sub, err := p.conn.Load().Subscribe(subject, p.inbox.take)
	if err != nil {
		return nil, err
	}
	// A quarter more than what senders go by, for the frames that are not paced.
	bytes := p.cfg.receiveBytes + p.cfg.receiveBytes/4
	return sub, sub.SetPendingLimits(bytes/provider.FrameCharge, bytes)
}

// take delivers a message. Its data is memory that nats.go has allocated for it alone.
func (in *inbox) take(m *nats.Msg) {
	if len(m.Data) == 0 {
		return // somebody asks for his rights
	}
	in.gate.Lock()
	defer in.gate.Unlock()
	if in.closed {
		return
	}
	in.one[0] = m.Data
	in.deliver(provider.Batch{Frames: in.one[:], From: m.Subject})
	in.one[0] = nil
}

// close makes sure that nothing is delivered any more, and waits for what is.
func (in *inbox) close() {
	in.gate.Lock()
	defer in.gate.Unlock()
	in.closed = true
}

// unsubscribe forgets all subscriptions and keeps what they counted. The server is told if the connection outlives them.
func (in *inbox) unsubscribe(tell bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := slices.Collect(maps.Values(in.all))
	if in.self != nil {
		all = append(all, in.self)
	}
	in.all, in.self = nil, nil
	for _, sub := range all {
		if tell {
			in.dropLocked(sub)
		} else {
			in.gone += droppedBy(sub)
		}
	}
}

// dropLocked ends a subscription and keeps what it counted. in.mu is held.
func (in *inbox) dropLocked(sub *nats.Subscription) {
	in.gone += droppedBy(sub)
	if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
		in.log.LogAttrs(context.Background(), slog.LevelWarn, "unsubscribe failed", slog.String("error", err.Error()))
	}
}

// droppedBy returns how many messages nats.go had no room for.
func droppedBy(sub *nats.Subscription) uint64 {
	n, err := sub.Dropped()
	if err != nil || n < 0 {
		return 0 // closed: it counts no more
	}
	return uint64(n)
}

func (in *inbox) droppedFrames() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := in.gone
	for _, sub := range in.all {
		n += droppedBy(sub)
	}
	if in.self != nil {
		n += droppedBy(in.self)
	}
	return n
}

// overflow says that something was dropped. nats.go calls it once for each time that there was no room, however much it drops then.
func (in *inbox) overflow() {
	n := in.droppedFrames()
	if n <= in.told {
		return
	}
	in.told = n
	in.log.LogAttrs(context.Background(), slog.LevelWarn, "receive buffer full, frames dropped",
		slog.Uint64("dropped", n))
}
