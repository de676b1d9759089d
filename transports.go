package carillon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

const (
	startLimit = 15 * time.Second // for a transport to start while the instance runs
	startAgain = 5 * time.Second  // after a start that failed
)

// An outletState says where a transport is in its life.
type outletState uint8

const (
	standingBy outletState = iota // not subscribed, and can be
	starting                      // a goroutine waits for Start
	subscribed                    // from the end of Start on
	stopping                      // a goroutine waits for Close
	spent                         // its only provider was started, and has ended
)

var outletStates = [...]string{"standing by", "starting", "subscribed", "stopping", "ended"}

func (s outletState) String() string { return outletStates[s] }

func (o *outlet) setState(s outletState) {
	o.state = s
	o.listening.Store(s == subscribed)
}

// A turnout is what came of starting or stopping a transport.
type turnout struct {
	err  error
	took time.Duration
}

// A way is what the sites have this instance carry events through, by name.
type way struct {
	receive, send []string // ascending
	fresh         []string // of send: nothing is known yet of whether frames arrive through them
	moving        bool     // the site is on its way from some transports to others
}

// way returns what the sites accepted have an instance do that is configured for uses: it
// listens on what the instances of any of them send on, and sends on what those of its own listen to.
func (k *keyring) way(uses []string) way {
	w := way{}
	for _, s := range k.accepted {
		if s.Transports.IsZero() {
			w.receive = append(w.receive, uses...)
		} else {
			w.receive = append(w.receive, s.Transports.Receive...)
		}
	}
	slices.Sort(w.receive)
	w.receive = slices.Compact(w.receive)
	t := k.self.Transports
	if t.IsZero() {
		w.send = uses
		return w
	}
	w.send, w.moving = t.Send, t.Moving()
	if w.moving && !slices.Equal(t.Send, t.To) { // sent on beside others, before these are given up
		for _, name := range t.To {
			if slices.Contains(t.Send, name) && !slices.Contains(t.From, name) {
				w.fresh = append(w.fresh, name)
			}
		}
	}
	return w
}

// outlet returns the transport of this name; nil: this instance has none.
func (b *Broker) outlet(name string) *outlet {
	for _, o := range b.outs {
		if o.name == name && o.state != spent {
			return o
		}
	}
	return nil
}

// uses returns the names of the transports that this instance is configured to use, ascending.
func (b *Broker) uses() (uses []string) {
	for _, o := range b.outs[:len(b.cfg.Providers)] {
		uses = append(uses, o.name)
	}
	slices.Sort(uses)
	return uses
}

// has returns the names of the transports that this instance has and can still use, ascending.
func (b *Broker) has() (has []string) {
	for _, o := range b.outs {
		if o.state != spent {
			has = append(has, o.name)
		}
	}
	slices.Sort(has)
	return has
}

// openTransports subscribes on what the sites' transports say as they are known now. It is for Open, and may be called
// again.
func (b *Broker) openTransports(ctx context.Context) error {
	k := b.keyring.Load()
	w := k.way(b.uses())
	for _, name := range w.send {
		if b.outlet(name) == nil {
			return fmt.Errorf("the instances of site %q send on the transport %q, which this one does not have: it has %s; configure it, or move the site back: carillon provider migrate",
				b.cfg.Site, name, strings.Join(b.has(), ", "))
		}
	}
	if b.machine == nil && !slices.Equal(w.send, b.uses()) {
		b.log.Info("the site's transports are others than those configured here; following the site", "configured", b.uses(), "send", w.send, "receive", w.receive)
	}
	var failed []error
	for _, o := range b.outs {
		if !slices.Contains(w.receive, o.name) || o.state != standingBy {
			continue
		}
		if err := o.start(ctx, b.env(o)); err != nil {
			err = fmt.Errorf("start provider %q: %w", o.name, err)
			if o.make == nil || ctx.Err() != nil {
				return err
			}
			o.fails(err)
			o.startAt = time.Now().Add(startAgain)
			failed = append(failed, err)
			continue
		}
		o.setState(subscribed)
	}
	if b.chooseSenders(w) { // nobody sends yet
		b.useSenders()
	}
	if len(*b.senders.Load()) == 0 {
		return errors.Join(failed...)
	}
	if len(w.fresh) == 0 && len(k.trouble) == 0 && len(b.missing(w)) == 0 {
		b.carried.Store(k.read) // to be said in the row from its beginning
	}
	for _, err := range failed {
		b.log.Warn("transport not started; trying on while others carry the events", keyError, err)
	}
	return nil
}

