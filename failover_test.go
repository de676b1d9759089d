package carillon_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// How a transport of these tests treats what it is given to send.
const (
	carries   = iota
	refuses   // Send returns an error
	hangs     // Send does not return before the Broker is closed, or the transport carries again
	swallows  // Send returns nil, and nothing arrives
	transport = "way"
)

// A road is one instance's end of a transport that a test breaks.
type road struct {
	named
	mode *atomic.Int32 // of all instances
}

func (r *road) wait(ctx context.Context) (gone bool, err error) {
	for {
		switch r.mode.Load() {
		case refuses:
			return true, errTest
		case swallows:
			return true, nil
		case carries:
			return false, nil
		}
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (r *road) Send(ctx context.Context, frames [][]byte) error {
	if gone, err := r.wait(ctx); gone {
		return err
	}
	return r.named.Send(ctx, frames)
}

func (r *road) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	if gone, err := r.wait(ctx); gone {
		return err
	}
	return r.named.SendTo(ctx, to, frames)
}

func (r *road) Capabilities() provider.Capabilities {
	caps := r.named.Capabilities()
	caps.Prompt = false
	return caps
}

// A junction is a site whose instances have several transports.
type junction struct {
	t     *testing.T
	db    *memsite.Database
	buses []*membus.Bus
	modes []*atomic.Int32
}

func newJunction(t *testing.T, ways int) *junction {
	j := &junction{t: t, db: memsite.New(nil)}
	for range ways {
		j.buses, j.modes = append(j.buses, membus.New()), append(j.modes, new(atomic.Int32))
	}
	return j
}

// road returns a new end of transport i, which has the name "way0", "way1" and so on.
func (j *junction) road(i int) *road {
	return &road{named{&wrap{Provider: j.buses[i].Provider()}, fmt.Sprint(transport, i)}, j.modes[i]}
}

// open opens an instance on the transports given.
func (j *junction) open(ways ...int) *carillon.Broker {
	j.t.Helper()
	cfg := config(j.db)
	for _, i := range ways {
		cfg.Providers = append(cfg.Providers, j.road(i))
	}
	b := mustOpen(j.t, cfg)
	b.Enable()
	return b
}

// problem returns the problems of b that name transport i.
func (j *junction) problem(b *carillon.Broker, i int) (found []string) {
	for _, text := range b.Status().Problems {
		if strings.Contains(text, fmt.Sprint(transport, i)) {
			found = append(found, text)
		}
	}
	return found
}

// wantAll fails the test unless rec has the numbers from 1 to n, once each, and nothing missed.
func wantAll(t *testing.T, what string, rec *carillontest.Recorder[note], n int) {
	t.Helper()
	got := numbers(rec.Raised())
	slices.Sort(got)
	once := slices.Compact(slices.Clone(got))
	if missed := rec.Missed(); len(missed) > 0 || len(got) != n || len(once) != n {
		t.Errorf("%s: raised %d of %d, %d of them twice, missed %+v", what, len(once), n, len(got)-len(once), missed)
	}
}

func TestFailover_TheFirstCopyWins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		a, b := j.open(0, 1), j.open(1, 0)
		d := define()
		rec := carillontest.Record(t, b, d)
		raise(t, d, a, 1, 500)
		synctest.Wait()
		wantAll(t, "over two transports", rec, 500)
		s := b.Stats()
		if s.Received != 500 || s.Drops[carillon.DropDuplicate] == 0 {
			t.Errorf("received %d, %d frames dropped as repetitions; want 500, and some: nothing came twice", s.Received, s.Drops[carillon.DropDuplicate])
		}
		for _, p := range append(s.Providers, a.Stats().Providers...) {
			if !p.Subscribed || !p.Sending || p.FramesReceived == 0 || p.FramesSent == 0 || p.Failures > 0 {
				t.Errorf("%+v; want both in use", p)
			}
		}
	})
}

