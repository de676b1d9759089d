package transports_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
	"github.com/carillon-go/carillon/site/transports"
)

const lease = 30 * time.Second

// A world is a database and the instances on it, in a bubble.
type world struct {
	t    *testing.T
	db   *memsite.Database
	site site.Site
	n    uint64
	told []string

	mu        sync.Mutex // guards the fields below
	instances map[*instance]bool
}

// An instance does what it has read, and says so.
type instance struct {
	stream        site.StreamID
	has, uses     []string
	receive, send []string // as it has read; guarded by the world
	cancel        context.CancelFunc
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, db: memsite.New(nil), instances: map[*instance]bool{}}
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

// instance joins one that has the transports given and uses the first of them. It reads every second, from a third of
// one on, until the test ends or stop is called. It runs inside a bubble.
func (w *world) instance(in site.Site, has ...string) *instance {
	w.n++
	ctx, cancel := context.WithCancel(w.t.Context())
	i := &instance{stream: site.NewStreamID(1, w.n), has: has, uses: has[:min(1, len(has))], cancel: cancel}
	m := site.Member{
		Site: in.ID, Stream: i.stream, Server: fmt.Sprintf("web%d", w.n), Application: "app", Role: site.RolePublish,
		Providers: slices.Sorted(slices.Values(has)), Uses: i.uses,
	}
	if err := w.db.Join(w.t.Context(), m, lease); err != nil {
		w.t.Fatal(err)
	}
	w.read(ctx, i, in) // behind its row, before it takes part
	w.mu.Lock()
	w.instances[i] = true
	w.mu.Unlock()
	go func() {
		time.Sleep(300 * time.Millisecond)
		for {
			w.read(ctx, i, in)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				w.mu.Lock()
				delete(w.instances, i)
				w.mu.Unlock()
				return
			}
		}
	}()
	return i
}

// read has i act on what the database has, and checks that no two instances are apart.
func (w *world) read(ctx context.Context, i *instance, in site.Site) {
	sites, err := w.db.Sites(ctx)
	if err != nil {
		return
	}
	generation := uint64(0)
	w.mu.Lock()
	for _, s := range sites {
		generation = max(generation, s.Generation)
		if s.ID != in.ID {
			continue
		}
		i.receive, i.send = i.uses, i.uses
		if !s.Transports.IsZero() {
			i.receive, i.send = s.Transports.Receive, s.Transports.Send
		}
	}
	for a := range w.instances {
		for b := range w.instances {
			for _, name := range a.send {
				if !slices.Contains(b.receive, name) {
					w.t.Errorf("one instance sends on %q, another receives %q", a.send, b.receive)
				}
			}
		}
	}
	for _, name := range i.receive {
		if !slices.Contains(i.has, name) {
			generation = 0 // it cannot say that
		}
	}
	w.mu.Unlock()
	w.db.Renew(ctx, i.stream, site.Renewal{Carries: generation, Lease: lease})
}

func (w *world) options(o transports.Options) transports.Options {
	o.Progress = func(p transports.Progress) {
		text := p.Step.String()
		if p.Err != nil {
			text = "away"
		}
		if len(p.Left) > 0 {
			text = fmt.Sprintf("without %d: %s", len(p.Left), text)
		}
		w.told = append(w.told, text)
	}
	return o
}

// stopAt returns what a command runs with that is stopped at an action.
func (w *world) stopAt(t *testing.T, at transports.Action) (context.Context, transports.Options) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	o := w.options(transports.Options{})
	inner := o.Progress
	o.Progress = func(p transports.Progress) {
		inner(p)
		if p.Step.Action == at {
			cancel()
		}
	}
	return ctx, o
}

func (w *world) move(o transports.Options, to ...string) (site.Site, error) {
	return transports.Move(w.t.Context(), w.db, "app", to, w.options(o))
}

func (w *world) transports() site.Transports {
	sites, err := w.db.Sites(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return sites[0].Transports
}

// wantUse fails the test unless the site uses these transports and no move is under way.
func (w *world) wantUse(names ...string) {
	w.t.Helper()
	if t := w.transports(); !slices.Equal(t.Receive, names) || !slices.Equal(t.Send, names) || t.Moving() || t.Back || !t.Until.IsZero() {
		w.t.Errorf("the transports are %+v, want %q in use and nothing under way", t, names)
	}
}

func bubble(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fn(t, w)
		w.mu.Lock()
		for i := range w.instances {
			i.cancel()
		}
		w.mu.Unlock()
		time.Sleep(time.Second) // those that begin
		synctest.Wait()
	})
}

