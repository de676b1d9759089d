package sitetest

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
)

func joinStoresTheMember(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.member()
	m.Server, m.Application, m.Version = "sërver 'x'", `app\"`, ""
	m.Role = site.RoleSubscribe
	m.Mark = site.Mark{Frame: 1<<48 - 1, Next: 1<<48 - 2}
	m.Verifies, m.Signs = 3, 2
	// What the database writes is ignored in what comes in.
	m.State, m.Lapsed = site.MemberReaped, true
	m.Joined, m.Seen = time.Unix(1, 0), time.Unix(2, 0)
	f.joinAs(m, hour)

	snap := f.changes(0)
	got, _ := find(snap, m.Stream)
	if got.Site != m.Site || got.Server != m.Server || got.Application != m.Application || got.Version != m.Version ||
		got.Role != m.Role || !sameAddresses(got.Addresses, m.Addresses) || got.Mark != m.Mark ||
		got.Verifies != m.Verifies || got.Signs != m.Signs {
		t.Errorf("joined as %+v, read back %+v", m, got)
	}
	if got.State != site.MemberOpen || got.Lapsed {
		t.Errorf("a new row has state %d, lapsed %v; want open and not lapsed", got.State, got.Lapsed)
	}
	if got.Joined.Equal(m.Joined) || got.Seen.Equal(m.Seen) || got.Joined.IsZero() || got.Seen.Before(got.Joined) || snap.Now.Before(got.Seen) {
		t.Errorf("joined %v, seen %v, now %v; want the database's clock, in this order", got.Joined, got.Seen, snap.Now)
	}

	empty := f.member()
	empty.Server, empty.Application, empty.Version, empty.Addresses = "", "", "", nil
	f.joinAs(empty, hour)
	if got := f.row(empty.Stream); got.Server != "" || len(got.Addresses) != 0 {
		t.Errorf("joined with nothing optional, read back %+v", got)
	}

	long := f.member()
	text := strings.Repeat("x", site.MaxTextLen)
	long.Server, long.Application, long.Version, long.Addresses = text, text, text, map[string][]string{}
	for i := range site.MaxProviders {
		p := strconv.Itoa(i)
		long.Addresses[p+text[len(p):]] = slices.Repeat([]string{text}, site.MaxAddresses)
	}
	f.joinAs(long, hour)
	if got := f.row(long.Stream); got.Server != text || got.Application != text || got.Version != text || !sameAddresses(got.Addresses, long.Addresses) {
		t.Error("joined with everything as long as allowed, read back something else")
	}
}

func joinRefusesWhatCannotBeStored(t *testing.T, store Store) {
	f := newFixture(t, store)
	many := map[string][]string{}
	for i := range site.MaxProviders + 1 {
		many[strconv.Itoa(i)] = nil
	}
	for _, c := range []struct {
		name  string
		spoil func(*site.Member)
		lease time.Duration
	}{
		{"no site", func(m *site.Member) { m.Site = site.ID{} }, hour},
		{"a site that does not exist", func(m *site.Member) { m.Site[0] ^= 1 }, hour},
		{"no stream", func(m *site.Member) { m.Stream = site.StreamID{} }, hour},
		{"no role", func(m *site.Member) { m.Role = 0 }, hour},
		{"an unknown role", func(m *site.Member) { m.Role = 4 }, hour},
		{"a server that is not UTF-8", func(m *site.Member) { m.Server = "\xff" }, hour},
		{"a version with a zero byte", func(m *site.Member) { m.Version = "\x00" }, hour},
		{"a server too long", func(m *site.Member) { m.Server = strings.Repeat("x", site.MaxTextLen+1) }, hour},
		{"an address too long", func(m *site.Member) {
			m.Addresses = map[string][]string{"tcp": {strings.Repeat("x", site.MaxTextLen+1)}}
		}, hour},
		{"too many addresses", func(m *site.Member) {
			m.Addresses = map[string][]string{"tcp": slices.Repeat([]string{"x"}, site.MaxAddresses+1)}
		}, hour},
		{"too many providers", func(m *site.Member) { m.Addresses = many }, hour},
		{"a mark too high", func(m *site.Member) { m.Mark.Frame = site.MaxMark }, hour},
		{"a generation too high", func(m *site.Member) { m.Verifies = 1 << 63 }, hour},
		{"no lease", func(*site.Member) {}, 0},
		{"a negative lease", func(*site.Member) {}, -1},
		{"a lease too long", func(*site.Member) {}, site.MaxLease + 1},
	} {
		m := f.member()
		c.spoil(&m)
		f.wantError("Join with "+c.name, f.db.Join(t.Context(), m, c.lease), nil)
	}
	if got := f.changes(0); len(got.Members) != 0 {
		t.Errorf("refused joins left %d rows", len(got.Members))
	}
}

