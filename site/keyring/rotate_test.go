package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/keyring"
	"github.com/carillon-go/carillon/site/memsite"
)

// A world is a database and the instances on it, in a bubble.
type world struct {
	t    *testing.T
	db   *memsite.Database
	site site.Site
	n    uint64
	told []string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, db: memsite.New(nil)}
	w.site = w.ensure("app")
	return w
}

func (w *world) ensure(name string) site.Site {
	s, err := w.db.EnsureSite(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

const lease = 30 * time.Second

// instance joins one that reads every second, until the test ends or stop is called. All read at the same
// moments, between those at which a rotation looks: it never sees that some have read and others not yet. It runs
// inside a bubble.
func (w *world) instance(in site.Site) (stop func()) {
	w.n++
	m := site.Member{
		Site: in.ID, Stream: site.NewStreamID(1, w.n), Server: fmt.Sprintf("web%d", w.n), Application: "app",
		Role: site.RolePublish, Verifies: in.Generation, Signs: in.Generation,
	}
	if err := w.db.Join(w.t.Context(), m, lease); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	go func() {
		var since site.Revision
		var generation uint64
		time.Sleep(300 * time.Millisecond)
		for {
			if snap, err := w.db.Changes(ctx, since); err == nil {
				since = snap.Revision
				for _, s := range snap.Sites {
					generation = max(generation, s.Generation)
				}
				w.db.Renew(ctx, m.Stream, site.Renewal{Verifies: generation, Signs: generation, Lease: lease})
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return
			}
		}
	}()
	return cancel
}

func (w *world) rotate(o keyring.Options) (site.Site, error) {
	o.Progress = func(p keyring.Progress) {
		text := p.Step.String()
		if p.Err != nil {
			text = "away"
		}
		if len(p.Left) > 0 {
			text = "without " + p.Left[0].Server + ": " + text
		}
		w.told = append(w.told, text)
	}
	return keyring.Rotate(w.t.Context(), w.db, "app", o)
}

func (w *world) states() string {
	var b strings.Builder
	sites, err := w.db.Sites(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range sites {
		if s.Name == "app" {
			for _, k := range s.Keys {
				fmt.Fprintf(&b, "%d %v, ", k.ID, k.State)
			}
		}
	}
	return strings.TrimSuffix(b.String(), ", ")
}

func wantTexts(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("told\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
	}
}

func TestRotate_GoesThroughEveryStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		w.instance(w.ensure("other"))
		start := time.Now()
		s, err := w.rotate(keyring.Options{Suite: site.SuiteAES256GCM})
		if err != nil || w.states() != "1 revoked, 2 active" || s.Active().ID != 2 || s.Active().Suite != site.SuiteAES256GCM {
			t.Fatalf("rotated to %+v, %v: %s", s, err, w.states())
		}
		wantTexts(t, w.told, []string{
			"store key 2 (aes-256-gcm) as pending",
			"wait until app on web1 (1-0000000000000001), app on web2 (1-0000000000000002) can verify with key 2",
			"make key 2 active; key 1 retires",
			"wait until app on web1 (1-0000000000000001) signs with key 2",
			"let key 1 verify until",
			"wait until",
			"revoke key 1",
			"done: key 2 (aes-256-gcm) is in use",
		})
		if took := time.Since(start); took < 90*time.Second || took > 100*time.Second {
			t.Errorf("took %v; want the overlap of 90 s and a little", took)
		}
		w.told = nil
		if _, err := w.rotate(keyring.Options{Overlap: time.Second}); err != nil || w.states() != "1 revoked, 2 revoked, 3 active" {
			t.Errorf("the next rotation: %v: %s", err, w.states())
		}
		if k := w.site.Active(); k.Suite != site.DefaultSuite() {
			t.Errorf("the site that was read before changed: %+v", k)
		}
	})
}

func TestRotate_CarriesOnFromEveryStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		// Everybody who begins is stopped after the next step.
		for stops := 0; ; stops++ {
			ctx, cancel := context.WithCancel(t.Context())
			before := w.states()
			_, err := keyring.Rotate(ctx, w.db, "app", keyring.Options{Overlap: 5 * time.Second, Progress: func(p keyring.Progress) {
				if w.states() != before {
					cancel()
				}
			}})
			cancel()
			if err == nil {
				if stops < 2 {
					t.Errorf("stopped %d times only", stops)
				}
				break
			}
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "carries on") {
				t.Fatalf("stopped with %v", err)
			}
		}
		if w.states() != "1 revoked, 2 active" {
			t.Error(w.states())
		}
	})
}

