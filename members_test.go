package carillon_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

func servers(members []carillon.Member) []string {
	var names []string
	for _, m := range members {
		names = append(names, m.Server)
	}
	return names
}

func TestMembers_ListsWhoRuns(t *testing.T) { // E17
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.Version = "v1" }))
		time.Sleep(5 * time.Second)
		m := c.Broker(1).Members()
		if got := servers(m); !slices.Equal(got, []string{"instance-0", "instance-1", "instance-2"}) {
			t.Fatalf("members %v", got)
		}
		for i, m := range m {
			if m.Self != (i == 1) || m.Application != "carillontest" || m.SiteName != "carillontest" || m.Version != "v1" || m.Role != carillon.Both ||
				m.Lapsed || m.Joined.IsZero() || time.Since(m.LastContact) > 2*time.Second || m.Site == (site.ID{}) || m.Stream == (site.StreamID{}) {
				t.Errorf("member %+v", m)
			}
		}
		c.Stop(2)
		c.Crash(0)
		time.Sleep(2 * time.Second)
		if got := servers(c.Broker(1).Members()); !slices.Equal(got, []string{"instance-0", "instance-1"}) {
			t.Errorf("after a stop and a crash: %v", got)
		}
		time.Sleep(40 * time.Second)
		if m := c.Broker(1).Members(); len(m) != 2 || !m[0].Lapsed || m[1].Lapsed || time.Since(m[0].LastContact) < 30*time.Second {
			t.Errorf("a lease after the crash: %+v", m)
		}
		time.Sleep(10 * time.Minute)
		if got := servers(c.Broker(1).Members()); !slices.Equal(got, []string{"instance-1"}) {
			t.Errorf("ten minutes after the crash: %v, want the row reaped", got)
		}
	})
}

// advertiser is a Provider with an address.
type advertiser struct{ *wrap }

func (advertiser) Addresses() []string { return []string{"127.0.0.1:7070"} }

func TestMembers_HaveTheAddressesOfProviders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		b := mustOpen(t, config(db, advertiser{&wrap{Provider: bus.Provider()}}))
		if m := b.Members(); len(m) != 1 || !slices.Equal(m[0].Addresses["mem"], []string{"127.0.0.1:7070"}) {
			t.Errorf("members %+v", m)
		}
	})
}

// memberWatch records what a provider is told.
type memberWatch struct {
	*wrap
	got []provider.Members
	in  int
}

func (w *memberWatch) SetMembers(m provider.Members) {
	w.in++
	if w.in != 1 {
		panic("SetMembers is called concurrently with itself")
	}
	w.got = append(w.got, m)
	w.wrap.SetMembers(m)
	w.in--
}

func TestProviders_AreToldWhoIsThere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		w := &memberWatch{wrap: &wrap{Provider: bus.Provider()}}
		mustOpen(t, config(db, w))
		other := mustOpen(t, config(db, bus.Provider()))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(w.got); n != 2 {
			t.Fatalf("told %d times, want once at the start and once of the other", n)
		}
		self := w.got[0].Self
		if len(w.got[0].Others) != 0 || len(w.got[1].Others) != 1 || w.got[1].Self != self || self == (site.StreamID{}) {
			t.Errorf("told %+v", w.got)
		}
		time.Sleep(5 * time.Minute) // renewals are no change
		synctest.Wait()
		if n := len(w.got); n != 2 {
			t.Errorf("told %d times though nobody came or went", n)
		}
		if err := other.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(w.got); n != 3 || len(w.got[2].Others) != 0 {
			t.Errorf("after the other has gone: %+v", w.got)
		}
	})
}