func joinNeverReusesAStream(t *testing.T, store Store) {
	f := newFixture(t, store)
	open, closed, reaped := f.join(24*hour), f.join(24*hour), f.join(time.Second)
	f.leave(closed.Stream, site.Mark{Frame: 5, Next: 6})
	store.Advance(t, hour)
	f.reap(0)
	before := f.changes(0)
	for what, m := range map[string]site.Member{"an open": open, "a closed": closed, "a reaped": reaped} {
		m.Server = "intruder"
		f.wantError("Join with the stream of "+what+" row", f.db.Join(t.Context(), m, hour), nil)
	}
	for _, was := range before.Members {
		if got := f.row(was.Stream); got.Server != was.Server || got.State != was.State || got.Mark != was.Mark {
			t.Errorf("a refused Join changed the row %+v to %+v", was, got)
		}
	}
}

func snapshotHasOpenRowsOfItsSites(t *testing.T, store Store) {
	f := newFixture(t, store)
	second, third := f.ensure("second"), f.ensure("third")
	in := func(s site.Site, lease time.Duration) site.Member {
		m := f.member()
		m.Site = s.ID
		f.joinAs(m, lease)
		return m
	}
	self, lapsed, closed := in(f.site, 24*hour), in(f.site, 2*hour), in(f.site, 24*hour)
	in(f.site, time.Second) // to be reaped
	other, foreign := in(second, 24*hour), in(third, 24*hour)
	f.leave(closed.Stream, site.Mark{})
	store.Advance(t, hour)
	f.reap(0)
	store.Advance(t, 2*hour) // lapsed has lapsed and nobody reaped it

	for _, c := range []struct {
		name  string
		sites []site.ID
		want  []site.StreamID
		names []string
	}{
		{"its own site", []site.ID{f.site.ID}, []site.StreamID{self.Stream, lapsed.Stream}, []string{"app"}},
		{"two sites", []site.ID{second.ID, f.site.ID}, []site.StreamID{self.Stream, lapsed.Stream, other.Stream}, []string{"app", "second"}},
		{"another site only", []site.ID{third.ID}, []site.StreamID{foreign.Stream}, []string{"third"}},
		{"a site that does not exist", []site.ID{{9}}, nil, nil},
		{"no site", nil, nil, nil},
	} {
		snap := f.snapshot(self.Stream, c.sites...)
		var names []string
		for _, s := range snap.Sites {
			names = append(names, s.Name)
			if len(s.Keys) != 1 || s.Keys[0].Secret.IsZero() {
				t.Errorf("snapshot of %s: site %q has keys %+v", c.name, s.Name, s.Keys)
			}
		}
		slices.Sort(names)
		if got := streams(snap); !slices.Equal(got, sorted(c.want)) || !slices.Equal(names, c.names) {
			t.Errorf("snapshot of %s has streams %v and sites %q; want %v and %q", c.name, got, names, c.want, c.names)
		}
		for _, m := range snap.Members {
			if want := m.Stream == lapsed.Stream; m.Lapsed != want {
				t.Errorf("snapshot of %s: %v is lapsed: %v, want %v", c.name, m.Stream, m.Lapsed, want)
			}
		}
		if rest := f.changes(snap.Revision); len(rest.Members) != 0 || rest.Revision != snap.Revision || snap.Now.IsZero() {
			t.Errorf("snapshot of %s at revision %d, time %v: changes after it are %+v; want none", c.name, snap.Revision, snap.Now, rest)
		}
	}
}

func snapshotMustSeeItsOwnRow(t *testing.T, store Store) {
	f := newFixture(t, store)
	closed, reaped := f.join(24*hour), f.join(time.Second)
	f.leave(closed.Stream, site.Mark{})
	store.Advance(t, hour)
	f.reap(0)
	for what, c := range map[string]struct {
		self site.StreamID
		want error
	}{
		"a stream that never joined": {site.NewStreamID(7, 7), site.ErrStale},
		"the zero stream":            {site.StreamID{}, site.ErrStale},
		"a closed row":               {closed.Stream, site.ErrGone},
		"a reaped row":               {reaped.Stream, site.ErrGone},
	} {
		_, err := f.db.Snapshot(t.Context(), c.self, []site.ID{f.site.ID})
		f.wantError("Snapshot for "+what, err, c.want)
	}
}

