package cms

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// openDB opens a pool of its own on the file, as another process would.
func openDB(t testing.TB, file string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", DSN(file))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func newStore(t *testing.T) *store {
	t.Helper()
	db := openDB(t, filepath.Join(t.TempDir(), "a file?.db"))
	if err := Prepare(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return &store{db: db, now: time.Now}
}

func TestPrepare_ByManyAtOnceSeedsOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "site.db")
	var wg sync.WaitGroup
	for range 8 {
		db := openDB(t, file)
		wg.Go(func() {
			if err := Prepare(context.Background(), db); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := &store{db: openDB(t, file), now: time.Now}
	all, err := s.pages(t.Context())
	if err != nil || len(all) != len(seed()) {
		t.Errorf("%d pages, %v, want %d", len(all), err, len(seed()))
	}
}

func TestStore_PublishCountsRevisionsAndChanges(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	for i := int64(1); i <= 3; i++ {
		c, err := s.publish(ctx, "roles", "Roles", "text", 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		if c.page.Revision != i+1 || c.change != i || c.was != "roles" || c.page.By != 2 {
			t.Errorf("publish %d: %+v", i, c)
		}
	}
	if _, err := s.publish(ctx, "nowhere", "t", "b", 0, 1); !errors.Is(err, errNotFound) {
		t.Errorf("publish of a page that is not there: %v", err)
	}
	_, err := s.publish(ctx, "roles", "t", "b", 3, 1)
	if e, ok := errors.AsType[*conflictError](err); !ok || e.now.Revision != 4 {
		t.Errorf("publish on an old revision: %v", err)
	}
	if _, err := s.publish(ctx, "roles", "t", "b", 4, 1); err != nil {
		t.Errorf("publish on the current revision: %v", err)
	}
}

func TestStore_Rename(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	for _, bad := range []string{"", "A", "a--b", "-a", "a-", "a/b", "a b", "edit", "workflow", "link", "ä", strings.Repeat("a", 81)} {
		if _, err := s.rename(ctx, "roles", bad, 1); !errors.Is(err, errSlugBad) {
			t.Errorf("rename to %q: %v", bad, err)
		}
	}
	if _, err := s.rename(ctx, "roles", "missed", 1); !errors.Is(err, errSlugTaken) {
		t.Errorf("rename to an address in use: %v", err)
	}
	if _, err := s.rename(ctx, "nowhere", "new", 1); !errors.Is(err, errNotFound) {
		t.Errorf("rename of a page that is not there: %v", err)
	}
	same, err := s.rename(ctx, "roles", "roles", 1)
	if err != nil || same.change != 0 {
		t.Errorf("rename to itself: %+v, %v", same, err)
	}
	c, err := s.rename(ctx, "roles", "parts", 1)
	if err != nil || c.was != "roles" || c.page.Slug != "parts" || c.change == 0 {
		t.Fatalf("rename: %+v, %v", c, err)
	}
	if slug, err := s.address(ctx, c.page.ID); slug != "parts" || err != nil {
		t.Errorf("address = %q, %v", slug, err)
	}
	if _, err := s.page(ctx, "roles"); !errors.Is(err, errNotFound) {
		t.Errorf("the old address: %v", err)
	}
}

func TestStore_WorkflowHasTheseSteps(t *testing.T) {
	const d, r, p = stateDraft, stateReview, statePublished
	s := newStore(t)
	ctx := t.Context()
	const id = 3
	do := map[string]func() error{
		"save":    func() error { _, err := s.saveDraft(ctx, id, "Draft title", "draft", 1); return err },
		"submit":  func() error { _, err := s.move(ctx, id, d, r, 1); return err },
		"return":  func() error { _, err := s.move(ctx, id, r, d, 1); return err },
		"approve": func() error { _, err := s.approve(ctx, id, 1); return err },
		"discard": func() error { _, err := s.move(ctx, id, d, p, 1); return err },
	}
	for _, tt := range []struct {
		step string
		is   state // afterwards
		ok   bool
	}{
		{"submit", p, false},
		{"return", p, false},
		{"approve", p, false},
		{"save", d, true},
		{"save", d, true},
		{"approve", d, false},
		{"return", d, false},
		{"submit", r, true},
		{"save", r, false},
		{"submit", r, false},
		{"discard", r, false},
		{"return", d, true},
		{"discard", p, true},
		{"save", d, true},
		{"submit", r, true},
		{"approve", p, true},
		{"approve", p, false},
	} {
		err := do[tt.step]()
		if tt.ok != (err == nil) {
			t.Errorf("%s: %v", tt.step, err)
		}
		if _, ok := errors.AsType[*stateError](err); err != nil && !ok {
			t.Errorf("%s: %v is no stateError", tt.step, err)
		}
		if w, err := s.work(ctx, id); w.State != tt.is || err != nil {
			t.Errorf("after %s: state %q, %v, want %q", tt.step, w.State, err, tt.is)
		}
	}
	all, err := s.pages(ctx)
	if err != nil || all[id-1].Title != "Draft title" || all[id-1].Revision != 2 {
		t.Errorf("the approved page: %+v, %v", all[id-1], err)
	}
	if _, err := s.saveDraft(ctx, 999, "t", "b", 1); !errors.Is(err, errNotFound) {
		t.Errorf("draft of a page that is not there: %v", err)
	}
}

// Two reviewers press the button at the same time, on two instances.
func TestStore_ApprovesOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "site.db")
	stores := [2]*store{}
	for i := range stores {
		stores[i] = &store{db: openDB(t, file), now: time.Now}
		if err := stores[i].prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stores[0].saveDraft(t.Context(), 1, "t", "b", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := stores[1].move(t.Context(), 1, stateDraft, stateReview, 2); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	for i, s := range stores {
		go func() {
			_, err := s.approve(context.Background(), 1, i+1)
			errs <- err
		}()
	}
	done := 0
	for range stores {
		err := <-errs
		if err == nil {
			done++
		} else if _, ok := errors.AsType[*stateError](err); !ok {
			t.Error(err)
		}
	}
	if p, err := stores[0].pages(t.Context()); done != 1 || err != nil || p[0].Revision != 2 {
		t.Errorf("published %d times, revision %d, %v", done, p[0].Revision, err)
	}
}