func TestFailover_ADeadTransportDelaysNothing(t *testing.T) {
	for mode, name := range map[int32]string{refuses: "refuses", hangs: "hangs", swallows: "swallows"} {
		for first := range 2 {
			t.Run(fmt.Sprintf("way%d %s", first, name), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					j := newJunction(t, 2)
					a, b, c := j.open(0, 1), j.open(0, 1), j.open(1, 0)
					d := define()
					recs := []*carillontest.Recorder[note]{carillontest.Record(t, b, d), carillontest.Record(t, c, d)}
					n := 0
					load := func(count int) {
						t.Helper()
						for range count {
							n++
							begun := time.Now()
							raise(t, d, a, n, n)
							synctest.Wait()
							for i, rec := range recs {
								if raised := len(rec.Raised()); raised != n {
									t.Fatalf("event %d is not raised at instance %d at once: it has %d", n, i+1, raised)
								}
							}
							if took := time.Since(begun); took != 0 {
								t.Fatalf("event %d took %v", n, took)
							}
							time.Sleep(time.Millisecond)
						}
					}
					load(200)
					j.modes[first].Store(mode)
					load(1000)
					if mode == refuses {
						p := a.Stats().Providers[first]
						if p.FailingSince.IsZero() || p.Failures == 0 || p.LastError != errTest.Error() || len(j.problem(a, first)) != 1 {
							t.Errorf("%+v, problems %q; want both to say that it fails", p, a.Status().Problems)
						}
					}
					if st := a.Status(); !st.Ready || len(j.problem(a, 1-first)) > 0 {
						t.Errorf("not ready, or the other is said to fail too, though it carries everything: %+v", st)
					}
					if s := a.Stats(); s.Backlog != 0 {
						t.Errorf("%d events wait for a transport that does not work", s.Backlog)
					}
					j.modes[first].Store(carries)
					time.Sleep(3 * time.Second)
					synctest.Wait()
					if len(j.problem(a, first)) > 0 {
						t.Errorf("problems %q after it works again", a.Status().Problems)
					}
					j.modes[1-first].Store(mode)
					load(1000)
					j.modes[1-first].Store(carries)
					time.Sleep(10 * time.Second)
					synctest.Wait()
					for i, rec := range recs {
						wantAll(t, fmt.Sprint("instance ", i+1), rec, n)
					}
				})
			})
		}
	}
}

// What waits for a transport that hangs is bounded, and the wait for it too.
func TestFailover_ATransportThatHangsIsGivenUpWhenItIsFarBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		a, b := j.open(0, 1), j.open(0, 1)
		d := define()
		rec := carillontest.Record(t, b, d)
		j.modes[0].Store(hangs)
		begun := time.Now()
		const n = 400
		for i := 1; i <= n; i++ { // 12 MiB in all
			if err := d.Raise(t.Context(), a, carillon.ID{}, note{N: i, Text: strings.Repeat("x", 30<<10)}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if err := a.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v; want no more than one wait for the one that hangs", took)
		}
		wantAll(t, "with one transport that hangs", rec, n)
		if got := j.problem(a, 0); len(got) != 1 || !strings.Contains(got[0], "does not return") {
			t.Errorf("problems %q; want one that says that it hangs", a.Status().Problems)
		}
		j.modes[0].Store(carries)
		time.Sleep(10 * time.Second)
		j.modes[1].Store(refuses) // what is raised now has the other way alone
		if err := d.Raise(t.Context(), a, carillon.ID{}, note{N: n + 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantAll(t, "when it carries again", rec, n+1)
	})
}

func TestFailover_WithoutAnyTransportEventsWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		a, b := j.open(0, 1), j.open(0, 1)
		d := define()
		rec := carillontest.Record(t, b, d)
		j.modes[0].Store(refuses)
		j.modes[1].Store(hangs)
		raise(t, d, a, 1, 100)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := a.Stats(); s.Backlog != 100 || s.Handed.Next != 0 {
			t.Errorf("backlog %d, handed %+v; want 100 events to wait", s.Backlog, s.Handed)
		}
		if err := a.Flush(bounded(t, time.Second)); err == nil {
			t.Error("flushed, and no transport has accepted anything")
		}
		j.modes[0].Store(carries)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		wantAll(t, "when one works again", rec, 100)
		if s := a.Stats(); s.Backlog != 0 {
			t.Errorf("backlog %d", s.Backlog)
		}
	})
}

// An instance that hears only the transport that fails asks for what it lacks when it is back.
func TestFailover_WhoHearsOnlyTheDeadTransportIsRepaired(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		a, b, c := j.open(0, 1), j.open(0, 1), j.open(1)
		d := define()
		recs := []*carillontest.Recorder[note]{carillontest.Record(t, b, d), carillontest.Record(t, c, d)}
		raise(t, d, a, 1, 100)
		j.modes[1].Store(hangs)
		for i := 101; i <= 300; i++ {
			raise(t, d, a, i, i)
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		wantAll(t, "who hears both", recs[0], 300)
		j.modes[1].Store(carries)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wantAll(t, "who hears the one that was dead", recs[1], 300)
	})
}

func TestFailover_ABrokerEndsWhileATransportHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		a, b := j.open(0, 1), j.open(0, 1)
		d := define()
		rec := carillontest.Record(t, b, d)
		j.modes[0].Store(hangs)
		raise(t, d, a, 1, 100)
		if err := a.Shutdown(bounded(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		wantAll(t, "before it ended", rec, 100)
		if rows := openRows(t, j.db); len(rows) != 1 {
			t.Errorf("%d rows are open, want one", len(rows))
		}
	})
}