func TestDatabase_AwayLaterEventsKeepFlowing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log logBook
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(i int, cfg *carillon.Config) {
			if i == 1 {
				cfg.Logger = log.logger()
			}
		}))
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		b := c.Broker(1)
		if s := b.Status(); !s.Ready || !s.InStep || !s.Enabled || len(s.Problems) != 0 || s.Generation != 1 || s.Key != 1 {
			t.Errorf("status at first: %+v", s)
		}
		c.TakeDatabaseAway()
		away := time.Now()
		n := 0
		for time.Since(away) < 20*time.Second {
			n++
			raise(t, d, c.Broker(0), n, n)
			time.Sleep(100 * time.Millisecond)
		}
		s := b.Status()
		if !s.Ready || s.Isolated || s.DatabaseAwaySince.Before(away) || s.DatabaseAwaySince.After(away.Add(2*time.Second)) ||
			len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "database") {
			t.Errorf("status after 20 s: %+v", s)
		}
		time.Sleep(20 * time.Second) // more than a lease in all
		n++
		raise(t, d, c.Broker(0), n, n)
		synctest.Wait()
		if s := b.Status(); s.Ready || !s.Isolated || len(s.Problems) != 1 {
			t.Errorf("status after 40 s: %+v", s)
		}
		c.BringDatabaseBack()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := b.Status(); !s.Ready || s.Isolated || !s.DatabaseAwaySince.IsZero() || len(s.Problems) != 0 {
			t.Errorf("status when it is back: %+v", s)
		}
		if got := numbers(rec.Raised()); !slices.Equal(got, span(1, n)) {
			t.Errorf("raised %d events of %d", len(got), n)
		}
		m := rec.Missed()
		if len(m) != 2 {
			t.Fatalf("missed %+v, want one report when isolation begins and one when it ends", m)
		}
		for _, m := range m {
			if m.Reason != carillon.MissedIsolated || m.Known || m.Exact || m.Count != 0 || m.First != 0 || m.Last != 0 || m.Source != (carillon.Source{}) {
				t.Errorf("missed %+v", m)
			}
		}
		if a, b := log.lines("site database away"), log.lines("site database back"); len(a) != 1 || len(b) != 1 {
			t.Errorf("log: %q, %q", a, b)
		}
	})
}

func TestDatabase_InstanceThatStartedMeanwhileIsHeardWhenItIsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1)
		hooked := &hookedDB{Database: c.Database(), before: func(context.Context, string) error { return nil }}
		d := define()
		var blind atomic.Bool
		cfg := carillon.Config{Application: "carillontest", Server: "blind", Database: hooked, Providers: []provider.Provider{c.Bus().Provider()}}
		hooked.before = func(context.Context, string) error {
			if blind.Load() {
				return errTest
			}
			return nil
		}
		b := mustOpen(t, cfg)
		b.Enable()
		rec := carillontest.Record(t, b, d)
		synctest.Wait()
		blind.Store(true)
		i := c.Add()
		raise(t, d, c.Broker(i), 1, 3)
		time.Sleep(5 * time.Second)
		if n := len(rec.Raised()); n != 0 {
			t.Errorf("%d events of a stream that the member table, which is away, may not have", n)
		}
		synctest.Wait()
		blind.Store(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(rec.Raised()) + int(rec.MissedCount()); n != 3 {
			t.Errorf("raised %d, missed %d, of 3", len(rec.Raised()), rec.MissedCount())
		}
	})
}

func TestRow_GoneTakesANewStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var stuck atomic.Bool // instance 0 cannot renew its row
		var log logBook
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(i int, cfg *carillon.Config) {
			if i == 0 {
				cfg.Logger = log.logger()
				cfg.Database = &hookedDB{Database: cfg.Database, before: func(_ context.Context, call string) error {
					if call == "Renew" && stuck.Load() {
						return errTest
					}
					return nil
				}}
			}
		}))
		d := define(carillon.Ordered())
		rec := carillontest.Record(t, c.Broker(1), d)
		old := c.Broker(0).Members()[0].Stream
		n := 0
		step := func(until time.Duration) {
			for start := time.Now(); time.Since(start) < until; time.Sleep(20 * time.Millisecond) {
				n++
				raise(t, d, c.Broker(0), n, n)
			}
		}
		stuck.Store(true)
		step(35 * time.Second)
		if s := c.Broker(0).Status(); !s.DatabaseAwaySince.IsZero() || len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "member row could not be written") {
			t.Errorf("status while the row cannot be renewed: %+v", s)
		}
		if reaped, err := c.Database().Reap(t.Context(), 0); err != nil || !slices.Equal(reaped, []site.StreamID{old}) {
			t.Fatalf("reaped %v, %v", reaped, err)
		}
		stuck.Store(false)
		step(5 * time.Second)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		m := c.Broker(0).Members()
		if len(m) != 2 || m[0].Stream == old || !m[0].Self {
			t.Errorf("members %+v", m)
		}
		if got := len(rec.Raised()) + int(rec.MissedCount()); got != n {
			t.Errorf("raised %d, missed %d, of %d", len(rec.Raised()), rec.MissedCount(), n)
		}
		if got := numbers(rec.Raised()); !slices.IsSorted(got) || got[len(got)-1] != n {
			t.Errorf("raised %v", got)
		}
		if m := rec.Missed(); len(m) != 0 {
			t.Errorf("missed %+v, though nothing was lost", m)
		}
		if s := c.Broker(0).Stats(); s.Missed != 0 || len(s.Peers) != 1 {
			t.Errorf("the instance takes its former self for another: %+v", s)
		}
		if s := c.Broker(0).Status(); !s.Ready || len(s.Problems) != 0 {
			t.Errorf("status %+v", s)
		}
		if n := len(log.lines("database away")); n != 0 {
			t.Errorf("a row that is gone is taken for a database that is away: %q", log.lines("database away"))
		}
		if n := len(log.lines("row cannot be written")); n != 1 {
			t.Errorf("%d lines about 25 s of failed renewals, want 1", n)
		}
		carillon1 := carillontest.Record(t, c.Broker(0), d)
		raise(t, d, c.Broker(1), 1, 3)
		carillon1.WaitRaised(3)
	})
}

