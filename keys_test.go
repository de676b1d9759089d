package carillon_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/keyring"
)

// storedSite returns the one site of the cluster as the database has it.
func storedSite(t *testing.T, c *carillontest.Cluster) site.Site {
	t.Helper()
	sites, err := c.Database().Sites(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sites[0]
}

// changeSite stores what edit makes of the site of the cluster.
func changeSite(t *testing.T, c *carillontest.Cluster, edit func(*site.Site)) site.Site {
	t.Helper()
	s := storedSite(t, c)
	edit(&s)
	s, err := c.Database().ChangeSite(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantNoKeyDrops fails if anything was dropped for reasons of keys.
func wantNoKeyDrops(t *testing.T, c *carillontest.Cluster) {
	t.Helper()
	for i := range c.Len() {
		b := c.Broker(i)
		if b == nil {
			continue
		}
		for _, r := range []carillon.DropReason{
			carillon.DropUnknownKey, carillon.DropRetiredKey, carillon.DropUnsupportedKey, carillon.DropFloor, carillon.DropBadTag,
		} {
			if n := b.Stats().Drops[r]; n != 0 {
				t.Errorf("instance %d dropped %d frames for %v", i, n, r)
			}
		}
	}
}

func TestKey_RotationDropsNothing(t *testing.T) { // G5
	for _, loss := range []float64{0, 0.2} {
		bubble(t, func(t *testing.T) {
			c := carillontest.NewCluster(t, 3, carillontest.Faults(providertest.Faults{Out: providertest.Rates{Drop: loss}}))
			d := define()
			var recs []*carillontest.Recorder[note]
			for i := range 3 {
				recs = append(recs, carillontest.Record(t, c.Broker(i), d))
			}
			ctx, stop := context.WithCancel(t.Context())
			n, done := 0, make(chan struct{})
			go func() {
				defer close(done)
				for ctx.Err() == nil {
					n++
					raise(t, d, c.Broker(n%3), n, n)
					time.Sleep(10 * time.Millisecond)
				}
			}()
			suites := []site.Suite{site.SuiteAES256GCM, 0, site.SuiteHMACSHA256, site.SuiteGHASHHMAC}
			for i, suite := range suites {
				if _, err := keyring.Rotate(t.Context(), c.Database(), "carillontest", keyring.Options{Suite: suite, Overlap: 15 * time.Second}); err != nil {
					t.Fatal(err)
				}
				if i == 1 {
					recs = append(recs, carillontest.Record(t, c.Broker(c.Add()), d)) // during nothing in particular
				}
			}
			stop()
			<-done
			time.Sleep(time.Minute)
			synctest.Wait()
			for i, rec := range recs {
				got := numbers(rec.Raised())
				slices.Sort(got)
				if i < 3 && !slices.Equal(got, span(1, n)) || len(rec.Missed()) != 0 {
					t.Errorf("loss %v: instance %d: %d of %d raised, missed %+v", loss, i, len(got), n, rec.Missed())
				}
			}
			wantNoKeyDrops(t, c)
			s := storedSite(t, c)
			for i := range c.Len() {
				if st := c.Broker(i).Status(); st.Key != 5 || st.Generation != s.Generation || len(st.Problems) != 0 {
					t.Errorf("instance %d: %+v; want key 5, generation %d", i, st, s.Generation)
				}
			}
		})
	}
}

func TestKey_RowSaysWhatTheInstanceReallyDoes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.Lease = time.Hour }))
		row := func() site.Member {
			t.Helper()
			snap, err := c.Database().Changes(t.Context(), 0)
			if err != nil || len(snap.Members) != 1 {
				t.Fatalf("%+v, %v", snap, err)
			}
			return snap.Members[0]
		}
		s := changeSite(t, c, func(s *site.Site) { s.Keys = append(s.Keys, site.NewKey(2, site.SuiteHMACSHA256)) })
		time.Sleep(3 * time.Second) // the next renewal by itself is in 20 minutes
		if m := row(); m.Verifies != s.Generation || m.Signs != s.Generation {
			t.Errorf("after a pending key in generation %d the row says %d, %d", s.Generation, m.Verifies, m.Signs)
		}
		// A key that this program cannot use is not one that it verifies.
		s = storedSite(t, c)
		before := s.Generation
		s.Keys[1].State, s.Generation = site.KeyRevoked, before+1
		s.Keys = append(s.Keys, site.Key{ID: 3, State: site.KeyPending, Suite: 77, Version: 1, Secret: site.NewKey(3, 1).Secret})
		c.Database().PutSite(s)
		time.Sleep(time.Hour)
		st := c.Broker(0).Status()
		if m := row(); m.Verifies != before || m.Signs != before || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "key 3") {
			t.Errorf("with a key of an unknown suite in generation %d the row says %d, %d, and the status %q", before+1, m.Verifies, m.Signs, st.Problems)
		}
	})
}

