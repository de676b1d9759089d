package carillon_test

import (
	"context"
	"errors"
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
	"github.com/carillon-go/carillon/site"
	move "github.com/carillon-go/carillon/site/transports"
)

// standby opens an instance that uses the first of the transports given and has the others beside it. Each can be made
// any number of times.
func (j *junction) standby(uses int, has ...int) *carillon.Broker {
	j.t.Helper()
	b := mustOpen(j.t, j.config(uses, has...))
	b.Enable()
	return b
}

func (j *junction) config(uses int, has ...int) carillon.Config {
	cfg := config(j.db, j.road(uses))
	cfg.Standby = map[string]func() (provider.Provider, error){}
	for _, i := range append(has, uses) {
		cfg.Standby[fmt.Sprint(transport, i)] = func() (provider.Provider, error) { return j.road(i), nil }
	}
	return cfg
}

// move moves the site to transport i, and returns what it was told.
func (j *junction) move(i int) (told []string, err error) {
	_, err = move.Move(j.t.Context(), j.db, "test", []string{fmt.Sprint(transport, i)}, move.Options{
		Overlap: 10 * time.Second, Progress: func(p move.Progress) { told = append(told, p.Step.String()) },
	})
	return told, err
}

func (j *junction) mustMove(i int) {
	j.t.Helper()
	if told, err := j.move(i); err != nil {
		j.t.Fatalf("move to %s%d: %v after %q", transport, i, err, told)
	}
}

// wantUse fails the test unless b uses transport i alone.
func (j *junction) wantUse(b *carillon.Broker, i int) {
	j.t.Helper()
	for _, p := range b.Stats().Providers {
		want := p.Name == fmt.Sprint(transport, i)
		if p.Subscribed != want || p.Sending != want {
			j.t.Errorf("%s is subscribed %v and sent on %v, want %v", p.Name, p.Subscribed, p.Sending, want)
		}
	}
	if st := b.Status(); len(st.Problems) > 0 || !st.Ready {
		j.t.Errorf("status %+v", st)
	}
}

func TestTransports_ASiteMovesUnderLoadAndLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 3)
		d := define()
		var brokers []*carillon.Broker
		var recs []*carillontest.Recorder[note]
		add := func() {
			b := mustOpen(t, j.config(0, 1, 2))
			recs = append(recs, carillontest.Record(t, b, d))
			b.Enable()
			brokers = append(brokers, b)
		}
		for range 3 {
			add()
		}
		var stop atomic.Bool
		n := 0
		var load sync.WaitGroup
		load.Go(func() {
			for !stop.Load() {
				n++
				if err := d.Raise(context.Background(), brokers[n%3], carillon.ID{}, note{N: n}); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		})
		j.mustMove(1)
		for _, b := range brokers {
			j.wantUse(b, 1)
		}
		j.mustMove(2)
		for _, b := range brokers {
			j.wantUse(b, 2)
		}
		j.mustMove(0) // its first provider has been closed
		for _, b := range brokers {
			j.wantUse(b, 0)
		}
		stop.Store(true)
		load.Wait()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for i, rec := range recs {
			wantAll(t, fmt.Sprint("instance ", i), rec, n)
		}
		if n < 40000 {
			t.Errorf("%d events: the load stood still", n)
		}
	})
}

func TestTransports_AnInstanceFollowsTheSiteAndNotItsSettings(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		a := j.standby(0, 1)
		j.mustMove(1)
		var book logBook
		cfg := j.config(0, 1)
		cfg.Logger = book.logger()
		b := mustOpen(t, cfg)
		b.Enable()
		j.wantUse(b, 1)
		if len(book.lines("transports are others than those configured", "way1")) != 1 {
			t.Error("nobody is told that the settings are not followed")
		}
		d := define()
		rec := carillontest.Record(t, b, d)
		raise(t, d, a, 1, 10)
		synctest.Wait()
		wantAll(t, "over the transport that the site has moved to", rec, 10)

		_, err := carillon.Open(t.Context(), config(j.db, j.road(0)))
		if err == nil || !strings.Contains(err.Error(), `"way1"`) || !strings.Contains(err.Error(), "way0") {
			t.Errorf("an instance without the transport: %v; want an error that names it, and what it has", err)
		}
		if rows := openRows(t, j.db); len(rows) != 2 {
			t.Errorf("%d rows are open, want 2", len(rows))
		}
	})
}

