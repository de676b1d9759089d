package carillon

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

const (
	databaseTimeout = 4 * time.Second  // of one call
	forgetClosed    = 10 * time.Minute // the names of instances that are gone
	longestKeyWait  = 10 * time.Second // between reads that unknown keys provoke
	maxOwn          = 256              // streams of this instance that are remembered
)

// A Member is a running instance, as the site database and its frames say.
type Member struct {
	Site        site.ID
	SiteName    string // empty if the site is not known here
	Stream      site.StreamID
	Server      string
	Application string
	Version     string
	Role        Role
	Addresses   map[string][]string // by provider name; read-only

	Joined      time.Time // by the database's clock
	LastContact time.Time // last renewal of its row, by the database's clock, or later frame
	Self        bool      // it is this instance
	Lapsed      bool      // its lease has run out, and no frame came for as long: it is probably gone
}

// memberTable is what this instance knows of the member rows of accepted sites. It belongs
// to the Broker's mutex.
type memberTable struct {
	members  map[site.StreamID]*memberRow
	sources  map[site.StreamID]*Source
	revision site.Revision
	readAll  time.Time     // when all rows were read last
	offset   time.Duration // the database's clock less this one
}

type memberRow struct {
	site.Member
	closed time.Time // by this clock, when it was seen closed; zero while open
}

// update takes rows as they were read, and reports whether who is there, or how
// to reach them, has changed.
func (t *memberTable) update(rows []site.Member, now time.Time) (changed bool) {
	if t.members == nil {
		t.members, t.sources = map[site.StreamID]*memberRow{}, map[site.StreamID]*Source{}
	}
	for _, m := range rows {
		row := t.members[m.Stream]
		if row == nil {
			row = &memberRow{Member: site.Member{Stream: m.Stream}}
			t.members[m.Stream] = row
			t.sources[m.Stream] = &Source{Site: m.Site, Stream: m.Stream, Server: m.Server, Application: m.Application}
		}
		if row.State != m.State || !maps.EqualFunc(row.Addresses, m.Addresses, slices.Equal) {
			changed = true
		}
		if m.State != site.MemberOpen && row.closed.IsZero() {
			row.closed = now
		}
		row.Member = m
	}
	for stream, row := range t.members {
		if !row.closed.IsZero() && now.Sub(row.closed) > forgetClosed {
			delete(t.members, stream)
			delete(t.sources, stream)
		}
	}
	return changed
}

// lostBy adds to rows, which are all that the database has, those known here that
// it lost when it failed over, as if they had been reaped: their instances will
// find out and take new ones.
func (t *memberTable) lostBy(rows []site.Member) []site.Member {
	has := map[site.StreamID]bool{}
	for _, r := range rows {
		has[r.Stream] = true
	}
	for _, r := range t.open() {
		if !has[r.Stream] {
			r.State = site.MemberReaped
			rows = append(rows, r)
		}
	}
	return rows
}

// open returns the open rows, ascending by stream.
func (t *memberTable) open() []site.Member {
	var open []site.Member
	for _, row := range t.members {
		if row.State == site.MemberOpen {
			open = append(open, row.Member)
		}
	}
	slices.SortFunc(open, func(a, b site.Member) int { return bytes.Compare(a.Stream[:], b.Stream[:]) })
	return open
}