func TestKey_RetiringEndsAtItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newTarget(t)
		s := g.puppet.site
		next := site.NewKey(2, site.SuiteHMACSHA256)
		next.State = site.KeyActive
		s.Keys = append(slices.Clone(s.Keys), next)
		s.Keys[0].State, s.Generation = site.KeyRetiring, 2
		s.Keys[0].Until = time.Now().Add(10 * time.Second)
		g.db.PutSite(s)
		g.pass(9 * time.Second)
		frame := func(n uint64) []byte {
			key := g.puppet.site.Keys[0]
			key.State = site.KeyActive
			return g.puppet.event(g.puppet.header(n), key, g.event, "x")
		}
		if got := g.drops(frame(1)); got != 0 {
			t.Errorf("before its end: dropped as %v", got)
		}
		g.pass(3 * time.Second)
		if got := g.drops(frame(2)); got != carillon.DropRetiredKey {
			t.Errorf("after its end: dropped as %v", got)
		}
	})
}

func TestKey_CompromisedResetsEveryStream(t *testing.T) { // G5
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3)
		d := define()
		var recs []*carillontest.Recorder[note]
		for i := range 3 {
			recs = append(recs, carillontest.Record(t, c.Broker(i), d))
		}
		for i := range 3 {
			raise(t, d, c.Broker(i), i*10+1, i*10+10)
		}
		time.Sleep(time.Second)
		before := map[site.StreamID]bool{}
		for _, m := range c.Broker(0).Members() {
			before[m.Stream] = true
		}
		if _, err := keyring.RevokeNow(t.Context(), c.Database(), "carillontest", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		for i := range 3 {
			raise(t, d, c.Broker(i), 100+i*10+1, 100+i*10+10)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := append(span(1, 30), span(101, 130)...)
		for i, rec := range recs {
			got := numbers(rec.Raised())
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("instance %d raised %v, want %v", i, got, want)
			}
			reports := 0 // of two streams; they may come in one
			for _, m := range rec.Missed() {
				if m.Reason != carillon.MissedReset {
					t.Errorf("instance %d missed %+v", i, m)
				}
				reports += int(m.Reports)
			}
			if reports != 2 {
				t.Errorf("instance %d was told %+v; want a reset of each of the two others", i, rec.Missed())
			}
			st := c.Broker(i).Status()
			if st.Key != 2 || !st.Ready || len(st.Problems) != 0 {
				t.Errorf("instance %d: %+v", i, st)
			}
			members := c.Broker(i).Members()
			if len(members) != 3 {
				t.Errorf("instance %d sees %d members", i, len(members))
			}
			for _, m := range members {
				if before[m.Stream] {
					t.Errorf("instance %d sees the stream %v still", i, m.Stream)
				}
			}
		}
	})
}

func TestKey_CompromisedOfAnotherSiteLeavesTheOwnStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3, carillontest.Configure(func(i int, cfg *carillon.Config) {
			if i == 2 {
				cfg.Site = "other"
			}
		}))
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		time.Sleep(5 * time.Second) // the first ones learn of the other site
		own := c.Broker(0).Status().Key
		streams := func() (s []site.StreamID) {
			for _, m := range c.Broker(1).Members() {
				s = append(s, m.Stream)
			}
			return s
		}
		before := streams()
		if _, err := keyring.RevokeNow(t.Context(), c.Database(), "other", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		after := streams()
		kept := 0
		for _, s := range before {
			if slices.Contains(after, s) {
				kept++
			}
		}
		if len(before) != 3 || len(after) != 3 || kept != 2 || c.Broker(0).Status().Key != own {
			t.Errorf("streams %v became %v; want that of the other site to change and no other", before, after)
		}
		raise(t, d, c.Broker(0), 1, 10)
		raise(t, d, c.Broker(2), 11, 20)
		rec.WaitRaised(20)
	})
}

