package carillon_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/janitor"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// costly is a Subscriber on a transport that charges per message: idle instances say nothing.
type costly struct{ *providertest.Subscriber }

func (c costly) Capabilities() provider.Capabilities {
	caps := c.Subscriber.Capabilities()
	caps.IdleHeartbeat = -1
	return caps
}

// leased is a cluster whose instances have subscriptions at a service. The name of each is the
// beginning of the name of the next.
type leased struct {
	*carillontest.Cluster
	service *providertest.Service
	lists   atomic.Int64

	mu          sync.Mutex // guards the field below
	subscribers []*providertest.Subscriber
}

func newLeased(t *testing.T, n int, clock func() time.Time, opts ...carillontest.Option) *leased {
	l := &leased{service: providertest.NewService(clock)}
	l.service.OnList(func() { l.lists.Add(1) })
	opts = append(opts, carillontest.Configure(func(i int, cfg *carillon.Config) {
		s := l.service.Subscriber(cfg.Providers[0], "")
		cfg.Providers[0] = costly{s}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.subscribers = append(l.subscribers, s)
	}))
	l.Cluster = carillontest.NewCluster(t, n, opts...)
	return l
}

// name is that of instance i, which was never restarted.
func (l *leased) name(i int) string { return l.subscribers[i].Addresses()[0] }

// kill ends instance i as a signal does that cannot be caught.
func (l *leased) kill(i int) {
	l.subscribers[i].Abandon()
	l.Crash(i)
}

// dryRun returns what a janitor from outside the site would remove now, sorted.
func (l *leased) dryRun(t *testing.T) []string {
	t.Helper()
	s, err := l.Database().EnsureSite(t.Context(), "carillontest")
	if err != nil {
		t.Fatal(err)
	}
	j := janitor.New(l.service.Subscriber(membus.New().Provider(), ""), s.ID, func(ctx context.Context) (site.Snapshot, error) {
		return l.Database().Changes(ctx, 0)
	}, janitor.LeastGrace)
	findings, err := j.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var goes []string
	for _, f := range findings {
		if f.Verdict.Goes() {
			goes = append(goes, f.Subscription.Name)
		}
	}
	slices.Sort(goes)
	return goes
}

// removed returns how many subscriptions the instances that run have removed.
func (l *leased) removed() (n uint64) {
	for i := range l.Len() {
		if b := l.Broker(i); b != nil {
			n += b.Stats().Providers[0].Cleaning.Removed
		}
	}
	return n
}

func TestJanitor_ExactlyTheSubscriptionsOfTheKilledGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const all, slow = 50, 45
		stuck := make(chan struct{})
		defer close(stuck)
		d := define()
		heard := make([]*carillontest.Recorder[note], all)
		l := newLeased(t, all, time.Now, carillontest.Wire(func(i int, b *carillon.Broker) {
			heard[i] = carillontest.Record(t, b, d)
			if i == slow { // it takes nothing from its queue, for as long as the test lasts
				d.OnRaised(b, func(context.Context, carillon.Raised[note]) { <-stuck })
			}
		}))
		raise(t, d, l.Broker(slow+1), 1, 1)

		var dead, live []string
		var alive []int
		for i := range all {
			if i%5 < 2 { // the first of all as well, whose turn it was to clean
				dead = append(dead, l.name(i))
				l.kill(i)
			} else {
				live = append(live, l.name(i))
				alive = append(alive, i)
			}
		}
		slices.Sort(dead)
		slices.Sort(live)
		if len(dead) != 20 || len(live) != 30 {
			t.Fatalf("%d killed, %d alive", len(dead), len(live))
		}
		if goes := l.dryRun(t); len(goes) > 0 {
			t.Fatalf("before any lease has lapsed, %q would go", goes)
		}
		time.Sleep(40 * time.Second)
		if goes := l.dryRun(t); len(goes) > 0 {
			t.Fatalf("leases have lapsed, and no row is closed yet: %q would go", goes)
		}
		time.Sleep(30 * time.Second)
		if _, err := l.Database().Reap(t.Context(), 30*time.Second); err != nil {
			t.Fatal(err)
		}
		if goes := l.dryRun(t); !slices.Equal(goes, dead) {
			t.Fatalf("the dry run lists %q, want %q", goes, dead)
		}
		if n := len(l.service.Names()); n != all {
			t.Fatalf("the dry run left %d of %d", n, all)
		}

		time.Sleep(7 * time.Minute)
		if left := l.service.Names(); !slices.Equal(left, live) {
			t.Errorf("left are %q, want %q", left, live)
		}
		if n := l.removed(); n != uint64(len(dead)) {
			t.Errorf("%d were removed, want %d", n, len(dead))
		}
		raise(t, d, l.Broker(alive[0]), 2, 4)
		for _, i := range alive {
			if got := numbers(heard[i].WaitRaised(4)); !slices.Equal(got, span(1, 4)) {
				t.Errorf("instance %d heard %v", i, got)
			}
			if n := heard[i].MissedCount(); n > 0 {
				t.Errorf("instance %d missed %d", i, n)
			}
		}
		t.Logf("%d instances, %d killed: %d subscriptions removed, %d left", all, len(dead), l.removed(), len(l.service.Names()))
	})
}