func TestTransports_WhoJoinsInTheMiddleTakesPart(t *testing.T) {
	for _, at := range []move.Action{move.AwaitReceive, move.AwaitBoth, move.AwaitNew, move.AwaitEnd, move.AwaitClose} {
		t.Run(at.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j := newJunction(t, 2)
				a, b := j.standby(0, 1), j.standby(0, 1)
				d := define()
				rec := carillontest.Record(t, b, d)
				var late *carillon.Broker
				var lateRec *carillontest.Recorder[note]
				n := 0
				done := make(chan struct{})
				var stop atomic.Bool
				go func() {
					defer close(done)
					for !stop.Load() {
						n++
						if err := d.Raise(context.Background(), a, carillon.ID{}, note{N: n}); err != nil {
							t.Error(err)
						}
						time.Sleep(10 * time.Millisecond)
					}
				}()
				time.Sleep(time.Second)
				_, err := move.Move(t.Context(), j.db, "test", []string{"way1"}, move.Options{
					Overlap: 10 * time.Second,
					Progress: func(p move.Progress) {
						if p.Step.Action == at && late == nil {
							late = mustOpen(t, j.config(0, 1))
							lateRec = carillontest.Record(t, late, d)
							late.Enable()
						}
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				if late == nil {
					t.Fatalf("never at %v", at)
				}
				j.wantUse(late, 1)
				stop.Store(true)
				<-done
				time.Sleep(5 * time.Second)
				synctest.Wait()
				wantAll(t, "who was there", rec, n)
				got := numbers(lateRec.Raised())
				slices.Sort(got)
				if len(got) == 0 || len(lateRec.Missed()) > 0 || !slices.Equal(got, span(got[0], n)) {
					t.Errorf("who came later raised %d from %v on, of %d, missed %+v; want everything from one on", len(got), got[:min(1, len(got))], n, lateRec.Missed())
				}
			})
		})
	}
}

// An instance that cannot follow says so by not saying anything, and the move waits.
func TestTransports_WhoJoinsWithoutTheNewOneHoldsTheMoveUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		j.standby(0, 1)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := move.Move(ctx, j.db, "test", []string{"way1"}, move.Options{Progress: func(p move.Progress) {
			if p.Step.Action == move.AwaitReceive {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		late := j.open(0)
		time.Sleep(time.Minute)
		_, err = j.move(1)
		var lack *move.LackError
		if !errors.As(err, &lack) || !lack.Begun || len(lack.Rows) != 1 {
			t.Errorf("%v; want a LackError of a move that has begun", err)
		}
		if got := j.problem(late, 1); len(got) != 1 || !strings.Contains(got[0], "not configured") {
			t.Errorf("problems %q; want one that says what is not configured", late.Status().Problems)
		}
		if err := late.Shutdown(bounded(t, time.Minute)); err != nil {
			t.Error(err)
		}
		j.mustMove(1)
	})
}

// Settings that are changed instance by instance, in place of a move, are noticed at both ends.
func TestTransports_InstancesWithNothingInCommonAreNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 3)
		a, c := j.open(0), j.open(0, 2)
		b := j.open(1, 2)
		time.Sleep(5 * time.Second)
		for what, found := range map[string][]string{"who was there": j.problem(a, 1), "who came": j.problem(b, 0)} {
			if len(found) != 1 || !strings.Contains(found[0], "this instance and another one of the site do not hear each other") || !strings.Contains(found[0], "provider migrate") {
				t.Errorf("%s: problems %q; want one that names the other and the remedy", what, found)
			}
		}
		if st := c.Status(); len(st.Problems) > 0 {
			t.Errorf("problems %q of one that hears both", st.Problems)
		}
	})
}