func TestMove_WalksThroughAllSteps(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for range 3 {
			w.instance(w.site, "udp", "nats", "redis")
		}
		plan := w.plan(transports.Target{To: []string{"nats"}})
		begun := time.Now()
		if _, err := w.move(transports.Options{}, "nats"); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"have every instance receive on nats and udp",
			"wait until web1, web2, web3 can receive on nats and udp",
			"have every instance send on nats and udp",
			"wait until web1, web2, web3 can send on nats and udp, and hear all others on nats",
			"have every instance send on nats alone",
			"wait until web1, web2, web3 can send on nats alone",
			"keep udp open until TIME",
			"wait until TIME, when nothing is on its way on udp any more",
			"have every instance close udp",
			"wait until web1, web2, web3 can do without udp",
			"done: nats in use",
		}
		if got := clean(w.told); !slices.Equal(got, want) {
			t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if got := clean(plan); !slices.Equal(got, want) {
			t.Errorf("a dry run shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if took := time.Since(begun); took < transports.DefaultOverlap {
			t.Errorf("it took %v, less than the overlap", took)
		}
		w.wantUse("nats")
		if from := w.transports().From; !slices.Equal(from, []string{"udp"}) {
			t.Errorf("moved from %q", from)
		}
		if _, err := w.move(transports.Options{}, "nats"); err != nil {
			t.Errorf("moved there already: %v", err)
		}
		if _, err := w.move(transports.Options{}, "redis", "udp"); err != nil {
			t.Errorf("to two others: %v", err)
		}
		w.wantUse("redis", "udp")
		if _, err := w.move(transports.Options{}, "udp"); err != nil {
			t.Errorf("to one of two: %v", err)
		}
		w.wantUse("udp")
	})
}

// plan returns what a dry run says.
func (w *world) plan(r transports.Target) (texts []string) {
	w.t.Helper()
	steps, err := transports.Plan(w.view(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range steps {
		texts = append(texts, s.String())
	}
	return texts
}

func (w *world) view() transports.View {
	snap, err := w.db.Changes(w.t.Context(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := transports.NewView(snap, "app")
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

var details = strings.NewReplacer("app on ", "")
var (
	stream = regexp.MustCompile(` \(1-[0-9a-f]+\)`)
	clock  = regexp.MustCompile(`[0-9:]{8} UTC`)
)

// clean takes streams and times out of what was told, and leaves out the waits for only some instances.
func clean(told []string) (texts []string) {
	for _, text := range told {
		text = clock.ReplaceAllString(stream.ReplaceAllString(details.Replace(text), ""), "TIME")
		if n := strings.Count(text, "web"); n == 0 || n == 3 {
			texts = append(texts, text)
		}
	}
	return texts
}

func TestMove_AddsATransport(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for range 3 {
			w.instance(w.site, "udp", "nats")
		}
		plan := w.plan(transports.Target{To: []string{"udp", "nats"}})
		if _, err := w.move(transports.Options{}, "udp", "nats"); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"have every instance receive on nats and udp",
			"wait until web1, web2, web3 can receive on nats and udp",
			"have every instance send on nats and udp",
			"wait until web1, web2, web3 can send on nats and udp, and hear all others on nats and udp",
			"done: nats and udp in use",
		}
		for what, got := range map[string][]string{"told": clean(w.told), "a dry run shows": clean(plan)} {
			if !slices.Equal(got, want) {
				t.Errorf("%s\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		w.wantUse("nats", "udp")
	})
}

func TestMove_AnInstanceThatLacksTheTransportStopsItBeforeAnythingChanges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.instance(w.site, "udp", "nats")
		w.instance(w.site, "udp")
		_, err := w.move(transports.Options{}, "nats")
		var lack *transports.LackError
		if !errors.As(err, &lack) || len(lack.Rows) != 1 || lack.Rows[0].Server != "web2" || !strings.Contains(err.Error(), "web2") ||
			!strings.Contains(err.Error(), "lacks nats") || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("%v; want a LackError that names web2 and nats", err)
		}
		if tr := w.transports(); !tr.IsZero() {
			t.Errorf("changed to %+v", tr)
		}
	})
}

func TestMove_AProgramThatKnowsNoTransportsIsNamed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.instance(w.site, "udp", "nats")
		w.instance(w.site)
		if _, err := w.move(transports.Options{}, "nats"); err == nil || !strings.Contains(err.Error(), "too old") || !strings.Contains(err.Error(), "web2") {
			t.Errorf("%v; want an error that says that the program of web2 is too old", err)
		}
	})
}