// It has no row, and the service does not say how old it is.
func TestJanitor_IdleOrphanGoes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLeased(t, 3, nil)
		orphan := l.service.Subscriber(l.Bus().Provider(), "orphan")
		s, err := l.Database().EnsureSite(t.Context(), "carillontest")
		if err != nil {
			t.Fatal(err)
		}
		e := providertest.NewEndpoint(t, orphan, provider.Env{Site: s.ID})
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		orphan.Abandon()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(7 * time.Minute)
		if st := l.Broker(0).Stats().Providers[0].Cleaning; st.Looks != 1 || st.Found != 4 || st.Waiting != 1 || st.Removed != 0 {
			t.Errorf("after the first look: %+v; want four found, of which one waits", st)
		}
		time.Sleep(7 * time.Minute)
		if left := l.service.Names(); len(left) != 3 || slices.Contains(left, "orphan") {
			t.Errorf("left are %q", left)
		}
	})
}

func TestJanitor_OneInstanceLooksForAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLeased(t, 8, time.Now)
		time.Sleep(time.Hour)
		if n := l.lists.Load(); n < 9 || n > 16 {
			t.Errorf("eight instances listed the subscriptions %d times in an hour, want about 12", n)
		}
		for i := range l.Len() {
			if looks := l.Broker(i).Stats().Providers[0].Cleaning.Looks; (looks > 0) != (i == 0) {
				t.Errorf("instance %d looked %d times; the first one is there longest", i, looks)
			}
		}
		l.Stop(0)
		time.Sleep(10 * time.Minute)
		if looks := l.Broker(1).Stats().Providers[0].Cleaning.Looks; looks == 0 {
			t.Error("the first one has left, and the second does not look")
		}
	})
}

func TestJanitor_WithoutTheDatabaseNothingGoes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLeased(t, 4, time.Now)
		l.kill(3)
		l.TakeDatabaseAway()
		time.Sleep(time.Hour)
		if n := len(l.service.Names()); n != 4 {
			t.Errorf("%d subscriptions are left, want all 4", n)
		}
		var failures uint64
		for i := range 3 {
			failures += l.Broker(i).Stats().Providers[0].Cleaning.Failures
		}
		if failures == 0 {
			t.Error("no failure was counted")
		}
		l.BringDatabaseBack()
		time.Sleep(20 * time.Minute)
		if left := l.service.Names(); len(left) != 3 || slices.Contains(left, l.name(3)) {
			t.Errorf("the database is back, and left are %q", left)
		}
	})
}