// Members returns the instances that the site database has as running, this one
// included, of all sites accepted, by site, server and stream.
func (b *Broker) Members() []Member {
	if b.local {
		return nil
	}
	b.mu.Lock()
	rows := b.rows.open()
	offset := b.rows.offset
	peers := b.machine.Peers()
	b.mu.Unlock()
	heard := make(map[site.StreamID]time.Time, len(peers))
	for _, p := range peers {
		heard[p.Stream] = p.HeardAt
	}
	names := map[site.ID]string{}
	for _, s := range b.keyring.Load().accepted {
		names[s.ID] = s.Name
	}
	self, now := b.self.Load().Stream, time.Now()
	members := make([]Member, len(rows))
	for i, r := range rows {
		m := Member{
			Site: r.Site, SiteName: names[r.Site], Stream: r.Stream, Server: r.Server, Application: r.Application,
			Version: r.Version, Role: Role(r.Role), Addresses: r.Addresses,
			Joined: r.Joined, LastContact: r.Seen, Self: r.Stream == self, Lapsed: r.Lapsed,
		}
		if at := heard[r.Stream]; at.After(m.LastContact) {
			m.LastContact = at
		}
		if m.Self {
			m.LastContact = now
		}
		m.Lapsed = (m.Lapsed || now.Add(offset).Sub(r.Seen) > b.cfg.Lease) && now.Sub(m.LastContact) > b.cfg.Lease
		members[i] = m
	}
	slices.SortStableFunc(members, func(x, y Member) int {
		return cmp.Or(strings.Compare(x.SiteName, y.SiteName), strings.Compare(x.Server, y.Server))
	})
	return members
}

// health is what this instance knows of its connection to the site database. It is
// safe for concurrent use.
type health struct {
	mu       sync.Mutex  // guards the fields below
	since    time.Time   // when the first of the calls that failed began; zero: the last one succeeded
	err      error       // of the last one
	good     time.Time   // when the last one that succeeded began
	isolated bool        // that was more than a lease ago
	alarm    *time.Timer // goes off when it was; nil before Open has read the snapshot

	stuck    time.Time // since when the own row cannot be renewed, or made; zero: it can
	stuckErr error
}

// away returns since when the database does not answer, and how it fails; the zero
// Time if it does.
func (h *health) away() (time.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.err
}

// note records what came of a call that began at start. It returns how long the database
// was away if it is back, whether it has just gone away, and whether isolation has ended.
func (h *health) note(start time.Time, lease time.Duration, err error) (back time.Duration, gone, over bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		if !h.since.IsZero() {
			back = start.Sub(h.since)
		}
		over = h.isolated
		h.since, h.err, h.good, h.isolated = time.Time{}, nil, start, false
		if h.alarm != nil {
			h.alarm.Reset(lease - time.Since(start))
		}
		return back, false, over
	}
	gone = h.since.IsZero()
	if gone {
		h.since = start
	}
	h.err = err
	return 0, gone, false
}

// overdue reports whether isolation begins now.
func (h *health) overdue(lease time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isolated || time.Since(h.good) < lease {
		return false
	}
	if h.since.IsZero() { // a call hangs, and has not failed yet
		h.since, h.err = h.good, errNoAnswer
	}
	h.isolated = true
	return true
}

var errNoAnswer = errors.New("no answer")

// watchIsolation has subscribers told when the database has not been reached for
// a lease, whether or not a call of it has failed by then.
func (b *Broker) watchIsolation() {
	h := &b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alarm = time.AfterFunc(b.cfg.Lease-time.Since(h.good), func() {
		if b.followCtx.Err() == nil && h.overdue(b.cfg.Lease) {
			b.log.Warn("site database not reached for a lease; there may be instances whose events are not accepted here", "lease", b.cfg.Lease)
			b.tellIsolated()
		}
	})
	context.AfterFunc(b.followCtx, func() { h.alarm.Stop() })
}

func (b *Broker) tellIsolated() {
	b.mu.Lock()
	b.isolatedLocked()
	b.mu.Unlock()
	b.logDropped()
}

// database makes one call of the site database, within bounds of time.
func (b *Broker) database(call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(b.followCtx, databaseTimeout)
	defer cancel()
	return call(ctx)
}

// noteRead keeps book of whether the site database answers: err is what came of a
// read of the changes that began at start.
func (b *Broker) noteRead(start time.Time, err error) {
	if b.followCtx.Err() != nil {
		return // it is this instance that stops
	}
	back, gone, over := b.health.note(start, b.cfg.Lease, err)
	switch {
	case gone:
		b.log.Warn("site database away; events keep flowing between the instances that know each other", keyError, err)
	case back > 0:
		b.log.Info("site database back", "after", back)
	}
	if over {
		b.tellIsolated()
	}
}

