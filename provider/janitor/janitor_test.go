package janitor_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/janitor"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// A world is a service and a site database, with instances that are as simple as can be.
type world struct {
	t       *testing.T
	bus     *membus.Bus
	service *providertest.Service
	db      *memsite.Database
	site    site.Site
}

func newWorld(t *testing.T, serviceClock func() time.Time) *world {
	db := memsite.New(nil)
	s, err := db.EnsureSite(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, membus.New(), providertest.NewService(serviceClock), db, s}
}

// subscribe is the first half of an instance's start.
func (w *world) subscribe(name string) *providertest.Subscriber {
	p := w.service.Subscriber(w.bus.Provider(), name)
	e := providertest.NewEndpoint(w.t, p, provider.Env{Site: w.site.ID})
	if err := e.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { e.Close() })
	return p
}

// join is the second half.
func (w *world) join(names ...string) site.StreamID {
	epoch, err := w.db.NextEpoch(w.t.Context())
	stream := site.NewStreamID(epoch, 1)
	if err == nil {
		err = w.db.Join(w.t.Context(), site.Member{
			Site: w.site.ID, Stream: stream, Server: "here", Role: site.RolePublish, Addresses: map[string][]string{"mem": names},
		}, 30*time.Second)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return stream
}

func (w *world) rows(ctx context.Context) (site.Snapshot, error) { return w.db.Changes(ctx, 0) }

// janitor returns one whose provider never starts.
func (w *world) janitor() *janitor.Janitor {
	return janitor.New(w.service.Subscriber(w.bus.Provider(), "-"), w.site.ID, w.rows, grace)
}

// look returns the verdicts by name.
func look(t *testing.T, j *janitor.Janitor) (map[string]janitor.Verdict, []janitor.Finding) {
	t.Helper()
	findings, err := j.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]janitor.Verdict{}
	for _, f := range findings {
		verdicts[f.Subscription.Name] = f.Verdict
	}
	return verdicts, findings
}

// An instance starts between the two reads: it subscribes and commits its row. The service's clock is
// ten minutes slow, so that its age protects it from nothing.
func TestLook_AnInstanceThatStartsInBetweenIsNoOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func() time.Time { return time.Now().Add(-10 * time.Minute) })
		w.subscribe("old").Abandon()
		started := false
		start := func() { // after the first of the reads, whichever that is
			if !started {
				started = true
				w.subscribe("new")
				w.join("new")
			}
		}
		w.service.OnList(start)
		j := janitor.New(w.service.Subscriber(w.bus.Provider(), "-"), w.site.ID, func(ctx context.Context) (site.Snapshot, error) {
			snap, err := w.rows(ctx)
			start()
			return snap, err
		}, grace)
		verdicts, findings := look(t, j)
		if v := verdicts["new"]; v.Goes() {
			t.Errorf("an instance that started between the reads is %v", v)
		}
		if v := verdicts["old"]; v != janitor.Forgotten {
			t.Errorf("what no row names for ten minutes is %v", v)
		}
		removed, err := j.Clean(t.Context(), findings)
		if err != nil || len(removed) != 1 || removed[0].Subscription.Name != "old" {
			t.Errorf("Clean() = %v, %v; want that of old removed, and nothing else", removed, err)
		}
	})
}

func TestLook_RemovesNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.subscribe("a").Abandon()
	stream := w.join("a")
	if err := w.db.Leave(t.Context(), stream, site.Mark{}); err != nil {
		t.Fatal(err)
	}
	j := w.janitor()
	verdicts, findings := look(t, j)
	if verdicts["a"] != janitor.Ended || !slices.Equal(w.service.Names(), []string{"a"}) {
		t.Fatalf("verdicts %v; left are %q", verdicts, w.service.Names())
	}
	if removed, err := j.Clean(t.Context(), findings); err != nil || len(removed) != 1 {
		t.Fatalf("Clean() = %v, %v", removed, err)
	}
}

func TestLook_CountsFromWhenItSawOneUnnamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil) // the service does not say when
		w.subscribe("a")
		w.subscribe("b")
		j := w.janitor()
		expect := func(a, b janitor.Verdict) {
			t.Helper()
			if v, _ := look(t, j); v["a"] != a || v["b"] != b {
				t.Fatalf("verdicts %v; want %v and %v", v, a, b)
			}
		}
		expect(janitor.Unnamed, janitor.Unnamed)
		time.Sleep(grace / 2)
		stream := w.join("b")
		expect(janitor.Unnamed, janitor.InUse)
		time.Sleep(grace / 2)
		expect(janitor.Forgotten, janitor.InUse)

		// Whoever looks for the first time knows nothing of it.
		other := w.janitor()
		if v, _ := look(t, other); v["a"] != janitor.Unnamed {
			t.Errorf("seen for the first time, a is %v", v["a"])
		}

		// The row of b goes with its day as a tombstone, and b is unnamed anew.
		if err := w.db.Leave(t.Context(), stream, site.Mark{}); err != nil {
			t.Fatal(err)
		}
		expect(janitor.Forgotten, janitor.Ended)
		time.Sleep(25 * time.Hour)
		if _, err := w.db.Reap(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		expect(janitor.Forgotten, janitor.Unnamed)
		time.Sleep(grace)
		expect(janitor.Forgotten, janitor.Forgotten)
	})
}

func TestLook_WithoutRowsThereIsNoFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.subscribe("a")
		time.Sleep(time.Hour)
		away := errors.New("away")
		w.db.SetDown(away)
		j := w.janitor()
		findings, err := j.Look(t.Context())
		if !errors.Is(err, away) || len(findings) > 0 {
			t.Errorf("Look() = %v, %v; want no finding and the database's error", findings, err)
		}
		if removed, err := j.Clean(t.Context(), findings); len(removed) > 0 || err != nil {
			t.Errorf("Clean() = %v, %v", removed, err)
		}
		if left := w.service.Names(); !slices.Equal(left, []string{"a"}) {
			t.Errorf("left are %q", left)
		}
	})
}

// refusing cannot remove one.
type refusing struct {
	provider.Cleaner
	name string
}

var errRefused = errors.New("refused")

func (r refusing) Unsubscribe(ctx context.Context, s site.ID, sub provider.Subscription) error {
	if sub.Name == r.name {
		return errRefused
	}
	return r.Cleaner.Unsubscribe(ctx, s, sub)
}

func TestClean_GoesOnAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		for _, name := range []string{"a", "b", "c"} {
			w.subscribe(name).Abandon()
			if err := w.db.Leave(t.Context(), w.join(name), site.Mark{}); err != nil {
				t.Fatal(err)
			}
		}
		j := janitor.New(refusing{w.service.Subscriber(w.bus.Provider(), "-"), "b"}, w.site.ID, w.rows, grace)
		_, findings := look(t, j)
		removed, err := j.Clean(t.Context(), findings)
		if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), `"b"`) {
			t.Errorf("Clean: %v; want what was refused, and for which", err)
		}
		if len(removed) != 2 || removed[0].Subscription.Name != "a" || removed[1].Subscription.Name != "c" {
			t.Errorf("removed %v; want a and c", removed)
		}
	})
}

func TestClean_RowsThatWereReadLongAgoRemoveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.subscribe("a")
		time.Sleep(time.Hour)
		j := w.janitor()
		_, findings := look(t, j)
		time.Sleep(2 * time.Minute)
		removed, err := j.Clean(t.Context(), findings)
		if len(removed) > 0 || !errors.Is(err, janitor.ErrLeft) {
			t.Errorf("two minutes after the look Clean() = %v, %v", removed, err)
		}
	})
}