func TestKey_PromotedKeyIsSignedWith(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		sites, err := c.Database().Sites(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := sites[0]
		next := anotherSecret(s.Keys[0])
		next.ID, next.State = 2, site.KeyPending
		s.Keys, s.Generation = append(s.Keys, next), 2
		c.Database().PutSite(s)
		n := 0
		step := func(until time.Duration) {
			for start := time.Now(); time.Since(start) < until; time.Sleep(20 * time.Millisecond) {
				n++
				raise(t, d, c.Broker(0), n, n)
			}
		}
		step(3 * time.Second)
		s.Keys = slices.Clone(s.Keys)
		s.Keys[0].State, s.Keys[1].State, s.Generation = site.KeyRetiring, site.KeyActive, 3
		c.Database().PutSite(s)
		step(3 * time.Second)
		if st := c.Broker(0).Status(); st.Key != 2 || st.Generation != 3 {
			t.Errorf("status %+v", st)
		}
		s.Keys = slices.Clone(s.Keys)
		s.Keys[0].State, s.Generation = site.KeyRevoked, 4
		c.Database().PutSite(s)
		step(3 * time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := numbers(rec.Raised()); !slices.Equal(got, span(1, n)) || len(rec.Missed()) != 0 {
			t.Errorf("raised %d of %d, missed %+v", len(got), n, rec.Missed())
		}
		for r, k := range c.Broker(1).Stats().Drops {
			if k != 0 {
				t.Errorf("%v: %d dropped", r, k)
			}
		}
	})
}

func TestRenewal_KeepsTheRowAliveAndWritesTheMark(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1)
		d := define()
		raise(t, d, c.Broker(0), 1, 7)
		for range 100 {
			time.Sleep(12 * time.Second) // a third of a lease, and a poll
			rows := openRows(t, c.Database())
			if len(rows) != 1 || rows[0].Lapsed || rows[0].Mark.Next != 7 || rows[0].Verifies != 1 || rows[0].Signs != 1 {
				t.Fatalf("rows %+v", rows)
			}
		}
	})
}

// changesHook is a database whose Changes a test interferes with.
type changesHook struct {
	site.Database
	changes func(ctx context.Context, since site.Revision) (site.Snapshot, error)
}

func (d *changesHook) Changes(ctx context.Context, since site.Revision) (site.Snapshot, error) {
	return d.changes(ctx, since)
}

func TestDatabase_RestoredFromABackupIsReadFromTheBeginning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		var sinces []site.Revision
		var stale atomic.Bool
		db := &changesHook{Database: mem}
		db.changes = func(ctx context.Context, since site.Revision) (site.Snapshot, error) {
			if stale.Load() {
				sinces = append(sinces, since)
				if since > 0 {
					return site.Snapshot{}, site.ErrStale
				}
			}
			return mem.Changes(ctx, since)
		}
		b := mustOpen(t, config(db, bus.Provider()))
		b.Enable()
		other := mustOpen(t, config(mem, bus.Provider()))
		other.Enable()
		time.Sleep(3 * time.Second)
		stale.Store(true)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(sinces) < 2 || sinces[0] == 0 || sinces[1] != 0 {
			t.Errorf("read since %v, want from 0 after the first refusal", sinces)
		}
		if n := len(b.Members()); n != 2 {
			t.Errorf("%d members", n)
		}
	})
}

func TestFollow_HasEndedBeforeTheRowIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		var s steps
		var slow atomic.Bool
		db := &hookedDB{Database: mem, before: func(ctx context.Context, call string) error {
			if slow.Load() && call == "Changes" {
				<-ctx.Done()
				time.Sleep(100 * time.Millisecond) // a driver that takes its time
				s.add("read ends")
				return ctx.Err()
			}
			if call == "Leave" {
				s.add("Leave")
			}
			return nil
		}}
		b := mustOpen(t, config(db, bus.Provider()))
		slow.Store(true)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if got := s.all(); !slices.Equal(got, []string{"read ends", "Leave"}) {
			t.Errorf("order %v", got)
		}
	})
}

func TestRow_GoneIsReplacedWithoutAlarm(t *testing.T) {
	for _, removed := range []bool{false, true} { // closed by another, or not in a database that was restored
		bubble(t, func(t *testing.T) {
			var log logBook
			var restored atomic.Bool
			c := carillontest.NewCluster(t, 1, carillontest.Configure(func(_ int, cfg *carillon.Config) {
				cfg.Logger = log.logger()
				cfg.Database = &hookedDB{Database: cfg.Database, before: func(_ context.Context, call string) error {
					if call == "Renew" && restored.Swap(false) {
						return site.ErrGone
					}
					return nil
				}}
			}))
			old := c.Broker(0).Members()[0].Stream
			restored.Store(removed)
			if !removed {
				if err := c.Database().Leave(t.Context(), old, site.Mark{}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(30 * time.Second)
			synctest.Wait()
			self := 0
			for _, m := range c.Broker(0).Members() {
				if m.Self {
					self++
					if m.Stream == old {
						t.Error("the stream is the old one")
					}
				}
			}
			if a, b := log.lines("cannot be written"), log.lines("went on with a new stream"); self != 1 || len(a) != 0 || len(b) != 1 {
				t.Errorf("%d rows of its own; log %q, %q", self, a, b)
			}
			if st := c.Broker(0).Status(); !st.Ready || len(st.Problems) != 0 {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestRow_GoneIsNotReplacedByOneThatNobodyCanSpeakFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1)
		sites, err := c.Database().Sites(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := sites[0]
		next := anotherSecret(s.Keys[0])
		next.ID, next.Suite = 2, 77 // of a version of this library to come
		s.Keys[0].State = site.KeyRetiring
		s.Keys, s.Generation = append(s.Keys, next), 2
		c.Database().PutSite(s)
		time.Sleep(2 * time.Second)
		if err := c.Database().Leave(t.Context(), c.Broker(0).Members()[0].Stream, site.Mark{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		snap, err := c.Database().Changes(t.Context(), 0)
		if err != nil || len(snap.Members) != 1 {
			t.Errorf("%d rows, %v", len(snap.Members), err)
		}
		if st := c.Broker(0).Status(); st.Ready || len(st.Problems) != 3 {
			t.Errorf("status %+v", st)
		}
	})
}

// hanging is a database that does not answer while on is set.
type hanging struct {
	site.Database
	on atomic.Bool
}

func (h *hanging) Changes(ctx context.Context, since site.Revision) (site.Snapshot, error) {
	if h.on.Load() {
		<-ctx.Done()
		return site.Snapshot{}, ctx.Err()
	}
	return h.Database.Changes(ctx, since)
}

func TestIsolation_IsToldInTimeByADatabaseThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		slow := &hanging{Database: db}
		cfg := config(slow, bus.Provider())
		cfg.Lease = 6 * time.Second
		b := mustOpen(t, cfg)
		b.Enable()
		d := define()
		rec := carillontest.Record(t, b, d)
		time.Sleep(time.Minute)
		slow.on.Store(true)
		time.Sleep(cfg.Lease + time.Second)
		synctest.Wait()
		if m := rec.Missed(); len(m) != 1 || m[0].Reason != carillon.MissedIsolated || !b.Status().Isolated {
			t.Errorf("a lease without the database: missed %+v, status %+v", m, b.Status())
		}
		slow.on.Store(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if m := rec.Missed(); len(m) != 2 || m[1].Reason != carillon.MissedIsolated || b.Status().Isolated {
			t.Errorf("and back: missed %+v, status %+v", m, b.Status())
		}
	})
}