// start starts o's provider, or another of the same name if it was started before.
func (o *outlet) start(ctx context.Context, env provider.Env) error {
	l := o.link.Load()
	if o.used {
		p, err := o.make()
		if err != nil {
			return fmt.Errorf("make it anew: %w", err)
		}
		if p == nil || p.Name() != o.name {
			return fmt.Errorf("make it anew: what was made has not the name %q", o.name)
		}
		l = newLink(p)
		o.link.Store(l)
	}
	o.used = true
	err := l.provider.Start(ctx, env)
	if err != nil {
		l.provider.Close() // a failed Start leaves nothing behind
	}
	return err
}

// env is what o's provider is started with.
func (b *Broker) env(o *outlet) provider.Env {
	ring := b.keyring.Load()
	return provider.Env{
		Site: b.siteID, Sites: ring.ids, Route: b.route, Keys: providerKeys{b},
		Logger:       b.cfg.Logger.With("component", "carillon/"+o.name, slog.String(keyProvider, o.name)),
		Deliver:      func(batch provider.Batch) { b.deliver(o, batch) },
		Disconnected: o.disconnected,
		Reconnected: func() {
			o.reconnected(b.log)
			poke(b.followWake) // the rows' marks tell what was lost
		},
		ReceiveBuffer: func(bytes int) { b.receiveBuffer(o, bytes) },
	}
}

// findRoute learns under which address this instance is most likely reached.
func (b *Broker) findRoute(ctx context.Context) {
	if err := b.ask(ctx, "find the own address", func(ctx context.Context) (err error) {
		b.route, err = b.cfg.Database.ClientAddr(ctx)
		return err
	}); err != nil {
		b.log.Info("address of this instance not known; providers that need it must have it configured", keyError, err)
	}
}

// followTransports does the next of what the sites' transports ask for, without waiting for it, and says in the row
// what it has come to. It belongs to follow.
func (b *Broker) followTransports() {
	k := b.keyring.Load()
	w := k.way(b.uses())
	changed := b.turnouts()
	now := time.Now()
	for _, o := range b.outs {
		switch want := slices.Contains(w.receive, o.name); {
		case want && o.state == standingBy && !now.Before(o.startAt):
			b.startLater(o)
		case !want && o.state == subscribed && !slices.Contains(*b.senders.Load(), o):
			b.stopLater(o)
		}
	}
	if b.chooseSenders(w) || changed {
		b.setWays()
		b.tellProviders()
	}
	b.listen(w)
	missing := b.missing(w)
	if len(missing) == 0 && len(k.trouble) == 0 {
		b.carried.Store(k.read)
	}
	if text := b.strangers(k); text != "" {
		missing = append(missing, text)
	}
	b.way.Store(&wayStatus{way: w, missing: missing})
	if text := strings.Join(missing, "; "); text != b.told {
		b.told = text
		if text != "" {
			b.log.Warn("transports: " + text)
		} else {
			b.log.Info("transports: as the site has them", "send", w.send, "receive", w.receive)
		}
	}
}

// startLater has o's provider started by a goroutine of its own: it may take long, and the
// row must be renewed meanwhile.
func (b *Broker) startLater(o *outlet) {
	o.setState(starting)
	b.log.Info("transport being started", keyProvider, o.name)
	begun := time.Now()
	b.turning.Go(func() {
		ctx, cancel := context.WithTimeout(b.followCtx, startLimit)
		defer cancel()
		err := o.start(ctx, b.env(o))
		o.turned <- turnout{err, time.Since(begun)}
		poke(b.followWake)
	})
}

// stopLater has o's provider closed by a goroutine of its own.
func (b *Broker) stopLater(o *outlet) {
	o.setState(stopping)
	begun := time.Now()
	b.turning.Go(func() {
		err := o.link.Load().provider.Close()
		o.turned <- turnout{err, time.Since(begun)}
		poke(b.followWake)
	})
}