// The plan is read again behind the row: a move that did not see the row did not wait for it.
func TestTransports_AMoveBetweenTheFirstReadAndTheRowIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		hooked := &hookedDB{Database: j.db}
		moved := false
		hooked.before = func(ctx context.Context, call string) error {
			if call == "Join" && !moved {
				moved = true
				j.mustMove(1) // there is nobody who could be waited for
			}
			return nil
		}
		cfg := j.config(0, 1)
		cfg.Database = hooked
		b := mustOpen(t, cfg)
		b.Enable()
		if got := b.Stats().Providers[1]; !got.Subscribed || !got.Sending {
			t.Errorf("%+v; want it in use when Open returns", got)
		}
		time.Sleep(5 * time.Second)
		j.wantUse(b, 1)
	})
}

// Nobody is left behind who does not really hear the others on the new transport, as when half of the instances
// have the address of another server.
func TestTransports_AMoveToTransportsThatAreNotConnectedStops(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		elsewhere := newJunction(t, 2)
		elsewhere.db, elsewhere.buses[0] = j.db, j.buses[0]
		a, b, c := j.standby(0, 1), j.standby(0, 1), elsewhere.standby(0, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		_, err := move.Move(ctx, j.db, "test", []string{"way1"}, move.Options{})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "hear all others on way1") {
			t.Errorf("%v; want it to wait until all hear each other", err)
		}
		for i, b := range []*carillon.Broker{a, b, c} {
			if got := j.problem(b, 1); len(got) != 1 || !strings.Contains(got[0], "nothing has arrived") {
				t.Errorf("instance %d: problems %q; want one that says of whom nothing has arrived", i, b.Status().Problems)
			}
		}
		d := define()
		rec := carillontest.Record(t, c, d)
		raise(t, d, a, 1, 10)
		synctest.Wait()
		wantAll(t, "over the old one meanwhile", rec, 10)
		if _, err := move.Abort(t.Context(), j.db, "test", move.Options{}); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		for _, b := range []*carillon.Broker{a, b, c} {
			j.wantUse(b, 0)
		}
	})
}

// A transport that does not start keeps the old one in use, and is tried again.
func TestTransports_OneThatDoesNotStartIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		var broken atomic.Bool
		broken.Store(true)
		cfg := j.config(0)
		cfg.Standby["way1"] = func() (provider.Provider, error) {
			r := j.road(1)
			r.start = func(ctx context.Context, env provider.Env) error {
				if broken.Load() {
					return errTest
				}
				return r.Provider.Start(ctx, env)
			}
			return r, nil
		}
		a := mustOpen(t, cfg)
		a.Enable()
		b := j.standby(0, 1)
		go func() {
			time.Sleep(time.Minute)
			if got := j.problem(a, 1); len(got) == 0 || !strings.Contains(strings.Join(got, " "), "standing by") {
				t.Errorf("problems %q", a.Status().Problems)
			}
			if p := b.Stats().Providers; !p[0].Sending || p[1].Sending {
				t.Errorf("%+v; want the old one to be sent on alone", p)
			}
			broken.Store(false)
		}()
		begun := time.Now()
		j.mustMove(1)
		if took := time.Since(begun); took < time.Minute {
			t.Errorf("it took %v, less than until the transport can be started", took)
		}
		j.wantUse(a, 1)
		j.wantUse(b, 1)
	})
}

func TestTransports_AnInstanceStartsWhileOneOfItsTransportsIsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		var broken atomic.Bool
		broken.Store(true)
		make := func() (provider.Provider, error) {
			r := j.road(1)
			r.start = func(ctx context.Context, env provider.Env) error {
				if broken.Load() {
					return errTest
				}
				return r.Provider.Start(ctx, env)
			}
			return r, nil
		}
		first, _ := make()
		cfg := config(j.db, j.road(0), first)
		if _, err := carillon.Open(t.Context(), cfg); !errors.Is(err, errTest) {
			t.Errorf("%v; want the error of a provider that cannot be made again", err)
		}
		first, _ = make()
		cfg = config(j.db, j.road(0), first)
		cfg.Standby = map[string]func() (provider.Provider, error){"way1": make}
		a, b := mustOpen(t, cfg), j.open(0, 1)
		a.Enable()
		d := define()
		rec := carillontest.Record(t, b, d)
		raise(t, d, a, 1, 10)
		synctest.Wait()
		wantAll(t, "over the one that works", rec, 10)
		if len(j.problem(a, 1)) == 0 {
			t.Error("nobody is told that one does not work")
		}
		broken.Store(false)
		time.Sleep(30 * time.Second)
		if p := a.Stats().Providers[1]; !p.Subscribed || !p.Sending || len(a.Status().Problems) > 0 {
			t.Errorf("%+v, problems %q; want it in use", p, a.Status().Problems)
		}
	})
}

