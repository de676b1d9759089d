// Package memsite keeps a site database in memory, for tests and for programs
// whose instances all run in one process. Every instance gets the same
// [Database]; nothing outlives it.
package memsite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carillon-go/carillon/site"
)

// tombstone is how long a closed row stays.
const tombstone = 24 * time.Hour

// A Database is a [site.Database] in memory. It is safe for concurrent use. Use
// [New] to make one; the zero Database does not work.
type Database struct {
	now func() time.Time

	mu           sync.Mutex // guards the fields below
	down         error
	epoch        uint64
	generation   uint64 // of the last change to any site
	revision     site.Revision
	siteRevision site.Revision // of the last change to sites
	sites        map[site.ID]site.Site
	rows         map[site.StreamID]*row
	open         map[site.ID]int // open rows of each site
}

type row struct {
	member   site.Member // Lapsed is computed when read
	lease    time.Time   // until when the row counts as live
	closed   time.Time   // zero while open
	revision site.Revision
}

var _ site.Database = (*Database)(nil)

// New returns an empty database. Its clock is now, or [time.Now] when that is
// nil; now is called with a lock held, so it must not call the database.
func New(now func() time.Time) *Database {
	if now == nil {
		now = time.Now
	}
	return &Database{now: now, sites: map[site.ID]site.Site{}, rows: map[site.StreamID]*row{}, open: map[site.ID]int{}}
}

// Copy returns another database that holds what d holds now, as a restored backup
// does.
func (d *Database) Copy() *Database {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := New(d.now)
	c.epoch, c.revision, c.siteRevision, c.generation = d.epoch, d.revision, d.siteRevision, d.generation
	c.sites, c.open = maps.Clone(d.sites), maps.Clone(d.open)
	for stream, r := range d.rows {
		copied := *r
		c.rows[stream] = &copied
	}
	return c
}

// SetDown takes the database away: until SetDown(nil), every method of
// [site.Database] returns an error that wraps err. What is stored stays.
func (d *Database) SetDown(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = err
}

// PutSite stores s as it is, in place of the site with its ID if there is one,
// as an operator does who changes keys or floors. It counts as a change to sites.
func (d *Database) PutSite(s site.Site) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.putSiteLocked(s)
}

func (d *Database) putSiteLocked(s site.Site) {
	d.generation = max(d.generation, s.Generation)
	d.revision++
	d.siteRevision = d.revision
	d.sites[s.ID] = cloneSite(s)
}

// begin locks d and returns the time, or an error with d unlocked.
func (d *Database) begin(ctx context.Context, tried string) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, fmt.Errorf("memsite: %s: %w", tried, err)
	}
	d.mu.Lock()
	if err := d.down; err != nil {
		d.mu.Unlock()
		return time.Time{}, fmt.Errorf("memsite: %s: %w", tried, err)
	}
	return d.now(), nil
}

// EnsureSite implements [site.Database].
func (d *Database) EnsureSite(ctx context.Context, name string) (site.Site, error) {
	if err := site.CheckName(name); err != nil {
		return site.Site{}, err
	}
	if _, err := d.begin(ctx, "ensure the site"); err != nil {
		return site.Site{}, err
	}
	defer d.mu.Unlock()
	for _, s := range d.sites {
		if s.Name == name {
			return cloneSite(s), nil
		}
	}
	s := site.NewSite(name)
	s.Generation = d.generation + 1
	s.Keys[0].Changed = s.Generation
	d.putSiteLocked(s)
	return s, nil
}

// ChangeSite implements [site.Database].
func (d *Database) ChangeSite(ctx context.Context, next site.Site) (site.Site, error) {
	if _, err := d.begin(ctx, "change the site"); err != nil {
		return site.Site{}, err
	}
	defer d.mu.Unlock()
	s, ok := d.sites[next.ID]
	if !ok {
		return site.Site{}, fmt.Errorf("memsite: change site %q: there is no site %v", next.Name, next.ID)
	}
	if s.Generation != next.Generation {
		return site.Site{}, fmt.Errorf("memsite: change site %q from generation %d: it has %d: %w", next.Name, next.Generation, s.Generation, site.ErrConflict)
	}
	if err := site.CheckChange(s, next); err != nil {
		return site.Site{}, err
	}
	old := s.Keys
	s.Keys, s.Floors, s.Generation = slices.Clone(next.Keys), next.Floors, d.generation+1
	if !s.Transports.Equal(next.Transports) {
		s.Transports = next.Transports.Clone()
		s.Transports.Changed = s.Generation
		if !s.Transports.Until.IsZero() {
			s.Transports.Until = time.UnixMilli(s.Transports.Until.UnixMilli())
		}
	}
	for i := range s.Keys {
		k := &s.Keys[i]
		if k.State.Ended() {
			k.Secret = site.Secret{}
		}
		if !k.Until.IsZero() {
			k.Until = time.UnixMilli(k.Until.UnixMilli())
		}
		if i < len(old) && k.State == old[i].State && k.Until.Equal(old[i].Until) {
			k.Changed = old[i].Changed
		} else {
			k.Changed = s.Generation
		}
	}
	d.putSiteLocked(s)
	return cloneSite(s), nil
}