// turnouts takes in what came of starting and stopping, and reports whether anything did.
func (b *Broker) turnouts() (changed bool) {
	for _, o := range b.outs {
		var t turnout
		select {
		case t = <-o.turned:
		default:
			continue
		}
		changed, b.rowDirty = true, true
		switch {
		case o.state == stopping:
			o.setState(standingBy)
			if o.make == nil {
				o.setState(spent)
			}
			o.clear()
			b.receiveBuffer(o, 0)
			b.log.Info("transport closed: the site has moved away from it", keyProvider, o.name, "took", t.took)
			if t.err != nil {
				b.log.Warn("transport not closed in good order", keyProvider, o.name, keyError, t.err)
			}
		case t.err != nil:
			o.fails(t.err)
			o.setState(standingBy)
			o.startAt = time.Now().Add(startAgain)
			if o.make == nil {
				o.setState(spent)
			}
			o.tell(b.log, "transport not started", o.make != nil)
		default:
			o.clear()
			o.setState(subscribed)
			b.log.Info("transport started", keyProvider, o.name, "took", t.took)
		}
	}
	return changed
}

// chooseSenders has events sent on what w says as far as it is subscribed on, and reports whether that
// is a change. Without any of it, what was sent on stays.
func (b *Broker) chooseSenders(w way) (changed bool) {
	var outs []*outlet
	for _, o := range b.outs {
		if slices.Contains(w.send, o.name) && o.state == subscribed {
			outs = append(outs, o)
		}
	}
	if len(outs) == 0 || slices.Equal(outs, *b.chosen.Load()) {
		return false
	}
	b.chosen.Store(&outs)
	poke(b.sendWake)
	return true
}

// useSenders returns what to send on from now on. b.hand.turn is held.
func (b *Broker) useSenders() []*outlet {
	old, outs := *b.senders.Load(), *b.chosen.Load()
	if slices.Equal(old, outs) {
		return outs
	}
	// What is in hand may not be accepted yet by those that are given up.
	if p := b.hand.shipment; p != nil && !p.done() {
		for _, o := range outs {
			if !slices.Contains(old, o) {
				o.lane.push(p, false)
			}
		}
	}
	b.senders.Store(&outs)
	b.hand.prompt.Store(len(outs) == 1 && outs[0].prompt)
	for _, o := range old {
		if !slices.Contains(outs, o) {
			o.lane.empty()
		}
	}
	return outs
}

