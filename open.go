package carillon

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/site"
)

const (
	joinTries     = 3
	snapshotTries = 5
	snapshotAgain = 200 * time.Millisecond

	holdFrames     = 256     // frames of streams that are not known yet
	leastHoldBytes = 1 << 20 // for them and others that wait, however small HoldBytes is
)

// Open joins the site and returns when this instance is in step: from then on, every event
// of others that it can know to exist is raised here or told as missed, as soon as
// [Broker.Enable] is called. Load caches between the two.
//
// In this order, Open makes the site and its secret in the database if there are none, makes
// the Broker, starts the providers, writes this instance's member row, and asks
// the others where they stand. With nobody else there that takes
// milliseconds; an instance that does not answer, because it was killed a
// moment ago, can hold it up for 2 s. When an instance is heard that has the same
// site and seems to have another database, Open takes a little more than a lease
// to make sure, and then returns [ErrCopied].
//
// ctx bounds Open alone. A database that does not answer is an error within 5 s; what
// is wrong with cfg is a [*ConfigError]. When Open fails, nothing is left
// behind: the providers are closed and no member row is open.
func Open(ctx context.Context, cfg Config) (*Broker, error) {
	providers := cfg.Providers
	cfg, err := cfg.withDefaults()
	if err == nil {
		err = cfg.makeStandby()
	}
	if err != nil {
		for _, p := range providers {
			if p != nil {
				p.Close()
			}
		}
		return nil, err
	}
	b := newBroker(cfg)
	if b.local {
		close(b.inStep)
		return b, nil
	}
	if err := b.open(ctx); err != nil {
		b.begin(true)
		b.teardown(b.handlers)
		return nil, fmt.Errorf("carillon: open site %q: %w", cfg.Site, err)
	}
	b.log.Info("in step", "site", cfg.Site, keyStream, b.self.Load().Stream)
	return b, nil
}

func newBroker(cfg Config) *Broker {
	b := &Broker{
		cfg:        cfg,
		log:        cfg.Logger.With("component", "carillon"),
		local:      len(cfg.Providers) == 0,
		trust:      cfg.TrustSecureChannel && cfg.secure(),
		opener:     seal.NewOpener(),
		hard:       make(chan struct{}),
		done:       make(chan struct{}),
		tickWake:   make(chan struct{}, 1),
		sendWake:   make(chan struct{}, 1),
		followWake: make(chan struct{}, 1),
		inStep:     make(chan struct{}),
		ended:      map[site.StreamID]site.Mark{},
	}
	handlers, stop := context.WithCancel(context.Background())
	b.handlers, b.stopCall = handlers, func() { b.stopped.Store(true); stop() }
	b.loopCtx, b.stopLoops = context.WithCancel(context.Background())
	b.followCtx, b.stopRows = context.WithCancel(b.loopCtx)
	b.incoming.New = func() any { return new([]incoming) }
	b.own.Store(&ownStreams{})
	b.setSelf(site.StreamID{})
	b.keyring.Store(&keyring{})
	for _, p := range cfg.all {
		b.outs = append(b.outs, newOutlet(p, cfg.Standby[p.Name()]))
	}
	b.chosen.Store(&[]*outlet{})
	b.senders.Store(&[]*outlet{})
	b.hand.opened, b.hand.turn = time.Now(), make(chan struct{}, 1)
	b.hand.turn <- struct{}{}
	return b
}

// open is Open for a Broker with providers. What it leaves behind when it fails,
// teardown cleans up.
func (b *Broker) open(ctx context.Context) error {
	if err := b.ask(ctx, "ensure the site", func(ctx context.Context) error {
		s, err := b.cfg.Database.EnsureSite(ctx, b.cfg.Site)
		b.siteID = s.ID
		return err
	}); err != nil {
		return err
	}
	if err := b.readKeys(ctx); err != nil {
		return err
	}
	for _, name := range b.cfg.AcceptSites {
		if !slices.ContainsFunc(b.keyring.Load().accepted, func(s site.Site) bool { return s.Name == name }) {
			b.log.Warn("a site to be accepted is not registered in the database (yet)", "site", name)
		}
	}
	b.setSelf(site.StreamID{})
	b.findRoute(ctx)
	if err := b.openTransports(ctx); err != nil {
		return err
	}

	var stream site.StreamID
	if err := b.ask(ctx, "join", func(ctx context.Context) (err error) {
		for range joinTries {
			if stream, err = b.join(ctx); err == nil || ctx.Err() != nil || errors.Is(err, site.ErrFull) {
				break
			}
		}
		return err
	}); err != nil {
		return err
	}
	b.setSelf(stream)
	// A key that became active before the row was there may rely on nobody
	// signing with an older one, so the keys are read again.
	if err := b.readKeys(ctx); err != nil {
		return err
	}
	key := b.keyring.Load().active
	s, err := seal.NewSealer(key, b.siteID, stream)
	if err != nil {
		return err
	}
	b.addSealer(&sealer{Sealer: s, stream: stream, key: key.ID})
	b.makeMachine(stream, key.ID, s.Trailer())

	snap, err := b.snapshotOfAll(ctx, stream)
	if err != nil {
		return err
	}
	// Who moved the site before the row was there did not wait for this instance.
	if err := b.openTransports(ctx); err != nil {
		return err
	}
	b.setWays()
	now := time.Now()
	b.health.note(now, b.cfg.Lease, nil)
	b.mu.Lock()
	rows := b.acceptedRows(snap.Members)
	b.rows.update(rows, now)
	b.rows.revision, b.rows.offset, b.rows.readAll = snap.Revision, snap.Now.Sub(now), now
	b.mu.Unlock()
	b.tellProviders()

	b.mu.Lock()
	now = time.Now()
	b.machine.Start(now, b.foreign(rows), &b.fx)
	b.applyLocked(now)
	b.mu.Unlock()
	b.loops.Go(b.tick)
	b.loops.Go(b.send)
	for _, o := range b.outs {
		b.loops.Go(func() { b.drive(o) })
	}
	b.rowLoop.Go(b.follow)
	if b.cleans() {
		b.rowLoop.Go(b.clean)
	}
	b.watchIsolation()
	select {
	case <-b.inStep:
		return b.guardOpen(ctx)
	case <-ctx.Done():
		return fmt.Errorf("come into step with the other instances: %w", context.Cause(ctx))
	}
}