// Instances of another site hear this one, and their own site stays where it is.
func TestTransports_OtherSitesKeepHearing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		a := j.standby(0, 1)
		cfg := j.config(0, 1)
		cfg.Site = "other"
		b := mustOpen(t, cfg)
		b.Enable()
		time.Sleep(5 * time.Second)
		da, db := define(), define()
		there, here := carillontest.Record(t, b, da), carillontest.Record(t, a, db)
		j.mustMove(1)
		raise(t, da, a, 1, 10)
		raise(t, db, b, 1, 10)
		time.Sleep(time.Second)
		synctest.Wait()
		wantAll(t, "the other site", there, 10)
		wantAll(t, "the site that was moved", here, 10)
		if p := b.Stats().Providers; !p[0].Sending || p[1].Sending || !p[1].Subscribed {
			t.Errorf("%+v; want the other site to send where it did, and to hear both", p)
		}
	})
}

func TestConfig_StandbyIsChecked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		closed := 0
		counted := func(i int) func() (provider.Provider, error) {
			return func() (provider.Provider, error) {
				r := j.road(i)
				r.close = func() { closed++ }
				return r, nil
			}
		}
		for name, c := range map[string]struct {
			standby map[string]func() (provider.Provider, error)
			closed  int
		}{
			"no function":  {map[string]func() (provider.Provider, error){"way1": nil}, 0},
			"an error":     {map[string]func() (provider.Provider, error){"a": counted(0), "way1": func() (provider.Provider, error) { return nil, errTest }}, 1},
			"nothing":      {map[string]func() (provider.Provider, error){"way1": func() (provider.Provider, error) { return nil, nil }}, 0},
			"another name": {map[string]func() (provider.Provider, error){"other": counted(1)}, 1},
			"small frames": {map[string]func() (provider.Provider, error){"way1": func() (provider.Provider, error) {
				return named{&wrap{Provider: j.buses[1].Provider(), caps: &provider.Capabilities{MaxFrameBytes: 511}, close: func() { closed++ }}, "way1"}, nil
			}}, 1},
		} {
			closed = 0
			cfg := config(j.db, j.road(0))
			cfg.Standby = c.standby
			_, err := carillon.Open(t.Context(), cfg)
			var wrong *carillon.ConfigError
			if !errors.As(err, &wrong) || wrong.Field != "Standby" {
				t.Errorf("%s: %v; want a ConfigError about Standby", name, err)
			}
			if closed != c.closed {
				t.Errorf("%s: %d of those that were made are closed, want %d", name, closed, c.closed)
			}
		}
		cfg := config(j.db)
		cfg.Standby = map[string]func() (provider.Provider, error){"way1": counted(1)}
		if _, err := carillon.Open(t.Context(), cfg); err == nil {
			t.Error("Open with Standby and no Providers: no error")
		}
		closed = 0
		cfg = config(j.db, j.road(0))
		cfg.Standby = map[string]func() (provider.Provider, error){"way1": counted(1)}
		if b := mustOpen(t, cfg); b.Close() != nil || closed != 1 {
			t.Errorf("%d of those standing by are closed with the Broker, want 1", closed)
		}
	})
}

// Frames that were sent on one transport may be repeated on another.
func TestTransports_TheFrameLimitIsTheSmallestOfAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		largest := 0
		cfg := config(j.db)
		r := j.road(0)
		r.send = func(ctx context.Context, frames [][]byte) error {
			for _, f := range frames {
				largest = max(largest, len(f))
			}
			return r.Provider.Send(ctx, frames)
		}
		cfg.Providers = []provider.Provider{r}
		cfg.Standby = map[string]func() (provider.Provider, error){"way1": func() (provider.Provider, error) {
			return named{&wrap{Provider: j.buses[1].Provider(), caps: &provider.Capabilities{MaxFrameBytes: 1000}}, "way1"}, nil
		}}
		a := mustOpen(t, cfg)
		a.Enable()
		if err := define().Raise(t.Context(), a, carillon.ID{}, note{Text: strings.Repeat("x", 10000)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if largest == 0 || largest > 1000 {
			t.Errorf("the largest frame has %d bytes, want at most 1000", largest)
		}
	})
}