func TestKey_RestoredDatabaseWeakensNothing(t *testing.T) { // G7
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		backup := storedSite(t, c)
		if _, err := keyring.Rotate(t.Context(), c.Database(), "carillontest", keyring.Options{}); err != nil {
			t.Fatal(err)
		}
		floored := changeSite(t, c, func(s *site.Site) { s.Floors.MACRequired = true })
		time.Sleep(3 * time.Second)
		generation := c.Broker(0).Status().Generation
		if generation != floored.Generation {
			t.Fatalf("generation %d, want %d", generation, floored.Generation)
		}
		c.Database().PutSite(backup)
		time.Sleep(3 * time.Second)
		for i := range 2 {
			st := c.Broker(i).Status()
			if st.Key != 2 || !st.Floors.MACRequired || st.Generation != generation || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "accept-restore") {
				t.Errorf("instance %d: %+v; want what it knew, and a problem that says what to do", i, st)
			}
		}
		raise(t, d, c.Broker(0), 1, 10)
		rec.WaitRaised(10)
		// A rotation there waits for those who do not follow.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if s, err := keyring.Rotate(ctx, c.Database(), "carillontest", keyring.Options{}); err == nil {
			t.Errorf("rotated to %+v", s)
		}
		if st := c.Broker(0).Status(); st.Key != 2 {
			t.Errorf("after a rotation in the restored database: %+v", st)
		}
		// The operator's word is a generation above all there was, and a key of its own.
		s := storedSite(t, c)
		s.Generation = generation + 1<<32
		for i := range s.Keys {
			s.Keys[i].State, s.Keys[i].Secret = site.KeyRevoked, site.Secret{}
		}
		key := site.NewKey(1000, site.SuiteHMACSHA256)
		key.State, key.Changed = site.KeyActive, s.Generation
		s.Keys = append(s.Keys, key)
		c.Database().PutSite(s)
		time.Sleep(5 * time.Second)
		raise(t, d, c.Broker(0), 11, 20)
		rec.WaitRaised(20)
		for i := range 2 {
			if st := c.Broker(i).Status(); st.Key != 1000 || st.Generation != s.Generation || len(st.Problems) != 0 {
				t.Errorf("after the word: instance %d: %+v", i, st)
			}
		}
	})
}

func TestKey_TombstoneIsFinal(t *testing.T) { // G5
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1)
		first := storedSite(t, c).Keys[0]
		if _, err := keyring.RevokeNow(t.Context(), c.Database(), "carillontest", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		s := storedSite(t, c)
		s.Generation += 100
		s.Keys[0] = first
		s.Keys[1].State = site.KeyRetiring
		c.Database().PutSite(s)
		time.Sleep(3 * time.Second)
		if st := c.Broker(0).Status(); st.Key != 2 || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "key 1 was compromised and is active") {
			t.Errorf("a compromised key that came back: %+v", st)
		}
	})
}

func TestKey_RotatedWhileThereWasNoRow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		joins := 0
		hooked := &hookedDB{Database: db, before: func(ctx context.Context, call string) error {
			if call != "Join" {
				return nil
			}
			if joins++; joins == 2 { // it has read the keys, and its row comes too late
				sites, err := db.Sites(ctx)
				if err != nil {
					return err
				}
				s := sites[0]
				key := site.NewKey(2, site.SuiteHMACSHA256)
				key.State, s.Keys[0].State = site.KeyActive, site.KeyRetiring
				s.Keys = append(s.Keys, key)
				_, err = db.ChangeSite(ctx, s)
				return err
			}
			return nil
		}}
		cfg := config(hooked, bus.Provider())
		cfg.Lease, cfg.Poll = 24*time.Hour, 8*time.Hour
		b := mustOpen(t, cfg)
		if err := db.Leave(t.Context(), b.Members()[0].Stream, site.Mark{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Hour)
		if st := b.Status(); joins != 2 || st.Key != 2 {
			t.Errorf("%d joins, %+v; want two, and key 2 to be in use at once", joins, st)
		}
	})
}

func TestOpen_AddsNoAdviceToWhatSaysItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, sentinel := range []error{site.ErrRestored, site.ErrSecret} {
			mem, bus := site2()
			db := &hookedDB{Database: mem, before: func(context.Context, string) error { return fmt.Errorf("%w: do this", sentinel) }}
			_, err := carillon.Open(t.Context(), config(db, bus.Provider()))
			wantErr(t, "Open", err, sentinel)
			if !strings.HasSuffix(err.Error(), ": do this") {
				t.Errorf("the advice in %q is not the last word", err)
			}
		}
	})
}