func TestMove_AnInstanceThatComesWithoutTheTransportHoldsItUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.instance(w.site, "udp", "nats")
		ctx, o := w.stopAt(t, transports.AwaitReceive)
		if _, err := transports.Move(ctx, w.db, "app", []string{"nats"}, o); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "carries on") {
			t.Errorf("stopped: %v", err)
		}
		w.instance(w.site, "udp")
		var lack *transports.LackError
		if _, err := w.move(transports.Options{}); !errors.As(err, &lack) || !lack.Begun {
			t.Errorf("%v; want a LackError of a move that has begun", err)
		}
	})
}

func TestMove_ALapsedInstanceStopsItAfterAMinute(t *testing.T) {
	for _, force := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			w.instance(w.site, "udp", "nats")
			dead := w.instance(w.site, "udp", "nats")
			dead.cancel()
			time.Sleep(2 * lease)
			begun := time.Now()
			_, err := w.move(transports.Options{Force: force}, "nats")
			if force {
				if err != nil {
					t.Errorf("by force: %v", err)
				}
				if !slices.ContainsFunc(w.told, func(s string) bool { return strings.HasPrefix(s, "without 1: ") }) {
					t.Errorf("nobody was told who is left behind: %q", w.told)
				}
				w.wantUse("nats")
				return
			}
			var lapsed *transports.LapsedError
			if !errors.As(err, &lapsed) || len(lapsed.Rows) != 1 || lapsed.Rows[0].Stream != dead.stream || !strings.Contains(err.Error(), "web2") {
				t.Errorf("%v; want a LapsedError that names web2", err)
			}
			if took := time.Since(begun); took < time.Minute || took > 2*time.Minute {
				t.Errorf("it took %v, want about a minute", took)
			}
			if tr := w.transports(); !slices.Equal(tr.Send, []string{"udp"}) {
				t.Errorf("%+v; want all to send on udp alone still", tr)
			}
			if _, err := transports.Abort(t.Context(), w.db, "app", w.options(transports.Options{Force: true})); err != nil {
				t.Errorf("abort by force: %v", err)
			}
			w.wantUse("udp")
		})
	}
}

func TestAbort_GoesBackFromEveryStep(t *testing.T) {
	for _, at := range []transports.Action{
		transports.AwaitReceive, transports.SendBoth, transports.AwaitBoth, transports.SendNew, transports.AwaitNew, transports.End, transports.AwaitEnd, transports.Close,
	} {
		for _, again := range []bool{false, true} { // the abort is stopped as well, and carried on
			bubble(t, func(t *testing.T, w *world) {
				for range 3 {
					w.instance(w.site, "udp", "nats")
				}
				stopAt := func(at transports.Action, run func(ctx context.Context, o transports.Options) (site.Site, error)) {
					t.Helper()
					run(w.stopAt(t, at))
				}
				stopAt(at, func(ctx context.Context, o transports.Options) (site.Site, error) {
					return transports.Move(ctx, w.db, "app", []string{"nats"}, o)
				})
				sent := slices.Contains(w.transports().Send, "nats")
				if !w.transports().Moving() {
					return // the last step was stored
				}
				if again {
					stopAt(transports.AwaitEnd, func(ctx context.Context, o transports.Options) (site.Site, error) {
						return transports.Abort(ctx, w.db, "app", o)
					})
				}
				if !w.transports().Moving() {
					w.wantUse("udp") // at once: nothing was sent on the new one
					return
				}
				begun := time.Now()
				if _, err := transports.Abort(t.Context(), w.db, "app", w.options(transports.Options{})); err != nil {
					t.Errorf("at %v: %v", at, err)
				}
				w.wantUse("udp")
				if took := time.Since(begun); !again && sent != (took >= transports.DefaultOverlap) {
					t.Errorf("at %v it took %v, sent on both: %v; want the overlap if something was sent on the new one", at, took, sent)
				}
				if _, err := transports.Abort(t.Context(), w.db, "app", transports.Options{}); !errors.Is(err, transports.ErrNothing) {
					t.Errorf("again: %v, want ErrNothing", err)
				}
			})
		}
	}
}

// Where nothing was sent on the new transport there is nothing to wait for, and so no time to name.
func TestAbort_BeforeAnythingWasSentEndsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.instance(w.site, "udp", "nats")
		ctx, o := w.stopAt(t, transports.AwaitReceive)
		transports.Move(ctx, w.db, "app", []string{"nats"}, o) // is stopped
		w.told = nil
		if _, err := transports.Abort(t.Context(), w.db, "app", w.options(transports.Options{})); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"let nats end at once: nothing was sent on it",
			"have every instance close nats",
			"wait until web1 can do without nats",
			"done: udp in use",
		}
		got := w.told
		for i := range got {
			got[i] = stream.ReplaceAllString(details.Replace(got[i]), "")
		}
		if !slices.Equal(got, want) {
			t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		w.wantUse("udp")
	})
}