func TestRotate_StopsAtWhoHasLapsed(t *testing.T) {
	for _, promoted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.instance(w.site)
			stop := w.instance(w.site)
			if !promoted {
				stop()
				time.Sleep(time.Hour)
			}
			start := time.Now()
			o := keyring.Options{Overlap: time.Second, Progress: func(keyring.Progress) {}}
			var err error
			if promoted {
				_, err = keyring.Rotate(t.Context(), w.db, "app", keyring.Options{Overlap: time.Second, Progress: func(p keyring.Progress) {
					if p.Step.Action == keyring.Promote {
						stop()
						synctest.Wait()
					}
				}})
			} else {
				_, err = w.rotate(o)
			}
			lapsed, ok := errors.AsType[*keyring.LapsedError](err)
			if !ok || len(lapsed.Rows) != 1 || lapsed.Rows[0].Server != "web2" || !strings.Contains(err.Error(), "app on web2 (1-0000000000000002, lapsed)") {
				t.Fatalf("the error is %v; want one that names web2", err)
			}
			if took := time.Since(start); took < time.Minute || took > 2*time.Minute {
				t.Errorf("gave up after %v; want a minute of being lapsed", took)
			}
			o.Force = true
			start = time.Now()
			if _, err := w.rotate(o); err != nil || w.states() != "1 revoked, 2 active" {
				t.Errorf("by force: %v: %s", err, w.states())
			}
			if !slices.ContainsFunc(w.told, func(s string) bool { return strings.HasPrefix(s, "without web2: ") }) {
				t.Errorf("nobody was told who is left behind: %q", w.told)
			}
			if took := time.Since(start); took < time.Minute {
				t.Errorf("went on by force after %v; want a minute of being lapsed", took)
			}
		})
	}
}

func TestRotate_GoesOnWhenARowIsReaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		w.instance(w.site)()
		time.Sleep(lease + time.Second)
		time.AfterFunc(30*time.Second, func() { w.db.Reap(context.WithoutCancel(t.Context()), 0) })
		if _, err := w.rotate(keyring.Options{}); err != nil || w.states() != "1 revoked, 2 active" {
			t.Errorf("%v: %s", err, w.states())
		}
	})
}

func TestRotate_CountsNoOutageAsLapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		w.instance(w.site)()
		time.Sleep(lease + time.Second)
		time.AfterFunc(5*time.Second, func() { w.db.SetDown(errors.New("away")) })
		time.AfterFunc(10*time.Minute, func() { w.db.SetDown(nil) })
		time.AfterFunc(10*time.Minute+30*time.Second, func() { w.db.Reap(context.WithoutCancel(t.Context()), 0) })
		if _, err := w.rotate(keyring.Options{}); err != nil || w.states() != "1 revoked, 2 active" {
			t.Errorf("%v: %s; want an outage to count for nothing", err, w.states())
		}
	})
}

func TestRotate_OutlastsTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		away := errors.New("the disk is gone")
		time.AfterFunc(500*time.Millisecond, func() { w.db.SetDown(away) })
		time.AfterFunc(10*time.Minute, func() { w.db.SetDown(nil) })
		if _, err := w.rotate(keyring.Options{}); err != nil || w.states() != "1 revoked, 2 active" {
			t.Fatalf("%v: %s", err, w.states())
		}
		n := 0
		for _, text := range w.told {
			if text == "away" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("told %d times that the database is away, want once: %q", n, w.told)
		}
		w.db.SetDown(away)
		if _, err := w.rotate(keyring.Options{}); !errors.Is(err, away) {
			t.Errorf("a database that cannot be read at first: %v", err)
		}
		w.db.SetDown(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(500*time.Millisecond, func() { w.db.SetDown(away) })
		_, err := keyring.Rotate(ctx, w.db, "app", keyring.Options{})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, away) {
			t.Errorf("out of time while the database is away: %v", err)
		}
	})
}

func TestRotate_SeveralAtOnceMakeOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		errs := make(chan error)
		for range 5 {
			go func() {
				_, err := keyring.Rotate(t.Context(), w.db, "app", keyring.Options{Progress: func(p keyring.Progress) {
					if p.Err != nil {
						t.Errorf("that another was quicker is told as an outage: %v", p.Err)
					}
				}})
				errs <- err
			}()
		}
		for range 5 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if w.states() != "1 revoked, 2 active" {
			t.Error(w.states())
		}
	})
}

func TestRotate_RefusesAnotherSuiteOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		next := w.site
		next.Keys = append(slices.Clone(next.Keys), site.NewKey(2, site.SuiteHMACSHA256))
		if _, err := w.db.ChangeSite(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		if _, err := w.rotate(keyring.Options{Suite: site.SuiteAES256GCM}); !errors.Is(err, keyring.ErrUnderWay) {
			t.Errorf("to another suite: %v", err)
		}
		if _, err := w.rotate(keyring.Options{Suite: site.SuiteHMACSHA256}); err != nil || w.states() != "1 revoked, 2 active" {
			t.Errorf("to the same suite: %v: %s", err, w.states())
		}
		if _, err := keyring.Rotate(t.Context(), w.db, "nobody", keyring.Options{}); err == nil || !strings.Contains(err.Error(), `"nobody"`) {
			t.Errorf("of a site that does not exist: %v", err)
		}
	})
}

func TestRotate_SaysThatItsKeyWasCompromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		time.AfterFunc(30*time.Second, func() { keyring.RevokeNow(t.Context(), w.db, "app", nil) })
		if _, err := w.rotate(keyring.Options{}); !errors.Is(err, keyring.ErrCompromised) || w.states() != "1 compromised, 2 compromised, 3 active" {
			t.Errorf("%v: %s", err, w.states())
		}
	})
}

func TestPlan_SaysTheStepsAndStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		synctest.Wait()
		snap, err := w.db.Changes(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		v, err := keyring.NewView(snap, "app")
		if err != nil {
			t.Fatal(err)
		}
		plan, err := keyring.Plan(v, keyring.Rotation{})
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, step := range plan {
			texts = append(texts, step.String())
		}
		if w.states() != "1 active" {
			t.Errorf("the plan was carried out: %s", w.states())
		}
		if _, err := w.rotate(keyring.Options{}); err != nil {
			t.Fatal(err)
		}
		for i := range texts {
			texts[i], _, _ = strings.Cut(texts[i], "until 0") // a time of day
		}
		wantTexts(t, w.told, texts)
	})
}

func TestRevokeNow_MarksAndReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name string
			have []site.KeyState
			ids  []site.KeyID
			want string
		}{
			{"the only key", []site.KeyState{site.KeyActive}, nil, "1 compromised, 2 active"},
			{"all", []site.KeyState{site.KeyRevoked, site.KeyRetiring, site.KeyActive, site.KeyPending}, nil, "1 revoked, 2 compromised, 3 compromised, 4 compromised, 5 active"},
			{"the active one", []site.KeyState{site.KeyRetiring, site.KeyActive, site.KeyPending}, []site.KeyID{2}, "1 retiring, 2 compromised, 3 pending, 4 active"},
			{"the retiring one", []site.KeyState{site.KeyRetiring, site.KeyActive}, []site.KeyID{1}, "1 compromised, 2 active"},
			{"a tombstone", []site.KeyState{site.KeyRevoked, site.KeyActive}, []site.KeyID{1}, "1 compromised, 2 active"},
			{"one that is so already", []site.KeyState{site.KeyCompromised, site.KeyActive}, []site.KeyID{1}, "1 compromised, 2 active"},
		} {
			w := newWorld(t)
			s := w.site
			s.Keys = nil
			for i, state := range c.have {
				k := site.NewKey(site.KeyID(i+1), site.SuiteAES256GCM)
				k.State = state
				s.Keys = append(s.Keys, k)
			}
			s.Floors.EncryptionRequired = true
			w.db.PutSite(s)
			got, err := keyring.RevokeNow(t.Context(), w.db, "app", c.ids)
			if err != nil || w.states() != c.want || got.Active().Suite != site.SuiteAES256GCM {
				t.Errorf("%s: %v: %s, want %s", c.name, err, w.states(), c.want)
			}
		}
		w := newWorld(t)
		if _, err := keyring.RevokeNow(t.Context(), w.db, "app", []site.KeyID{7}); err == nil || !strings.Contains(err.Error(), "no key 7") {
			t.Errorf("a key that does not exist: %v", err)
		}
	})
}