// setWays tells the machine what the transports in use are like.
func (b *Broker) setWays() {
	var in, out []provider.Provider
	for _, o := range b.outs {
		if o.state == subscribed {
			in = append(in, o.link.Load().provider)
		}
	}
	for _, o := range *b.chosen.Load() {
		out = append(out, o.link.Load().provider)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.machine.SetWays(now, ways(in, out))
	b.applyLocked(now)
}

// missing says in words what this instance does not do, of what the sites' transports ask for.
func (b *Broker) missing(w way) (missing []string) {
	say := func(format string, args ...any) { missing = append(missing, fmt.Sprintf(format, args...)) }
	senders := *b.senders.Load()
	for _, name := range w.receive {
		o := b.outlet(name)
		switch {
		case o == nil:
			say("%q is to be received and is not configured here", name)
		case o.state != subscribed:
			say("%q is to be received and is %v", name, o.state)
		}
	}
	for _, name := range w.send {
		if !slices.ContainsFunc(senders, func(o *outlet) bool { return o.name == name }) {
			say("%q is to be sent on and is not yet", name)
		}
	}
	for _, o := range senders {
		if !slices.Contains(w.send, o.name) {
			say("%q is not to be sent on and still is", o.name)
		}
	}
	for _, o := range b.outs {
		if !slices.Contains(w.receive, o.name) && (o.state == subscribed || o.state == starting || o.state == stopping) {
			say("%q is not in use any more and is %v", o.name, o.state)
		}
	}
	for _, name := range w.fresh {
		if o := b.outlet(name); o != nil && o.state == subscribed {
			if since, err := o.failure(); !since.IsZero() {
				say("%q accepts nothing: %v", name, err)
			}
			if n, first := o.heard.silent(); n > 0 {
				say("nothing has arrived through %q of %d instances, %s among them", name, n, first)
			}
		}
	}
	return missing
}

// strangers says in words which instances of the site use none of the transports that this one uses, as when settings
// were changed in place of moving the site; it is empty if there are none.
func (b *Broker) strangers(k *keyring) string {
	if !k.self.Transports.IsZero() {
		return ""
	}
	own, uses := *b.own.Load(), b.uses()
	b.mu.Lock()
	defer b.mu.Unlock()
	n, first := 0, ""
	for _, r := range b.rows.open() {
		if r.Site != b.siteID || own.has(r.Stream) || len(r.Uses) == 0 || slices.ContainsFunc(r.Uses, func(u string) bool { return slices.Contains(uses, u) }) {
			continue
		}
		if n++; n == 1 {
			first = fmt.Sprintf("%s on %s uses %s", r.Application, r.Server, strings.Join(r.Uses, ", "))
		}
	}
	if n == 0 {
		return ""
	}
	others := "another one"
	if n > 1 {
		others = fmt.Sprint(n, " others")
	}
	return fmt.Sprintf("this instance and %s of the site do not hear each other: %s, and this one %s; configure all alike, with the other transport in Standby, and move the site: carillon provider migrate", others, first, strings.Join(uses, ", "))
}

// listen has what arrives through fresh transports noted, until every live instance of the site was
// heard there once. Each instance speaks meanwhile, so that those that raise nothing are heard.
func (b *Broker) listen(w way) {
	var rows []site.Member
	if len(w.fresh) > 0 {
		own, now := *b.own.Load(), time.Now()
		b.mu.Lock()
		offset := b.rows.offset
		for _, r := range b.rows.open() {
			if r.Site == b.siteID && !own.has(r.Stream) && !r.Lapsed && now.Add(offset).Sub(r.Seen) <= b.cfg.Lease {
				rows = append(rows, r)
			}
		}
		b.machine.Speak(now)
		b.applyLocked(now)
		b.mu.Unlock()
	}
	for _, o := range b.outs {
		if slices.Contains(w.fresh, o.name) {
			o.heard.expect(rows)
		} else {
			o.heard.expect(nil)
		}
	}
}

// heard is which instances were heard through a transport that is new. It is safe for concurrent use.
type heard struct {
	on atomic.Bool // some are expected

	mu    sync.Mutex                 // guards the fields below
	names map[site.StreamID]string   // of those that are expected and were not heard
	known map[site.StreamID]struct{} // that were
}

// expect has these rows listened for, beside what was heard before; none ends it.
func (h *heard) expect(rows []site.Member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(rows) == 0 {
		h.names, h.known = nil, nil
		h.on.Store(false)
		return
	}
	if h.known == nil {
		h.known = map[site.StreamID]struct{}{}
	}
	h.names = map[site.StreamID]string{}
	for _, r := range rows {
		if _, ok := h.known[r.Stream]; !ok {
			h.names[r.Stream] = fmt.Sprintf("%s on %s", r.Application, r.Server)
		}
	}
	h.on.Store(len(h.names) > 0)
}

// wants reports whether s is listened for.
func (h *heard) wants(s site.StreamID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.names[s]
	return ok
}

func (h *heard) note(s site.StreamID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.names[s]; ok {
		delete(h.names, s)
		h.known[s] = struct{}{}
		h.on.Store(len(h.names) > 0)
	}
}

// silent returns how many are listened for and were not heard, and the name of one.
func (h *heard) silent() (n int, first string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range h.names {
		if first == "" || name < first {
			first = name
		}
	}
	return len(h.names), first
}

// noteHeard notes which of the frames that came through o prove that their sender is heard there. What is a repetition
// otherwise is checked for it, once for each sender.
func (b *Broker) noteHeard(o *outlet, in []incoming) {
	for _, f := range in {
		if f.own || !o.heard.wants(f.header.Stream) {
			continue
		}
		if _, err := b.opener.Open(f.header.Site, f.header.Key, f.header.Stream, f.frame); err == nil {
			o.heard.note(f.header.Stream)
		}
	}
}

// wayStatus is what is said of the transports to people.
type wayStatus struct {
	way
	missing []string
}

// ways says what transports are like, those that are listened to and those that are sent on.
func ways(in, out []provider.Provider) engine.Ways {
	w := engine.Ways{ReachesOne: true, IdleHeartbeat: -1}
	for _, p := range in {
		c := p.Capabilities()
		w.SharedLoss = w.SharedLoss || !c.Ordered
		w.RepairDelay = max(w.RepairDelay, c.ReorderDelay)
	}
	for _, p := range out {
		if _, ok := p.(provider.Unicaster); !ok {
			w.ReachesOne = false
		}
		// As often as the one wants it that wants it most often.
		switch d := p.Capabilities().IdleHeartbeat; {
		case d == 0, w.IdleHeartbeat == 0:
			w.IdleHeartbeat = 0
		case d > 0 && (w.IdleHeartbeat < 0 || d < w.IdleHeartbeat):
			w.IdleHeartbeat = d
		}
	}
	return w
}
