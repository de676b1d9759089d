package memsite_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
	"github.com/carillon-go/carillon/site/sitetest"
)

// store is a database whose clock the suite moves.
type store struct {
	db *memsite.Database

	mu  sync.Mutex
	now time.Time
}

func newStore(testing.TB) sitetest.Store {
	s := &store{now: time.Unix(1_700_000_000, 0)}
	s.db = memsite.New(func() time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.now
	})
	return s
}

func (s *store) Open(testing.TB) site.Database { return s.db }

func (s *store) Advance(_ testing.TB, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func TestDatabase_KeepsTheContract(t *testing.T) { sitetest.Run(t, newStore) }

func TestDatabase_SetDownTakesItAway(t *testing.T) {
	db := memsite.New(nil)
	s, err := db.EnsureSite(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	m := site.Member{Site: s.ID, Stream: site.NewStreamID(1, 1), Role: site.RolePublish}
	if err := db.Join(t.Context(), m, time.Hour); err != nil {
		t.Fatal(err)
	}
	away := errors.New("the cable is out")
	db.SetDown(away)
	for name, call := range map[string]func(context.Context) error{
		"EnsureSite": func(ctx context.Context) error { _, err := db.EnsureSite(ctx, "app"); return err },
		"Sites":      func(ctx context.Context) error { _, err := db.Sites(ctx); return err },
		"NextEpoch":  func(ctx context.Context) error { _, err := db.NextEpoch(ctx); return err },
		"Join":       func(ctx context.Context) error { return db.Join(ctx, m, time.Hour) },
		"Snapshot":   func(ctx context.Context) error { _, err := db.Snapshot(ctx, m.Stream, nil); return err },
		"Changes":    func(ctx context.Context) error { _, err := db.Changes(ctx, 0); return err },
		"Renew":      func(ctx context.Context) error { return db.Renew(ctx, m.Stream, site.Renewal{Lease: 1}) },
		"Leave":      func(ctx context.Context) error { return db.Leave(ctx, m.Stream, site.Mark{}) },
		"Reap":       func(ctx context.Context) error { _, err := db.Reap(ctx, 0); return err },
		"ClientAddr": func(ctx context.Context) error { _, err := db.ClientAddr(ctx); return err },
	} {
		if err := call(t.Context()); !errors.Is(err, away) || errors.Is(err, site.ErrGone) {
			t.Errorf("%s while down: %v; want an error that wraps %q and not ErrGone", name, err, away)
		}
	}
	db.SetDown(nil)
	if err := db.Renew(t.Context(), m.Stream, site.Renewal{Lease: time.Hour}); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

func TestDatabase_PutSiteCountsAsAChange(t *testing.T) {
	db := memsite.New(nil)
	s, err := db.EnsureSite(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	before, err := db.Changes(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Floors.MACRequired = true
	s.Generation++
	db.PutSite(s)
	after, err := db.Changes(t.Context(), before.Revision)
	if err != nil || len(after.Sites) != 1 || !after.Sites[0].Floors.MACRequired || after.Sites[0].Generation != 2 {
		t.Errorf("Changes after PutSite = %+v, %v; want the site with its new floor", after, err)
	}
}

func TestDatabase_IsFullAtItsLimit(t *testing.T) {
	db := memsite.New(nil)
	s, err := db.EnsureSite(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	m := site.Member{Site: s.ID, Role: site.RolePublish}
	for i := range uint64(site.DefaultMaxMembers) {
		m.Stream = site.NewStreamID(1, i)
		if err := db.Join(t.Context(), m, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	last := m.Stream
	m.Stream = site.NewStreamID(2, 1)
	if err := db.Join(t.Context(), m, time.Hour); !errors.Is(err, site.ErrFull) {
		t.Errorf("one more than the limit: %v, want ErrFull", err)
	}
	if err := db.Leave(t.Context(), last, site.Mark{}); err != nil {
		t.Fatal(err)
	}
	if err := db.Join(t.Context(), m, time.Hour); err != nil {
		t.Errorf("after one left: %v", err)
	}
}