func changesReportEveryChange(t *testing.T, store Store) {
	f := newFixture(t, store)
	idle := f.join(24 * hour)
	since := f.changes(0).Revision
	var m site.Member
	for _, c := range []struct {
		name   string
		change func()
		state  site.MemberState
	}{
		{"Join", func() { m = f.join(hour) }, site.MemberOpen},
		{"Renew", func() { f.renew(m.Stream, site.Renewal{Mark: site.Mark{Frame: 3, Next: 9}, Lease: time.Second}) }, site.MemberOpen},
		{"Reap", func() { store.Advance(t, hour); f.reap(0) }, site.MemberReaped},
		{"Join again", func() { m = f.join(hour) }, site.MemberOpen},
		{"Leave", func() { f.leave(m.Stream, site.Mark{Frame: 4, Next: 10}) }, site.MemberClosed},
	} {
		c.change()
		snap := f.changes(since)
		if len(snap.Members) != 1 || snap.Members[0].Stream != m.Stream || snap.Members[0].State != c.state || snap.Revision <= since || len(snap.Sites) != 0 {
			t.Errorf("after %s, Changes(%d) = %+v; want the row of %v alone, in state %d, and a later revision", c.name, since, snap, m.Stream, c.state)
		}
		since = snap.Revision
		if snap := f.changes(since); len(snap.Members) != 0 || snap.Revision != since {
			t.Errorf("with no change after revision %d, Changes returned %+v", since, snap)
		}
	}
	if got := f.row(idle.Stream); got.State != site.MemberOpen {
		t.Errorf("a row that nobody touched is in state %d", got.State)
	}
	if got := f.changes(0); len(got.Members) != 3 || len(got.Sites) != 1 {
		t.Errorf("Changes(0) has %d rows and %d sites; want 3, in any state, and 1", len(got.Members), len(got.Sites))
	}
}

func changesReportSitesWhenOneChanged(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.join(hour)
	since := f.changes(0).Revision
	other := f.ensure("other")
	snap := f.changes(since)
	if !slices.EqualFunc(snap.Sites, []site.Site{f.site, other}, sameSite) || len(snap.Members) != 0 || snap.Revision <= since {
		t.Errorf("after a new site, Changes = %+v; want both sites and no member", snap)
	}
	f.ensure("other") // changes nothing
	f.renew(m.Stream, site.Renewal{Lease: hour})
	if snap = f.changes(snap.Revision); len(snap.Sites) != 0 || len(snap.Members) != 1 {
		t.Errorf("after a renewal, Changes = %+v; want one member and no site", snap)
	}
}

func changesFromTheFutureAreStale(t *testing.T, store Store) {
	f := newFixture(t, store)
	_, err := f.db.Changes(t.Context(), f.changes(0).Revision+1)
	f.wantError("Changes after a revision that is still to come", err, site.ErrStale)
}