// Sites implements [site.Database].
func (d *Database) Sites(ctx context.Context) ([]site.Site, error) {
	if _, err := d.begin(ctx, "read the sites"); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	return d.sitesLocked(nil), nil
}

// NextEpoch implements [site.Database].
func (d *Database) NextEpoch(ctx context.Context) (uint64, error) {
	if _, err := d.begin(ctx, "take an epoch"); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	d.epoch++
	return d.epoch, nil
}

// Join implements [site.Database].
func (d *Database) Join(ctx context.Context, m site.Member, lease time.Duration) error {
	if err := m.Check(); err != nil {
		return err
	}
	if err := site.CheckLease(lease); err != nil {
		return err
	}
	now, err := d.begin(ctx, "join")
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if _, ok := d.sites[m.Site]; !ok {
		return fmt.Errorf("memsite: join as %v: there is no site %v", m.Stream, m.Site)
	}
	if _, ok := d.rows[m.Stream]; ok {
		return fmt.Errorf("memsite: join as %v: the stream has a row already", m.Stream)
	}
	if open := d.open[m.Site]; open >= site.DefaultMaxMembers {
		return fmt.Errorf("memsite: join as %v: %d rows are open: %w", m.Stream, open, site.ErrFull)
	}
	m.State = site.MemberOpen
	m = cloneMember(m)
	m.Joined, m.Seen, m.Lapsed = now, now, false
	m.Witness = [16]byte{}
	d.open[m.Site]++
	d.revision++
	d.rows[m.Stream] = &row{member: m, lease: now.Add(lease), revision: d.revision}
	return nil
}

// Snapshot implements [site.Database].
func (d *Database) Snapshot(ctx context.Context, self site.StreamID, sites []site.ID) (site.Snapshot, error) {
	now, err := d.begin(ctx, "read a snapshot")
	if err != nil {
		return site.Snapshot{}, err
	}
	defer d.mu.Unlock()
	own, ok := d.rows[self]
	if !ok {
		return site.Snapshot{}, fmt.Errorf("memsite: read a snapshot: no row of %v: %w", self, site.ErrStale)
	}
	if own.member.State != site.MemberOpen {
		return site.Snapshot{}, fmt.Errorf("memsite: read a snapshot as %v: %w", self, site.ErrGone)
	}
	return site.Snapshot{
		Members: d.membersLocked(now, func(r *row) bool {
			return r.member.State == site.MemberOpen && slices.Contains(sites, r.member.Site)
		}),
		Sites:    d.sitesLocked(func(s site.Site) bool { return slices.Contains(sites, s.ID) }),
		Revision: d.revision,
		Now:      now,
	}, nil
}

// Changes implements [site.Database].
func (d *Database) Changes(ctx context.Context, since site.Revision) (site.Snapshot, error) {
	now, err := d.begin(ctx, "read the changes")
	if err != nil {
		return site.Snapshot{}, err
	}
	defer d.mu.Unlock()
	if since > d.revision {
		return site.Snapshot{}, fmt.Errorf("memsite: read the changes after revision %d: the database is at %d: %w", since, d.revision, site.ErrStale)
	}
	snap := site.Snapshot{
		Members:  d.membersLocked(now, func(r *row) bool { return r.revision > since }),
		Revision: d.revision,
		Now:      now,
	}
	if d.siteRevision > since {
		snap.Sites = d.sitesLocked(nil)
	}
	return snap, nil
}

