package sitetest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/carillon-go/carillon/site"
)

func ensureSiteCreatesOnce(t *testing.T, store Store) {
	f := newFixture(t, store)
	s := f.site
	if s.Name != "app" || s.ID == (site.ID{}) || s.Generation == 0 || s.Floors.Version == 0 {
		t.Errorf("a new site is %+v; want its name, an ID, a generation and a lowest version", s)
	}
	if len(s.Keys) != 1 || s.Keys[0].ID != 1 || s.Keys[0].State != site.KeyActive ||
		s.Keys[0].Suite != site.DefaultSuite() || s.Keys[0].Version == 0 || s.Keys[0].Secret.IsZero() {
		t.Errorf("the keys of a new site are %+v; want one active key 1 of the default suite with a secret", s.Keys)
	}
	if again := f.ensure("app"); !sameSite(s, again) {
		t.Errorf("a second EnsureSite returned %+v, the first %+v", again, s)
	}
	other, err := store.Open(t).EnsureSite(t.Context(), "app")
	if err != nil || !sameSite(s, other) {
		t.Errorf("EnsureSite on another handle returned %+v, %v; the first %+v", other, err, s)
	}
	// Names that a careless comparison takes for equal.
	seen := map[site.ID]string{s.ID: "app"}
	secrets := map[string]string{string(s.Keys[0].Secret.Reveal()): "app"}
	for _, name := range []string{"App", "äpp", "a%p", "a'p", `a"p`, "Ärger 🔔", strings.Repeat("x", site.MaxNameLen)} {
		o := f.ensure(name)
		if o.Name != name || seen[o.ID] != "" || len(o.Keys) != 1 || secrets[string(o.Keys[0].Secret.Reveal())] != "" {
			t.Errorf("site %q is %+v: its name changed, or its ID or secret is that of %q", name, o, seen[o.ID])
			continue
		}
		seen[o.ID], secrets[string(o.Keys[0].Secret.Reveal())] = name, name
	}
}

func ensureSiteRefusesBadNames(t *testing.T, store Store) {
	f := newFixture(t, store)
	for _, name := range []string{"", " app", "app ", "a\x00p", "a\np", "\xff", strings.Repeat("x", site.MaxNameLen+1)} {
		_, err := f.db.EnsureSite(t.Context(), name)
		f.wantError("EnsureSite("+name+")", err, nil)
	}
	if sites, err := f.db.Sites(t.Context()); err != nil || len(sites) != 1 {
		t.Errorf("after refused names there are %d sites, %v; want 1", len(sites), err)
	}
}