// noteRow keeps book of whether the own row can be written.
func (b *Broker) noteRow(tried string, err error) {
	if b.followCtx.Err() != nil {
		return
	}
	h := &b.health
	h.mu.Lock()
	was, now := h.stuck, time.Now()
	h.stuckErr = err
	switch {
	case err == nil:
		h.stuck = time.Time{}
	case was.IsZero():
		h.stuck = now
	}
	h.mu.Unlock()
	switch {
	case err != nil && was.IsZero():
		b.log.Warn("own member row cannot be written; if that lasts, others take this instance for dead", "tried", tried, keyError, err)
	case err == nil && !was.IsZero():
		b.log.Info("own member row written again", "after", now.Sub(was))
	}
}

// isolatedLocked has everybody told that events may have been missed without a
// trace. b.mu is held.
func (b *Broker) isolatedLocked() {
	switch {
	case b.cfg.Role&Subscribe == 0 || b.closing.Load():
	case b.enabled:
		b.tellMissedLocked(&Missed{Reason: MissedIsolated, Reports: 1})
	default:
		b.hold.isolated = true
	}
}

// follow keeps this instance's row alive, and what it knows of the others up to date,
// until followCtx ends.
func (b *Broker) follow() {
	var (
		renewAt = time.Now().Add(b.cfg.Lease / 3)
		reapAt  = time.Now().Add(b.reapIn())
		timer   = time.NewTimer(b.pollIn())
	)
	defer timer.Stop()
	for {
		select {
		case <-b.followCtx.Done():
			return
		case <-timer.C:
		case <-b.followWake:
		}
		heard := b.takeWitnesses()
		if b.readChanges() {
			b.guardClones(heard)
		}
		b.followTransports()
		if now := time.Now(); !now.Before(renewAt) || b.rowDirty || b.unsaid() {
			if b.renew() == nil {
				renewAt = now.Add(b.cfg.Lease / 3)
			}
		}
		if b.rowGone() {
			b.rejoin()
		}
		if now := time.Now(); !now.Before(reapAt) {
			reapAt = now.Add(b.reapIn())
			b.reap()
		}
		timer.Reset(b.pollIn())
	}
}

// pollIn returns when to read the changes next: with jitter, so that instances
// that started together do not read together for ever.
func (b *Broker) pollIn() time.Duration { return b.cfg.Poll*3/4 + rand.N(b.cfg.Poll/2+1) }

// reapIn returns when to reap next: rarely, and less so the more there are to do
// it.
func (b *Broker) reapIn() time.Duration {
	b.mu.Lock()
	n := len(b.rows.members)
	b.mu.Unlock()
	return b.cfg.Lease + rand.N(b.cfg.Lease*time.Duration(1+n/4))
}

// readChanges reads what changed in the member table and the keyrings, and
// reports whether the database answered.
func (b *Broker) readChanges() bool {
	start := time.Now()
	b.mu.Lock()
	if start.Sub(b.rows.readAll) >= b.cfg.Lease {
		// A database that failed over gives revisions again that it gave before, so
		// that a row can hide behind those that were read.
		b.rows.revision = 0
	}
	asked, since := b.asked, b.rows.revision
	b.asked = false
	b.mu.Unlock()
	var snap site.Snapshot
	err := b.database(func(ctx context.Context) (err error) {
		snap, err = b.cfg.Database.Changes(ctx, since)
		return err
	})
	b.noteRead(start, err)
	if errors.Is(err, site.ErrStale) && since > 0 {
		// The database was restored from a backup, or a replica answered. The rows
		// that this instance knows may not be in it, so everything is read again.
		b.log.Warn("site database is older than what was read from it before", keyError, err)
		b.mu.Lock()
		b.rows.revision = 0
		b.mu.Unlock()
	}
	if err == nil && len(snap.Sites) > 0 {
		if err := b.useSites(snap.Sites, snap.Now); err != nil {
			b.log.Error("keyring not taken over", keyError, err)
		}
	}
	if err == nil {
		b.endKeys(snap.Now)
	}
	b.mu.Lock()
	now := time.Now()
	if err != nil {
		if asked {
			b.machine.AskFailed(now)
		}
		b.applyLocked(now)
		b.mu.Unlock()
		return false
	}
	rows := b.acceptedRows(snap.Members)
	self := b.self.Load().Stream
	if since == 0 && !slices.ContainsFunc(rows, func(m site.Member) bool { return m.Stream == self }) {
		b.gone = true // a database that failed over has lost it: whoever joins now does not know this instance
	}
	if since == 0 {
		rows = b.rows.lostBy(rows)
		b.rows.readAll = start
	}
	changed := b.rows.update(rows, now)
	b.rows.revision, b.rows.offset = snap.Revision, snap.Now.Sub(now)
	distrustNew := b.distrustLocked(now)
	b.machine.Members(now, b.foreign(rows), asked, &b.fx)
	distrustNew()
	b.applyLocked(now)
	b.countVerdictsLocked()
	b.mu.Unlock()
	b.logDropped()
	if changed {
		b.tellProviders()
	}
	return true
}

