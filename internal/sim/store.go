package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/carillon-go/carillon/site"
)

// A store is what a site database holds, in the order in which it came, so that
// every read of the same state gives the same answer. Its methods are those of
// [site.Database] without the waiting; see there for what each promises.
type store struct {
	epoch        uint64
	generation   uint64
	revision     site.Revision
	siteRevision site.Revision
	sites        []site.Site // by name
	rows         []storedRow
	index        map[site.StreamID]int
}

type storedRow struct {
	member   site.Member
	lease    time.Time
	closed   time.Time
	revision site.Revision
}

// clone returns a copy that shares nothing that changes.
func (s *store) clone() *store {
	c := *s
	c.sites, c.rows, c.index = slices.Clone(s.sites), slices.Clone(s.rows), maps.Clone(s.index)
	return &c
}

func (s *store) addSite(x site.Site) {
	s.generation++
	s.revision++
	s.siteRevision = s.revision
	x.Generation = s.generation
	s.sites = append(s.sites, x)
}

func (s *store) changeSite(next site.Site) (site.Site, error) {
	i := slices.IndexFunc(s.sites, func(x site.Site) bool { return x.ID == next.ID })
	if i < 0 {
		return site.Site{}, fmt.Errorf("sim: there is no site %v", next.ID)
	}
	was := s.sites[i]
	if was.Generation != next.Generation {
		return site.Site{}, site.ErrConflict
	}
	if err := site.CheckChange(was, next); err != nil {
		return site.Site{}, err
	}
	s.generation++
	s.revision++
	s.siteRevision = s.revision
	next.Generation = s.generation
	next.Keys = slices.Clone(next.Keys)
	for i := range next.Keys {
		k := &next.Keys[i]
		if old := was.Key(k.ID); old.State != k.State || !old.Until.Equal(k.Until) {
			k.Changed = s.generation
		} else {
			k.Changed = old.Changed
		}
		if k.State.Ended() {
			k.Secret = site.Secret{}
		}
	}
	s.sites[i] = next
	return next, nil
}

func (s *store) nextEpoch() uint64 {
	s.epoch++
	return s.epoch
}

func (s *store) join(m site.Member, lease time.Duration, now time.Time) error {
	if err := m.Check(); err != nil {
		return err
	}
	if _, ok := s.index[m.Stream]; ok {
		return fmt.Errorf("sim: stream %v has a row already", m.Stream)
	}
	m.State, m.Joined, m.Seen = site.MemberOpen, now, now
	s.revision++
	s.index[m.Stream] = len(s.rows)
	s.rows = append(s.rows, storedRow{member: m, lease: now.Add(lease), revision: s.revision})
	return nil
}

func (s *store) snapshot(self site.StreamID, sites []site.ID, now time.Time) (site.Snapshot, error) {
	i, ok := s.index[self]
	switch {
	case !ok:
		return site.Snapshot{}, site.ErrStale
	case s.rows[i].member.State != site.MemberOpen:
		return site.Snapshot{}, site.ErrGone
	}
	return site.Snapshot{
		Members: s.members(now, func(r *storedRow) bool {
			return r.member.State == site.MemberOpen && slices.Contains(sites, r.member.Site)
		}),
		Sites:    slices.DeleteFunc(slices.Clone(s.sites), func(x site.Site) bool { return !slices.Contains(sites, x.ID) }),
		Revision: s.revision, Now: now,
	}, nil
}

func (s *store) changes(since site.Revision, now time.Time) (site.Snapshot, error) {
	if since > s.revision {
		return site.Snapshot{}, site.ErrStale
	}
	snap := site.Snapshot{Members: s.members(now, func(r *storedRow) bool { return r.revision > since }), Revision: s.revision, Now: now}
	if s.siteRevision > since {
		snap.Sites = slices.Clone(s.sites)
	}
	return snap, nil
}

func (s *store) members(now time.Time, keep func(*storedRow) bool) (members []site.Member) {
	for i := range s.rows {
		if r := &s.rows[i]; keep(r) {
			m := r.member
			m.Lapsed = r.lease.Before(now)
			members = append(members, m)
		}
	}
	return members
}

func (s *store) renew(self site.StreamID, n site.Renewal, now time.Time) error {
	i, ok := s.index[self]
	if !ok || s.rows[i].member.State != site.MemberOpen {
		return site.ErrGone
	}
	r := &s.rows[i]
	r.member.Mark = laterMark(r.member.Mark, n.Mark)
	r.member.Verifies, r.member.Signs = max(r.member.Verifies, n.Verifies), max(r.member.Signs, n.Signs)
	r.member.Seen, r.lease = now, now.Add(n.Lease)
	s.touch(r)
	return nil
}

func (s *store) leave(self site.StreamID, final site.Mark, now time.Time) {
	i, ok := s.index[self]
	if !ok {
		return
	}
	r := &s.rows[i]
	switch {
	case r.member.State == site.MemberOpen:
		r.member.Mark = laterMark(r.member.Mark, final)
		r.member.State, r.closed = site.MemberClosed, now
		s.touch(r)
	case r.member.State == site.MemberReaped && final.Frame > r.member.Mark.Frame:
		r.member.Mark = laterMark(r.member.Mark, final)
		s.touch(r)
	}
}

func (s *store) reap(grace time.Duration, now time.Time) (reaped []site.StreamID) {
	for i := range s.rows {
		if r := &s.rows[i]; r.member.State == site.MemberOpen && now.Sub(r.lease) > grace {
			r.member.State, r.closed = site.MemberReaped, now
			s.touch(r)
			reaped = append(reaped, r.member.Stream)
		}
	}
	return reaped
}

func (s *store) touch(r *storedRow) {
	s.revision++
	r.revision = s.revision
}

func laterMark(a, b site.Mark) site.Mark {
	return site.Mark{Frame: max(a.Frame, b.Frame), Next: max(a.Next, b.Next)}
}