// A running instance whose subscription is removed by hand asks the others where they stand.
func TestJanitor_InstanceGoesOnWhenItsSubscriptionWasRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := define()
		heard := make([]*carillontest.Recorder[note], 2)
		l := newLeased(t, 2, time.Now, carillontest.Wire(func(i int, b *carillon.Broker) { heard[i] = carillontest.Record(t, b, d) }))
		s, err := l.Database().EnsureSite(t.Context(), "carillontest")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.subscribers[0].Unsubscribe(t.Context(), s.ID, provider.Subscription{Name: l.name(1)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		raise(t, d, l.Broker(0), 1, 3)
		if got := numbers(heard[1].WaitRaised(3)); !slices.Equal(got, span(1, 3)) {
			t.Errorf("heard %v", got)
		}
	})
}

// lister cannot list, each time for the same reason.
type lister struct{ costly }

func (lister) Subscriptions(context.Context, site.ID) ([]provider.Subscription, error) {
	return nil, fmt.Errorf("access denied")
}

func TestJanitor_OneLineForAProblemThatLasts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log logBook
		service := providertest.NewService(nil)
		l := carillontest.NewCluster(t, 1, carillontest.Configure(func(_ int, cfg *carillon.Config) {
			cfg.Providers[0] = lister{costly{service.Subscriber(cfg.Providers[0], "")}}
			cfg.Logger = log.logger()
		}))
		time.Sleep(time.Hour)
		if st := l.Broker(0).Stats().Providers[0].Cleaning; st.Failures < 9 || st.Looks != 0 {
			t.Errorf("%+v; want some twelve failures", st)
		}
		if lines := log.lines("was not removed"); len(lines) != 1 || !strings.Contains(lines[0], "access denied") {
			t.Errorf("lines about it: %q", lines)
		}
	})
}

// replica is a Database that now and then answers a read of all rows from an old copy of itself.
type replica struct {
	site.Database
	old  atomic.Pointer[memsite.Database]
	next atomic.Bool // the next such read is from old
}

func (r *replica) Changes(ctx context.Context, since site.Revision) (site.Snapshot, error) {
	if old := r.old.Load(); old != nil && since == 0 && r.next.Swap(false) {
		return old.Changes(ctx, 0)
	}
	return r.Database.Changes(ctx, since)
}

func TestJanitor_AReplicaRemovesNothing(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, db *memsite.Database, self site.StreamID){
		"older than what was read": func(*testing.T, *memsite.Database, site.StreamID) {},
		"does not know the own row": func(t *testing.T, db *memsite.Database, self site.StreamID) {
			if err := db.Leave(t.Context(), self, site.Mark{}); err != nil {
				t.Fatal(err)
			}
			for range 10_000 { // so that it is not older
				db.PutSite(site.NewSite("other"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				db := &replica{}
				l := newLeased(t, 2, time.Now, carillontest.Configure(func(i int, cfg *carillon.Config) {
					if i == 0 {
						db.Database, cfg.Database = cfg.Database, db
					}
				}))
				l.service.OnList(func() { db.next.Store(true) })
				l.kill(1)
				time.Sleep(70 * time.Second)
				if _, err := l.Database().Reap(t.Context(), 30*time.Second); err != nil {
					t.Fatal(err)
				}
				old := l.Database().Copy()
				change(t, old, l.Broker(0).Members()[0].Stream)
				db.old.Store(old)
				time.Sleep(time.Hour)
				if st := l.Broker(0).Stats().Providers[0].Cleaning; st.Removed > 0 || st.Failures < 9 {
					t.Errorf("%+v; want nothing removed, and failures", st)
				}
				db.old.Store(nil)
				time.Sleep(10 * time.Minute)
				if left := l.service.Names(); !slices.Equal(left, []string{l.name(0)}) {
					t.Errorf("left are %q", left)
				}
			})
		})
	}
}