func ensureSiteManyAtOnceAgree(t *testing.T, store Store) {
	const n = 16
	var handles []site.Database
	for range n {
		handles = append(handles, store.Open(t))
	}
	got := make([]site.Site, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, db := range handles {
		wg.Go(func() { got[i], errs[i] = db.EnsureSite(t.Context(), "app") })
	}
	wg.Wait()
	for i := range n {
		if errs[i] != nil {
			t.Errorf("EnsureSite by one of %d at once, on an empty database: %v", n, errs[i])
		} else if !sameSite(got[i], got[0]) {
			t.Errorf("of %d at once, one got %+v and another %+v", n, got[0], got[i])
		}
	}
}

func sitesAreSortedByName(t *testing.T, store Store) {
	f := newFixture(t, store)
	want := []site.Site{f.site, f.ensure("c"), f.ensure("Z"), f.ensure("b")}
	slices.SortFunc(want, func(a, b site.Site) int { return strings.Compare(a.Name, b.Name) })
	got, err := f.db.Sites(t.Context())
	if err != nil || !slices.EqualFunc(got, want, sameSite) {
		t.Errorf("Sites() = %+v, %v; want %+v", got, err, want)
	}
}

func nextEpochNeverRepeats(t *testing.T, store Store) {
	f := newFixture(t, store)
	const handles, each = 8, 10
	got := make(chan uint64, handles*each)
	var wg sync.WaitGroup
	for range handles {
		db := store.Open(t)
		wg.Go(func() {
			for range each {
				n, err := db.NextEpoch(t.Context())
				if err != nil {
					t.Errorf("NextEpoch by one of %d at once: %v", handles, err)
					return
				}
				got <- n
			}
		})
	}
	wg.Wait()
	close(got)
	seen := map[uint64]bool{}
	for n := range got {
		if n == 0 || seen[n] {
			t.Errorf("NextEpoch returned %d, which is zero or was returned before", n)
		}
		seen[n] = true
	}
	if n, err := f.db.NextEpoch(t.Context()); err != nil || seen[n] {
		t.Errorf("NextEpoch() = %d, %v; returned before: %v", n, err, seen[n])
	}
}

func clientAddrIsAnAddress(t *testing.T, store Store) {
	f := newFixture(t, store)
	a, err := f.db.ClientAddr(t.Context())
	if err != nil || !a.IsValid() || a.IsUnspecified() || a.Is4In6() {
		t.Errorf("ClientAddr() = %v, %v; want an address that others can dial", a, err)
	}
}

func methodsReturnWhenTheContextIsDone(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.join(hour)
	fresh := f.member()
	for _, c := range []struct {
		name string
		call func(context.Context) error
	}{
		{"EnsureSite", func(ctx context.Context) error { _, err := f.db.EnsureSite(ctx, "late"); return err }},
		{"Sites", func(ctx context.Context) error { _, err := f.db.Sites(ctx); return err }},
		{"ChangeSite", func(ctx context.Context) error { _, err := f.db.ChangeSite(ctx, f.site); return err }},
		{"NextEpoch", func(ctx context.Context) error { _, err := f.db.NextEpoch(ctx); return err }},
		{"Join", func(ctx context.Context) error { return f.db.Join(ctx, fresh, hour) }},
		{"Snapshot", func(ctx context.Context) error {
			_, err := f.db.Snapshot(ctx, m.Stream, []site.ID{f.site.ID})
			return err
		}},
		{"Changes", func(ctx context.Context) error { _, err := f.db.Changes(ctx, 0); return err }},
		{"Renew", func(ctx context.Context) error { return f.db.Renew(ctx, m.Stream, site.Renewal{Lease: hour}) }},
		{"Leave", func(ctx context.Context) error { return f.db.Leave(ctx, m.Stream, site.Mark{}) }},
		{"Reap", func(ctx context.Context) error { _, err := f.db.Reap(ctx, 0); return err }},
		{"ClientAddr", func(ctx context.Context) error { _, err := f.db.ClientAddr(ctx); return err }},
	} {
		f.wantError(c.name+" with a cancelled context", c.call(cancelled()), context.Canceled)
	}
	if got := f.row(m.Stream); got.State != site.MemberOpen {
		t.Errorf("after calls with a cancelled context the row's state is %d, want open", got.State)
	}
	f.joinAs(fresh, hour) // the cancelled one inserted nothing
}

func answersBelongToTheCaller(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.join(hour)
	want := maps.Clone(m.Addresses)
	for provider, list := range want {
		want[provider] = slices.Clone(list)
	}
	for range 2 {
		got := f.changes(0)
		row, ok := find(got, m.Stream)
		if !ok || !sameAddresses(row.Addresses, want) || len(got.Sites) != 1 || got.Sites[0].Keys[0].State != site.KeyActive {
			t.Fatalf("Changes(0) = %+v; want addresses %v and an active key", got, want)
		}
		// What a caller does to an answer, or to what it passed in, must not show in the next.
		row.Addresses["tcp"][0] = "changed"
		delete(row.Addresses, "tcp")
		got.Sites[0].Keys[0].State = site.KeyRevoked
		m.Addresses["tcp"][1] = "changed"
	}
}