// ask makes one call of the site database, and explains why it failed.
func (b *Broker) ask(ctx context.Context, tried string, call func(ctx context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	err := call(bounded)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", tried, err)
	case errors.Is(err, site.ErrSchema):
		return fmt.Errorf("%s: %w; upgrade this program", tried, err)
	case errors.Is(err, site.ErrStale):
		return fmt.Errorf("%s: %w; configure the address of the primary", tried, err)
	case errors.Is(err, site.ErrFull):
		return fmt.Errorf("%s: %w; end instances, or wait until dead ones are reaped", tried, err)
	case errors.Is(err, site.ErrSecret), errors.Is(err, site.ErrRestored):
		return fmt.Errorf("%s: %w", tried, err) // it says itself what to do
	case bounded.Err() != nil:
		return fmt.Errorf("%s: the site database did not answer within %v: %w; check that it runs and can be reached at the address configured, and that its connection pool has room", tried, databaseTimeout, err)
	}
	return fmt.Errorf("%s: %w; check that the site database runs, its address, and the rights of its user", tried, err)
}

// readKeys reads all sites with their keys.
func (b *Broker) readKeys(ctx context.Context) error {
	return b.ask(ctx, "read the keys", func(ctx context.Context) error {
		all, err := b.cfg.Database.Sites(ctx)
		if err != nil {
			return err
		}
		return b.useSites(all, time.Time{})
	})
}

func (b *Broker) makeMachine(stream site.StreamID, key site.KeyID, trailer int) {
	var seed [8]byte
	crand.Read(seed[:])
	m := engine.New(engine.Config{
		Site: b.siteID, Stream: stream, Role: site.Role(b.cfg.Role), Key: key,
		FrameBytes: b.cfg.frameBytes(), TrailerBytes: trailer,
		MaxEventBytes: b.cfg.MaxEventBytes, UnsentBytes: b.cfg.UnsentBytes,
		RingBytes: b.cfg.RingBytes, RingFrames: b.cfg.RingFrames,
		HoldFrames: holdFrames, HoldBytes: max(leastHoldBytes, b.cfg.HoldBytes), CacheBytes: b.cfg.CacheBytes,
		MissedAfter: b.cfg.MissedAfter, MaxStall: b.cfg.MaxStall,
		Seed: binary.BigEndian.Uint64(seed[:]),
	})
	b.mu.Lock()
	b.crowd.least = 2 * (b.cfg.frameBytes() + engine.FrameCharge)
	m.SetWindow(b.window())
	now := time.Now()
	m.SetRoom(now, b.roomLocked(now), &b.fx)
	b.machine = m
	b.mu.Unlock()
}

// snapshotOfAll reads who is there in all sites that are accepted, and the keys
// after that: changes from then on are reported, but none that came between the
// keys read before and the snapshot. If a site has come, it is read again.
func (b *Broker) snapshotOfAll(ctx context.Context, self site.StreamID) (snap site.Snapshot, err error) {
	for range snapshotTries {
		asked := b.keyring.Load().ids
		if snap, err = b.snapshot(ctx, self); err != nil {
			return snap, err
		}
		if err = b.readKeys(ctx); err != nil || slices.Equal(asked, b.keyring.Load().ids) {
			return snap, err
		}
	}
	return snap, fmt.Errorf("read the snapshot: sites were registered %d times meanwhile; try again", snapshotTries)
}

// snapshot reads who is there, after the own row was committed.
func (b *Broker) snapshot(ctx context.Context, self site.StreamID) (snap site.Snapshot, err error) {
	for try := 1; ; try++ {
		err = b.ask(ctx, "read the snapshot", func(ctx context.Context) (err error) {
			snap, err = b.cfg.Database.Snapshot(ctx, self, b.keyring.Load().ids)
			return err
		})
		if err == nil || !errors.Is(err, site.ErrStale) || try == snapshotTries {
			return snap, err
		}
		pause := time.NewTimer(snapshotAgain)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return snap, err
		}
	}
}