// changesMissNothingUnderLoad lets several handles write at once while each
// follows the changes. A revision given before its transaction's place in the
// order of commits shows as a row that a follower never sees.
func changesMissNothingUnderLoad(t *testing.T, store Store) {
	f := newFixture(t, store)
	const handles, rounds = 6, 12
	folded := make([]map[site.StreamID]site.Member, handles)
	since := make([]site.Revision, handles)
	var own []site.Member
	for range handles {
		own = append(own, f.member())
	}
	var dbs []site.Database
	for range handles {
		dbs = append(dbs, store.Open(t))
	}
	follow := func(i int) bool {
		snap, err := dbs[i].Changes(t.Context(), since[i])
		if err != nil {
			t.Errorf("Changes(%d) under load: %v", since[i], err)
			return false
		}
		for _, m := range snap.Members {
			if was, ok := folded[i][m.Stream]; ok && (m.Mark.Frame < was.Mark.Frame || m.State < was.State) {
				t.Errorf("a later read went back from %+v to %+v", was, m)
			}
			folded[i][m.Stream] = m
		}
		since[i] = snap.Revision
		return true
	}
	var wg sync.WaitGroup
	for i, db := range dbs {
		folded[i] = map[site.StreamID]site.Member{}
		wg.Go(func() {
			self := own[i].Stream
			if err := db.Join(t.Context(), own[i], hour); err != nil {
				t.Errorf("Join under load: %v", err)
				return
			}
			for n := uint64(1); n <= rounds; n++ {
				mark := site.Mark{Frame: n, Next: n}
				var err error
				if n < rounds {
					err = db.Renew(t.Context(), self, site.Renewal{Mark: mark, Lease: hour})
				} else {
					err = db.Leave(t.Context(), self, mark)
				}
				if err != nil {
					t.Errorf("write %d under load: %v", n, err)
					return
				}
				if !follow(i) {
					return
				}
				if got := folded[i][self]; got.Mark != mark {
					t.Errorf("wrote mark %v, but the changes since then say %v", mark, got.Mark)
				}
			}
		})
	}
	wg.Wait()
	for i := range dbs {
		follow(i)
		for _, m := range own {
			if got := folded[i][m.Stream]; got.Mark.Frame != rounds || got.State != site.MemberClosed {
				t.Errorf("a follower of the changes ended with %+v for %v; want it closed at frame %d", got, m.Stream, rounds)
			}
		}
	}
}

func renewWritesAndExtends(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.join(hour)
	before := f.row(m.Stream)
	store.Advance(t, 2*hour)
	if got := f.row(m.Stream); !got.Lapsed || got.State != site.MemberOpen {
		t.Errorf("2 h into a lease of 1 h the row is lapsed: %v, state %d; want lapsed and open", got.Lapsed, got.State)
	}
	r := site.Renewal{Mark: site.Mark{Frame: 7, Next: 70}, Verifies: 5, Signs: 4, Lease: hour}
	f.renew(m.Stream, r)
	got := f.row(m.Stream)
	if got.Lapsed || got.Mark != r.Mark || got.Verifies != 5 || got.Signs != 4 {
		t.Errorf("renewed with %+v, read back %+v", r, got)
	}
	if !sameAddresses(got.Addresses, m.Addresses) {
		t.Errorf("nil addresses changed %v to %v", m.Addresses, got.Addresses)
	}
	if !got.Seen.After(got.Joined) || got.Seen.Before(before.Seen) {
		t.Errorf("2 h after joining, a renewal left joined %v and seen %v", got.Joined, got.Seen)
	}
	store.Advance(t, hour/2)
	if f.row(m.Stream).Lapsed {
		t.Error("half an hour into a renewed lease of 1 h the row is lapsed")
	}
	r.Addresses = map[string][]string{"udp": {"239.0.0.1:7070"}}
	f.renew(m.Stream, r)
	if got := f.row(m.Stream); !sameAddresses(got.Addresses, r.Addresses) {
		t.Errorf("renewed with addresses %v, read back %v", r.Addresses, got.Addresses)
	}
	r.Addresses = map[string][]string{}
	f.renew(m.Stream, r)
	if got := f.row(m.Stream); len(got.Addresses) != 0 {
		t.Errorf("renewed with no addresses, read back %v", got.Addresses)
	}
	// A lease shorter than the clock's unit counts as well.
	r.Lease = time.Nanosecond
	f.renew(m.Stream, r)
	store.Advance(t, time.Second)
	if !f.row(m.Stream).Lapsed {
		t.Error("a lease of 1 ns has not lapsed a second later")
	}
}

func renewKeepsTheWitness(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.member()
	m.Witness = [16]byte{9}
	f.joinAs(m, hour)
	for _, c := range []struct{ write, want [16]byte }{
		{[16]byte{}, [16]byte{}}, // what Join was given is ignored
		{[16]byte{1, 15: 2}, [16]byte{1, 15: 2}},
		{[16]byte{}, [16]byte{1, 15: 2}},
		{[16]byte{3, 15: 0xff}, [16]byte{3, 15: 0xff}},
	} {
		f.renew(m.Stream, site.Renewal{Witness: c.write, Lease: hour})
		if got := f.row(m.Stream).Witness; got != c.want {
			t.Errorf("renewed with the witness %x, read back %x; want %x", c.write, got, c.want)
		}
	}
	if snap := f.snapshot(m.Stream, f.site.ID); snap.Members[0].Witness != [16]byte{3, 15: 0xff} {
		t.Errorf("a snapshot has the witness %x", snap.Members[0].Witness)
	}
}