// What nobody has accepted yet when the site goes back goes back with it.
func TestTransports_TheNewOneDiesAndTheSiteGoesBack(t *testing.T) {
	for mode, name := range map[int32]string{refuses: "refuses", hangs: "hangs"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j := newJunction(t, 2)
				a, b := j.standby(0, 1), j.standby(0, 1)
				d := define()
				rec := carillontest.Record(t, b, d)
				raise(t, d, a, 1, 10)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				_, err := move.Move(ctx, j.db, "test", []string{"way1"}, move.Options{Overlap: time.Hour})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				j.modes[1].Store(mode)
				raise(t, d, a, 11, 1000)
				time.Sleep(5 * time.Second)
				if s := a.Stats(); s.Backlog != 990 {
					t.Errorf("backlog %d: the transport that died carries still", s.Backlog)
				}
				if _, err := move.Abort(t.Context(), j.db, "test", move.Options{Overlap: 10 * time.Second}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				wantAll(t, "after the way back", rec, 1000)
				if r := b.Stats().Repair; r.Repaired > 0 {
					t.Errorf("%d frames had to be repaired, and nobody had accepted them before", r.Repaired)
				}
				j.wantUse(a, 0)
				j.wantUse(b, 0)
			})
		})
	}
}

// Where a message costs money idle instances say nothing, and are heard on the new transport nevertheless.
func TestTransports_IdleInstancesAreHeardToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		caps := j.road(0).Capabilities()
		caps.IdleHeartbeat = -1
		quiet := func(i int) provider.Provider {
			return named{&wrap{Provider: j.buses[i].Provider(), caps: &caps}, fmt.Sprint("way", i)}
		}
		var brokers []*carillon.Broker
		for range 3 {
			cfg := config(j.db, quiet(0))
			cfg.Poll = 10 * time.Second // they read of it far apart
			cfg.Standby = map[string]func() (provider.Provider, error){"way1": func() (provider.Provider, error) { return quiet(1), nil }}
			b := mustOpen(t, cfg)
			b.Enable()
			brokers = append(brokers, b)
		}
		time.Sleep(time.Hour)
		j.mustMove(1)
		for _, b := range brokers {
			j.wantUse(b, 1)
		}
	})
}

// A keeper is a transport at whose service instances leave something.
type keeper struct {
	*road
	looks *atomic.Int32
}

func (k keeper) Addresses() []string { return []string{"queue"} }

func (k keeper) Subscriptions(context.Context, site.ID) ([]provider.Subscription, error) {
	k.looks.Add(1)
	return nil, nil
}

func (k keeper) Unsubscribe(context.Context, site.ID, provider.Subscription) error { return nil }

// The service of a transport that stands by may not be there yet, or any more.
func TestTransports_NobodyLooksAfterTheServiceOfOneThatStandsBy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJunction(t, 2)
		var looks atomic.Int32
		cfg := j.config(0)
		cfg.Standby["way1"] = func() (provider.Provider, error) { return keeper{j.road(1), &looks}, nil }
		b := mustOpen(t, cfg)
		b.Enable()
		time.Sleep(time.Hour)
		if n := looks.Load(); n > 0 {
			t.Errorf("looked %d times before it was used", n)
		}
		j.mustMove(1)
		if got := openRows(t, j.db)[0].Addresses; !slices.Equal(got["way1"], []string{"queue"}) {
			t.Errorf("the row has the addresses %v, want that of the new transport", got)
		}
		time.Sleep(time.Hour)
		used := looks.Load()
		if used == 0 {
			t.Error("never looked while it was used")
		}
		j.mustMove(0)
		if got := openRows(t, j.db)[0].Addresses; len(got) > 0 {
			t.Errorf("the row has the addresses %v of a transport that is closed", got)
		}
		used = looks.Load()
		time.Sleep(time.Hour)
		if n := looks.Load(); n > used {
			t.Errorf("looked %d times after the site had moved away", n-used)
		}
	})
}