func TestSetFloors_WeakensOnTheExplicitWordOnly(t *testing.T) {
	type floors = site.Floors
	for _, c := range []struct {
		name          string
		have          floors
		keys          []site.Suite // active, retiring
		want          floors
		weaken, force bool
		err           error
	}{
		{"tags", floors{Version: 1}, []site.Suite{1}, floors{MACRequired: true}, false, false, nil},
		{"no tags", floors{MACRequired: true, Version: 1}, []site.Suite{1}, floors{}, false, false, keyring.ErrWeaker},
		{"no tags, said", floors{MACRequired: true, Version: 1}, []site.Suite{1}, floors{}, true, false, nil},
		{"one up, one down", floors{EncryptionRequired: true, Version: 1}, []site.Suite{2}, floors{MACRequired: true}, false, false, keyring.ErrWeaker},
		{"encryption", floors{Version: 1}, []site.Suite{2}, floors{EncryptionRequired: true}, false, false, nil},
		{"encryption that nobody has", floors{Version: 1}, []site.Suite{1}, floors{EncryptionRequired: true}, true, true, keyring.ErrBelow},
		{"encryption during a rotation", floors{Version: 1}, []site.Suite{2, 1}, floors{EncryptionRequired: true}, false, false, keyring.ErrBelow},
		{"encryption during a rotation, forced", floors{Version: 1}, []site.Suite{2, 1}, floors{EncryptionRequired: true}, false, true, nil},
		{"a higher version", floors{Version: 1}, []site.Suite{1}, floors{Version: 2}, false, false, keyring.ErrBelow},
		{"a lower version", floors{Version: 2}, []site.Suite{1}, floors{Version: 1}, false, false, keyring.ErrWeaker},
		{"the same", floors{MACRequired: true, Version: 1}, []site.Suite{1}, floors{MACRequired: true, Version: 1}, false, false, nil},
	} {
		db := memsite.New(nil)
		s, err := db.EnsureSite(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		s.Floors, s.Keys = c.have, nil
		for i, suite := range c.keys {
			k := site.NewKey(site.KeyID(i+1), suite)
			k.State = []site.KeyState{site.KeyActive, site.KeyRetiring}[i]
			s.Keys = append(s.Keys, k)
		}
		db.PutSite(s)
		want := c.want
		want.Version = max(want.Version, 1)
		if want.Version == 1 && c.want.Version == 0 {
			want.Version = c.have.Version
		}
		got, err := keyring.SetFloors(t.Context(), db, "app", c.want, c.weaken, c.force)
		if c.err != nil {
			want = c.have
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %v, want %v", c.name, err, c.err)
			}
		} else if err != nil || got.Floors != want {
			t.Errorf("%s: %+v, %v", c.name, got.Floors, err)
		}
		sites, err := db.Sites(t.Context())
		if err != nil || sites[0].Floors != want {
			t.Errorf("%s: stored %+v, %v; want %+v", c.name, sites[0].Floors, err, want)
		}
	}
}

// A rival changes the site each time just before somebody else does.
type rival struct {
	*memsite.Database
	times int
}

func (r *rival) ChangeSite(ctx context.Context, next site.Site) (site.Site, error) {
	if r.times++; r.times%2 == 1 {
		sites, err := r.Sites(ctx)
		if err != nil {
			return site.Site{}, err
		}
		sites[0].Floors.MACRequired = !sites[0].Floors.MACRequired
		if _, err := r.Database.ChangeSite(ctx, sites[0]); err != nil {
			return site.Site{}, err
		}
	}
	return r.Database.ChangeSite(ctx, next)
}

func TestRotate_ReadsAgainWhenAnotherWasQuicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.instance(w.site)
		r := &rival{Database: w.db}
		_, err := keyring.Rotate(t.Context(), r, "app", keyring.Options{Progress: func(p keyring.Progress) {
			if p.Err != nil {
				t.Errorf("a conflict is told as an outage: %v", p.Err)
			}
		}})
		if err != nil || w.states() != "1 revoked, 2 active" || r.times != 8 {
			t.Errorf("%v: %s after %d attempts; want each of 4 changes twice", err, w.states(), r.times)
		}
		if _, err := keyring.RevokeNow(t.Context(), r, "app", nil); err != nil || w.states() != "1 revoked, 2 compromised, 3 active" {
			t.Errorf("in an emergency: %v: %s", err, w.states())
		}
	})
}