func renewNeverGoesBack(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.join(hour)
	high := site.Renewal{Mark: site.Mark{Frame: 7, Next: 70}, Verifies: 5, Signs: 4, Lease: hour}
	f.renew(m.Stream, high)
	f.renew(m.Stream, site.Renewal{Mark: site.Mark{Frame: 6, Next: 69}, Verifies: 4, Signs: 3, Lease: hour})
	if got := f.row(m.Stream); got.Mark != high.Mark || got.Verifies != 5 || got.Signs != 4 {
		t.Errorf("a late renewal took the row back to %+v", got)
	}
	f.leave(m.Stream, site.Mark{Frame: 5, Next: 50})
	if got := f.row(m.Stream); got.Mark != high.Mark || got.State != site.MemberClosed {
		t.Errorf("a final mark below the renewed one left %+v", got)
	}
}

func renewFindsTheRowGone(t *testing.T, store Store) {
	f := newFixture(t, store)
	reaped, removed := f.join(time.Second), f.join(24*hour)
	f.leave(removed.Stream, site.Mark{})
	store.Advance(t, 25*hour)
	closed := f.join(24 * hour)
	f.leave(closed.Stream, site.Mark{Frame: 2, Next: 2})
	f.reap(0)
	for what, s := range map[string]site.StreamID{
		"closed": closed.Stream, "reaped": reaped.Stream, "removed": removed.Stream, "unknown": site.NewStreamID(7, 7),
	} {
		err := f.db.Renew(t.Context(), s, site.Renewal{Mark: site.Mark{Frame: 9, Next: 9}, Lease: hour})
		f.wantError("Renew of a row that is "+what, err, site.ErrGone)
	}
	if got := f.row(closed.Stream); got.State != site.MemberClosed || got.Mark.Frame != 2 {
		t.Errorf("a refused renewal changed a closed row to %+v", got)
	}
	if got := f.row(reaped.Stream); got.State != site.MemberReaped || got.Mark.Frame != 0 {
		t.Errorf("a refused renewal changed a reaped row to %+v", got)
	}
}

func renewRefusesWhatCannotBeStored(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.join(hour)
	for what, r := range map[string]site.Renewal{
		"no lease":              {},
		"a lease too long":      {Lease: site.MaxLease + 1},
		"a mark too high":       {Lease: hour, Mark: site.Mark{Next: site.MaxMark}},
		"a generation too high": {Lease: hour, Signs: 1 << 63},
		"a bad address":         {Lease: hour, Addresses: map[string][]string{"tcp": {"\xff"}}},
	} {
		f.wantError("Renew with "+what, f.db.Renew(t.Context(), m.Stream, r), nil)
	}
	f.wantError("Leave with a mark too high", f.db.Leave(t.Context(), m.Stream, site.Mark{Frame: site.MaxMark}), nil)
	if got := f.row(m.Stream); got.State != site.MemberOpen || got.Mark != m.Mark {
		t.Errorf("refused calls changed the row to %+v", got)
	}
}

func leaveClosesWithTheFinalMark(t *testing.T, store Store) {
	f := newFixture(t, store)
	m, other := f.join(hour), f.join(hour)
	final := site.Mark{Frame: 12, Next: 34}
	f.leave(m.Stream, final)
	if got := f.row(m.Stream); got.State != site.MemberClosed || got.Mark != final || got.Server != m.Server {
		t.Errorf("left with %v, read back %+v", final, got)
	}
	if got := f.row(other.Stream); got.State != site.MemberOpen {
		t.Errorf("when one left, another's row became %+v", got)
	}
}