// acceptedRows returns the rows of sites that are accepted.
func (b *Broker) acceptedRows(rows []site.Member) []site.Member {
	ring := b.keyring.Load()
	return slices.DeleteFunc(rows, func(m site.Member) bool { return !ring.accepts(m.Site) })
}

// foreign returns the rows without those of streams that this instance had before.
func (b *Broker) foreign(rows []site.Member) []site.Member {
	own, self := *b.own.Load(), b.self.Load().Stream
	return slices.DeleteFunc(slices.Clone(rows), func(m site.Member) bool {
		return m.Stream != self && own.has(m.Stream)
	})
}

// tellProviders tells providers who is there. It is never called concurrently.
func (b *Broker) tellProviders() {
	own := *b.own.Load()
	b.mu.Lock()
	m := provider.Members{Self: b.self.Load().Stream, Others: b.rows.open()}
	b.mu.Unlock()
	m.Others = slices.DeleteFunc(m.Others, func(r site.Member) bool { return own.has(r.Stream) })
	for _, o := range b.outs {
		if l := o.link.Load(); l.watcher != nil && o.state == subscribed {
			l.watcher.SetMembers(m)
		}
	}
}

// keyWanted has the keyring read soon, because a frame named a key that is not
// in it. Anybody can send such frames, so the reads they provoke become rare.
func (b *Broker) keyWanted() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Before(b.keyReadAt) {
		return
	}
	if now.Sub(b.keyReadAt) > longestKeyWait {
		b.keyWait = 0
	}
	b.keyWait = min(max(b.cfg.Poll, 2*b.keyWait), longestKeyWait)
	b.keyReadAt = now.Add(b.keyWait)
	poke(b.followWake)
}

// renew extends the lease of the own row. The mark in it is that of what was handed to
// the providers: whoever reads it takes everything up to it for sent.
func (b *Broker) renew() error {
	b.mu.Lock()
	mark := b.machine.HandedMark()
	b.mu.Unlock()
	verifies, signs := b.claims()
	r := site.Renewal{Mark: mark, Verifies: verifies, Signs: signs, Carries: b.carried.Load(), Lease: b.cfg.Lease}
	if b.rowDirty {
		r.Addresses, r.Providers = b.addresses(), b.has()
	}
	err := b.database(func(ctx context.Context) error { return b.cfg.Database.Renew(ctx, b.self.Load().Stream, r) })
	if err == nil {
		b.rowDirty = false
	}
	if errors.Is(err, site.ErrGone) {
		b.mu.Lock()
		b.gone = true
		b.mu.Unlock()
		return nil
	}
	b.noteRow("renew", err)
	return err
}

func (b *Broker) rowGone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gone
}

// reap closes the rows of others that are long dead.
func (b *Broker) reap() {
	var reaped []site.StreamID
	err := b.database(func(ctx context.Context) (err error) {
		reaped, err = b.cfg.Database.Reap(ctx, b.cfg.Lease)
		return err
	})
	if err == nil && len(reaped) > 0 {
		b.log.Info("closed member rows whose instances are gone", "streams", reaped)
	}
}

