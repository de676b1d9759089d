package sitetest

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
)

// change stores what edit makes of the site as it is, and returns what came back.
func (f *fixture) change(edit func(*site.Site)) site.Site {
	f.t.Helper()
	next := f.read(f.site.ID)
	edit(&next)
	s, err := f.db.ChangeSite(f.t.Context(), next)
	if err != nil {
		f.t.Fatalf("ChangeSite(%+v): %v", next, err)
	}
	return s
}

// read returns the site as another handle finds it.
func (f *fixture) read(id site.ID) site.Site {
	f.t.Helper()
	sites, err := f.store.Open(f.t).Sites(f.t.Context())
	i := slices.IndexFunc(sites, func(s site.Site) bool { return s.ID == id })
	if err != nil || i < 0 {
		f.t.Fatalf("Sites() = %+v, %v; want one with ID %v", sites, err, id)
	}
	return sites[i]
}

func changeSiteStoresKeysAndFloors(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.join(hour)
	until := f.changes(0).Now.Add(90 * time.Second).Truncate(time.Millisecond)
	last := f.site
	for _, c := range []struct {
		name string
		edit func(*site.Site)
	}{
		{"a pending key", func(s *site.Site) { s.Keys = append(s.Keys, site.NewKey(2, site.SuiteAES256GCM)) }},
		{"a promotion", func(s *site.Site) { s.Keys[0].State, s.Keys[1].State = site.KeyRetiring, site.KeyActive }},
		{"an end", func(s *site.Site) { s.Keys[0].Until = until }},
		{"a revocation", func(s *site.Site) { s.Keys[0].State = site.KeyRevoked }},
		{"floors", func(s *site.Site) {
			s.Floors = site.Floors{MACRequired: true, EncryptionRequired: true, Version: 1}
		}},
		{"an emergency", func(s *site.Site) {
			key := site.NewKey(9, site.SuiteAES256GCM)
			key.State = site.KeyActive
			s.Keys[1].State = site.KeyCompromised
			s.Keys = append(s.Keys, key)
		}},
	} {
		since := f.changes(0).Revision
		var want site.Site
		got := f.change(func(s *site.Site) {
			c.edit(s)
			s.Keys[0].Changed = 1 << 40 // to be ignored
			want = *s
			want.Keys = slices.Clone(s.Keys)
			want.Keys[0].Changed = last.Keys[0].Changed
		})
		for i := range want.Keys {
			k := &want.Keys[i]
			if k.State.Ended() {
				k.Secret = site.Secret{}
			}
			if was := last.Key(k.ID); k.State != was.State || !k.Until.Equal(was.Until) {
				k.Changed = got.Generation
			}
		}
		if got.Generation <= last.Generation {
			t.Errorf("%s: generation %d after %d; want a higher one", c.name, got.Generation, last.Generation)
		}
		want.Generation = got.Generation
		if !sameSite(got, want) {
			t.Errorf("%s: ChangeSite returned %+v, want %+v", c.name, got, want)
		}
		if read := f.read(f.site.ID); !sameSite(read, want) {
			t.Errorf("%s: read back %+v, want %+v", c.name, read, want)
		}
		if s := f.ensure("app"); !sameSite(s, want) {
			t.Errorf("%s: EnsureSite returns %+v, want %+v", c.name, s, want)
		}
		snap := f.changes(since)
		if len(snap.Sites) != 1 || !sameSite(snap.Sites[0], want) || len(snap.Members) != 0 {
			t.Errorf("%s: the changes are %+v, want the site alone", c.name, snap)
		}
		if snap := f.snapshot(m.Stream, f.site.ID); len(snap.Sites) != 1 || !sameSite(snap.Sites[0], want) {
			t.Errorf("%s: a snapshot has the sites %+v, want %+v", c.name, snap.Sites, want)
		}
		last = got
	}
}

func changeSiteOneOfManyWins(t *testing.T, store Store) {
	f := newFixture(t, store)
	const n = 8
	var handles []site.Database
	for range n {
		handles = append(handles, store.Open(t))
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, db := range handles {
		next := f.site
		next.Keys = append(slices.Clone(next.Keys), site.NewKey(site.KeyID(2+i), site.SuiteHMACSHA256))
		wg.Go(func() { _, errs[i] = db.ChangeSite(t.Context(), next) })
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Errorf("changes %d and %d from the same generation were both stored", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, site.ErrConflict):
			t.Errorf("one of %d changes at once: %v; want ErrConflict", n, err)
		}
	}
	if s := f.read(f.site.ID); won < 0 || len(s.Keys) != 2 || s.Keys[1].ID != site.KeyID(2+won) {
		t.Errorf("change %d was stored, as %+v", won, s)
	}
}

func changeSiteRefusesWhatIsNotAllowed(t *testing.T, store Store) {
	f := newFixture(t, store)
	f.change(func(s *site.Site) { s.Keys = append(s.Keys, site.NewKey(2, site.SuiteHMACSHA256)) })
	before := f.read(f.site.ID)
	for _, c := range []struct {
		name string
		edit func(*site.Site)
		want error
	}{
		{"an old generation", func(s *site.Site) { s.Generation-- }, site.ErrConflict},
		{"a generation to come", func(s *site.Site) { s.Generation++ }, site.ErrConflict},
		{"a site that does not exist", func(s *site.Site) { s.ID[0] ^= 1 }, nil},
		{"another name", func(s *site.Site) { s.Name = "other" }, nil},
		{"no key", func(s *site.Site) { s.Keys = nil }, nil},
		{"two active keys", func(s *site.Site) { s.Keys[1].State = site.KeyActive }, nil},
	} {
		next := before
		next.Keys = slices.Clone(before.Keys)
		c.edit(&next)
		_, err := f.db.ChangeSite(t.Context(), next)
		f.wantError("ChangeSite with "+c.name, err, c.want)
		if c.want == nil && errors.Is(err, site.ErrConflict) {
			t.Errorf("ChangeSite with %s: error %q wraps ErrConflict, which it must not", c.name, err)
		}
	}
	if after := f.read(f.site.ID); !sameSite(after, before) {
		t.Errorf("refused changes made %+v of %+v", after, before)
	}
}

func changeSiteCountsGenerationsOfAllSites(t *testing.T, store Store) {
	f := newFixture(t, store)
	other := f.ensure("other")
	last := max(f.site.Generation, other.Generation)
	for i := range 6 {
		s := f.site
		if i%2 > 0 {
			s = other
		}
		s = f.read(s.ID)
		s.Floors.MACRequired = !s.Floors.MACRequired
		got, err := f.db.ChangeSite(t.Context(), s)
		if err != nil || got.Generation <= last {
			t.Fatalf("ChangeSite of site %q: generation %d, %v; want one above %d, which another site has", s.Name, got.Generation, err, last)
		}
		last = got.Generation
	}
	if s := f.ensure("third"); s.Generation <= last {
		t.Errorf("a new site has generation %d; want one above %d", s.Generation, last)
	}
}