func leaveTwiceOrReapedIsNoError(t *testing.T, store Store) {
	f := newFixture(t, store)
	closed, reaped := f.join(hour), f.join(time.Second)
	f.leave(closed.Stream, site.Mark{Frame: 1, Next: 1})
	store.Advance(t, hour)
	f.reap(0)
	before := f.changes(0).Revision
	f.leave(reaped.Stream, site.Mark{Frame: 9, Next: 9}) // it lived, and others may not know how far it came
	if got := f.row(reaped.Stream); got.State != site.MemberReaped || got.Mark != (site.Mark{Frame: 9, Next: 9}) {
		t.Errorf("leaving a reaped row made it %+v, want reaped with the mark", got)
	}
	if snap := f.changes(before); len(snap.Members) != 1 {
		t.Errorf("the mark of a reaped row is reported as %+v", snap.Members)
	}
	since := f.changes(0).Revision
	for _, s := range []site.StreamID{closed.Stream, reaped.Stream, site.NewStreamID(7, 7)} {
		f.leave(s, site.Mark{Frame: 9, Next: 9})
	}
	if snap := f.changes(since); len(snap.Members) != 0 {
		t.Errorf("leaving again changed %+v", snap.Members)
	}
	if got := f.row(closed.Stream); got.Mark.Frame != 1 {
		t.Errorf("leaving twice moved the final mark to %v", got.Mark)
	}
	f.leave(reaped.Stream, site.Mark{Frame: 3, Next: 3})
	if got := f.row(reaped.Stream); got.State != site.MemberReaped || got.Mark.Frame != 9 {
		t.Errorf("leaving a reaped row again made it %+v", got)
	}
}

func reapWaitsForLeaseAndGrace(t *testing.T, store Store) {
	f := newFixture(t, store)
	short, middle, long := f.join(hour), f.join(105*time.Minute), f.join(5*hour)
	if got := f.reap(0); len(got) != 0 {
		t.Errorf("at once, Reap closed %v", got)
	}
	store.Advance(t, 2*hour)
	if got := f.reap(90 * time.Minute); len(got) != 0 {
		t.Errorf("1 h after the lease, Reap with a grace of 1.5 h closed %v", got)
	}
	if got := f.reap(30 * time.Minute); !slices.Equal(got, []site.StreamID{short.Stream}) {
		t.Errorf("1 h after the lease, Reap with a grace of 0.5 h closed %v; want %v alone", got, short.Stream)
	}
	if got := f.row(short.Stream); got.State != site.MemberReaped {
		t.Errorf("a reaped row has state %d", got.State)
	}
	if got := f.row(middle.Stream); got.State != site.MemberOpen || !got.Lapsed {
		t.Errorf("a quarter of an hour after its lease, within the grace, a row has state %d, lapsed %v", got.State, got.Lapsed)
	}
	if got := f.row(long.Stream); got.State != site.MemberOpen {
		t.Errorf("a row within its lease has state %d", got.State)
	}
	f.leave(middle.Stream, site.Mark{})
	f.renew(long.Stream, site.Renewal{Lease: 5 * hour})
	store.Advance(t, 4*hour)
	if got := f.reap(0); len(got) != 0 {
		t.Errorf("4 h into a renewed lease of 5 h, Reap closed %v", got)
	}
	_, err := f.db.Reap(t.Context(), -1)
	f.wantError("Reap with a negative grace", err, nil)
}

func reapOneCallerClosesARow(t *testing.T, store Store) {
	f := newFixture(t, store)
	var want []site.StreamID
	for range 5 {
		want = append(want, f.join(time.Second).Stream)
	}
	store.Advance(t, hour)
	const callers = 6
	got := make([][]site.StreamID, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		db := store.Open(t)
		wg.Go(func() { got[i], errs[i] = db.Reap(t.Context(), 0) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("Reap by %d at once: %v", callers, err)
	}
	if all := sorted(slices.Concat(got...)); !slices.Equal(all, sorted(want)) {
		t.Errorf("%d callers closed %v; want each of %v once", callers, all, sorted(want))
	}
}

func reapRemovesTombstonesAfterADay(t *testing.T, store Store) {
	f := newFixture(t, store)
	closed, reaped := f.join(hour), f.join(hour)
	f.leave(closed.Stream, site.Mark{})
	store.Advance(t, 2*hour)
	f.reap(0)
	store.Advance(t, 21*hour)
	f.reap(0)
	if got := f.changes(0); len(got.Members) != 2 {
		t.Errorf("23 and 21 h after they ended, %d of 2 rows are there", len(got.Members))
	}
	since := f.changes(0).Revision
	store.Advance(t, 2*hour)
	if got := f.reap(0); len(got) != 0 {
		t.Errorf("removing a tombstone was returned as closing %v", got)
	}
	if got := f.changes(0); !slices.Equal(streams(got), []site.StreamID{reaped.Stream}) {
		t.Errorf("25 and 23 h after they ended, the rows are %v; want %v", streams(got), reaped.Stream)
	}
	if got := f.changes(since); len(got.Members) != 0 {
		t.Errorf("a removed tombstone was reported: %+v", got.Members)
	}
}