func TestMove_RefusesAnother(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		i := w.instance(w.site, "udp", "nats", "redis")
		if _, err := w.move(transports.Options{}); !errors.Is(err, transports.ErrNothing) {
			t.Errorf("without a target: %v, want ErrNothing", err)
		}
		if _, err := transports.Abort(t.Context(), w.db, "app", transports.Options{}); !errors.Is(err, transports.ErrNothing) {
			t.Errorf("abort: %v, want ErrNothing", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := transports.Move(ctx, w.db, "app", []string{"nats"}, transports.Options{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stopped in the overlap: %v", err)
		}
		if _, err := w.move(transports.Options{}, "redis"); !errors.Is(err, transports.ErrUnderWay) {
			t.Errorf("to another: %v, want ErrUnderWay", err)
		}
		if _, err := w.move(transports.Options{}); err != nil {
			t.Errorf("carried on: %v", err)
		}
		w.wantUse("nats")
		other := w.instance(w.site, "redis", "nats")
		i.cancel()
		if _, err := transports.Move(t.Context(), memsite.New(nil), "app", []string{"nats"}, transports.Options{}); err == nil || !strings.Contains(err.Error(), `"app"`) {
			t.Errorf("a site that is not there: %v", err)
		}
		_ = other
	})
}

func TestMove_InstancesThatUseDifferentTransportsAreNamed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.db.PutSite(w.site)
		for _, has := range [][]string{{"udp", "nats"}, {"tcp", "nats"}} {
			m := site.Member{Site: w.site.ID, Stream: site.NewStreamID(9, uint64(has[0][0])), Server: has[0], Role: site.RolePublish, Providers: slices.Sorted(slices.Values(has)), Uses: has[:1]}
			if err := w.db.Join(t.Context(), m, lease); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.move(transports.Options{}, "nats"); !errors.Is(err, transports.ErrDiffer) || !strings.Contains(err.Error(), "uses tcp") || !strings.Contains(err.Error(), "uses udp") {
			t.Errorf("%v; want ErrDiffer with both", err)
		}
	})
}

func TestMove_WithoutInstancesIsOneStep(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		if _, err := w.move(transports.Options{}, "nats"); err != nil {
			t.Fatal(err)
		}
		w.wantUse("nats")
	})
}

// Instances of other sites hear this one as well.
func TestMove_WaitsForOtherSites(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.instance(w.site, "udp", "nats")
		other := w.ensure("other")
		m := site.Member{Site: other.ID, Stream: site.NewStreamID(7, 7), Server: "elsewhere", Application: "x", Role: site.RolePublish}
		if err := w.db.Join(t.Context(), m, time.Hour); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := transports.Move(ctx, w.db, "app", []string{"nats"}, w.options(transports.Options{})); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "elsewhere") {
			t.Errorf("%v; want to wait for the instance elsewhere", err)
		}
		if tr := w.transports(); !slices.Equal(tr.Send, []string{"udp"}) {
			t.Errorf("%+v", tr)
		}
	})
}

func TestMove_ADatabaseThatIsAwayHoldsItUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for range 3 {
			w.instance(w.site, "udp", "nats")
		}
		away := errors.New("away")
		go func() {
			for i := range 6 {
				time.Sleep(time.Duration(1+i) * 2 * time.Second)
				w.db.SetDown(away)
				time.Sleep(5 * time.Second)
				w.db.SetDown(nil)
			}
		}()
		if _, err := w.move(transports.Options{}, "nats"); err != nil {
			t.Fatal(err)
		}
		w.wantUse("nats")
		if !slices.Contains(w.told, "away") {
			t.Errorf("told %q, and not that the database was away", w.told)
		}
		w.db.SetDown(away)
		if _, err := w.move(transports.Options{}, "udp"); !errors.Is(err, away) {
			t.Errorf("a database that is away at first: %v", err)
		}
		w.db.SetDown(nil)
	})
}

func TestAction_HasAName(t *testing.T) {
	for a := transports.Subscribe; a <= transports.Done; a++ {
		if strings.HasPrefix(a.String(), "Action(") {
			t.Errorf("action %d has no name", a)
		}
	}
	if got := transports.Action(0).String(); got != "Action(0)" {
		t.Errorf("action 0 is %q", got)
	}
}