// rejoin takes a new stream, because the row of the present one is gone, or what
// is said in its name cannot be trusted any more. If that fails, the next round
// tries again.
func (b *Broker) rejoin() {
	old := b.self.Load().Stream
	var (
		stream site.StreamID
		key    site.Key
		next   *sealer
	)
	err := b.database(func(ctx context.Context) error {
		if err := b.readKeys(ctx); err != nil {
			return err // before there is a row that nobody can speak for
		}
		if _, err := seal.NewSealer(b.keyring.Load().active, b.siteID, old); err != nil {
			return err
		}
		var err error
		if stream, err = b.join(ctx); err != nil {
			return err
		}
		// Who rotated the key while there was no row did not wait for this instance.
		if err := b.readKeys(ctx); err != nil {
			return err
		}
		key = b.keyring.Load().active
		s, err := seal.NewSealer(key, b.siteID, stream)
		next = &sealer{Sealer: s, stream: stream, key: key.ID}
		return err
	})
	b.noteRow("join again", err)
	if err != nil {
		if stream != (site.StreamID{}) { // a row that nobody speaks for would be waited for
			b.database(func(ctx context.Context) error { return b.cfg.Database.Leave(ctx, stream, site.Mark{}) })
		}
		return
	}
	b.addSealer(next)
	b.setSelf(next.stream)
	b.tellProviders()
	b.mu.Lock()
	now, mark := time.Now(), b.machine.Mark()
	b.machine.SetKey(now, key.ID, next.Trailer())
	b.machine.Renumber(now, next.stream, &b.fx)
	b.gone = false
	b.applyLocked(now)
	b.mu.Unlock()
	if len(b.ended) >= maxOwn {
		clear(b.ended)
	}
	b.ended[old] = mark
	b.log.Warn("went on with a new stream", keyStream, next.stream, "old", old)
	if err := b.database(func(ctx context.Context) error { return b.cfg.Database.Leave(ctx, old, mark) }); err != nil {
		b.log.Info("member row of the old stream not closed; its lease will run out", keyStream, old, keyError, err)
	}
}

// join takes a new stream and commits its row. Whether a row was committed is unclear
// after an error, so every attempt takes a stream of its own and remembers it.
func (b *Broker) join(ctx context.Context) (site.StreamID, error) {
	epoch, err := b.cfg.Database.NextEpoch(ctx)
	if err != nil {
		return site.StreamID{}, fmt.Errorf("take an epoch: %w", err)
	}
	var random [8]byte
	crand.Read(random[:])
	stream := site.NewStreamID(epoch, binary.BigEndian.Uint64(random[:]))
	own := append(slices.Clone(*b.own.Load()), stream)
	own = own[max(0, len(own)-maxOwn):]
	b.own.Store(&own)
	verifies, _ := b.claims()
	// It will sign as it reads before it has sealed anything; and never with less
	// than it knows, though it may claim nothing while the database contradicts
	// itself: others would take the new stream for one of before a compromise.
	signs := max(verifies, b.keyring.Load().self.Generation)
	err = b.cfg.Database.Join(ctx, site.Member{
		Site: b.siteID, Stream: stream, Server: b.cfg.Server, Application: b.cfg.Application, Version: b.cfg.Version,
		Role: site.Role(b.cfg.Role), Addresses: b.addresses(), Verifies: verifies, Signs: signs,
		Providers: b.has(), Uses: b.uses(), Carries: b.carried.Load(),
	}, b.cfg.Lease)
	if err != nil {
		return site.StreamID{}, fmt.Errorf("write the member row: %w", err)
	}
	return stream, nil
}

// addresses returns what others must know to reach this instance.
func (b *Broker) addresses() map[string][]string {
	a := map[string][]string{}
	for _, o := range b.outs {
		if o.state != subscribed {
			continue
		}
		if adv, ok := o.link.Load().provider.(provider.Advertiser); ok {
			a[o.name] = adv.Addresses()
		}
	}
	return a
}

// setSelf makes stream the one of this instance.
func (b *Broker) setSelf(stream site.StreamID) {
	b.self.Store(&Source{Site: b.siteID, Stream: stream, Server: b.cfg.Server, Application: b.cfg.Application})
}