// Renew implements [site.Database].
func (d *Database) Renew(ctx context.Context, self site.StreamID, renewal site.Renewal) error {
	if err := renewal.Check(); err != nil {
		return err
	}
	now, err := d.begin(ctx, "renew")
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	r, ok := d.rows[self]
	if !ok || r.member.State != site.MemberOpen {
		return fmt.Errorf("memsite: renew %v: %w", self, site.ErrGone)
	}
	m := &r.member
	m.Mark = later(m.Mark, renewal.Mark)
	m.Verifies = max(m.Verifies, renewal.Verifies)
	m.Signs = max(m.Signs, renewal.Signs)
	m.Carries = max(m.Carries, renewal.Carries)
	if renewal.Providers != nil {
		m.Providers = slices.Clone(renewal.Providers)
	}
	if renewal.Addresses != nil {
		m.Addresses = cloneAddresses(renewal.Addresses)
	}
	if renewal.Witness != [16]byte{} {
		m.Witness = renewal.Witness
	}
	m.Seen = now
	r.lease = now.Add(renewal.Lease)
	d.touchLocked(r)
	return nil
}

// Leave implements [site.Database].
func (d *Database) Leave(ctx context.Context, self site.StreamID, final site.Mark) error {
	if err := final.Check(); err != nil {
		return err
	}
	now, err := d.begin(ctx, "leave")
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	r, ok := d.rows[self]
	switch {
	case !ok || r.member.State == site.MemberClosed:
	case r.member.State == site.MemberOpen:
		r.member.Mark = later(r.member.Mark, final)
		d.closeLocked(r, site.MemberClosed, now)
	case final.Frame > r.member.Mark.Frame:
		r.member.Mark = later(r.member.Mark, final)
		d.touchLocked(r)
	}
	return nil
}

// Reap implements [site.Database].
func (d *Database) Reap(ctx context.Context, grace time.Duration) ([]site.StreamID, error) {
	if grace < 0 {
		return nil, errors.New("memsite: reap: the grace is negative")
	}
	now, err := d.begin(ctx, "reap")
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	var reaped []site.StreamID
	for stream, r := range d.rows {
		switch {
		case r.member.State != site.MemberOpen:
			if now.Sub(r.closed) > tombstone {
				delete(d.rows, stream)
			}
		case now.Sub(r.lease) > grace:
			d.closeLocked(r, site.MemberReaped, now)
			reaped = append(reaped, stream)
		}
	}
	return reaped, nil
}

// ClientAddr implements [site.Database] with the loopback address.
func (d *Database) ClientAddr(ctx context.Context) (netip.Addr, error) {
	if _, err := d.begin(ctx, "read the client's address"); err != nil {
		return netip.Addr{}, err
	}
	defer d.mu.Unlock()
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
}

// closeLocked makes the open row r a tombstone.
func (d *Database) closeLocked(r *row, state site.MemberState, now time.Time) {
	r.member.State = state
	r.closed = now
	d.open[r.member.Site]--
	d.touchLocked(r)
}

func (d *Database) touchLocked(r *row) {
	d.revision++
	r.revision = d.revision
}

// membersLocked returns copies of the rows that keep accepts.
func (d *Database) membersLocked(now time.Time, keep func(*row) bool) []site.Member {
	var members []site.Member
	for _, r := range d.rows {
		if keep(r) {
			m := cloneMember(r.member)
			m.Lapsed = r.lease.Before(now)
			members = append(members, m)
		}
	}
	return members
}

// sitesLocked returns copies of the sites that keep accepts, by name; nil
// accepts all.
func (d *Database) sitesLocked(keep func(site.Site) bool) []site.Site {
	var sites []site.Site
	for _, s := range d.sites {
		if keep == nil || keep(s) {
			sites = append(sites, cloneSite(s))
		}
	}
	slices.SortFunc(sites, func(a, b site.Site) int { return strings.Compare(a.Name, b.Name) })
	return sites
}

func later(a, b site.Mark) site.Mark {
	return site.Mark{Frame: max(a.Frame, b.Frame), Next: max(a.Next, b.Next)}
}

func cloneSite(s site.Site) site.Site {
	s.Keys = slices.Clone(s.Keys)
	s.Transports = s.Transports.Clone()
	return s
}

func cloneMember(m site.Member) site.Member {
	m.Addresses, m.Providers, m.Uses = cloneAddresses(m.Addresses), slices.Clone(m.Providers), slices.Clone(m.Uses)
	return m
}

func cloneAddresses(addresses map[string][]string) map[string][]string {
	c := maps.Clone(addresses)
	for provider, list := range c {
		c[provider] = slices.Clone(list)
	}
	return c
}
