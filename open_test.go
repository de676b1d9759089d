package carillon_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
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

// steps records what happens in which order.
type steps struct {
	mu   sync.Mutex
	list []string
}

func (s *steps) add(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, step)
}

func (s *steps) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// watched records SetMembers as well.
type watched struct {
	*wrap
	steps *steps
}

func (w watched) SetMembers(m provider.Members) {
	w.steps.add("SetMembers")
	w.wrap.SetMembers(m)
}

func TestOpen_StartsInOrder(t *testing.T) { // E7
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		first := mustOpen(t, config(mem, bus.Provider())) // so that there is somebody to say hello to
		first.Enable()

		var s steps
		db := &hookedDB{Database: mem, before: func(_ context.Context, call string) error {
			s.add(call)
			return nil
		}}
		p := &wrap{Provider: bus.Provider()}
		p.start = func(ctx context.Context, env provider.Env) error {
			s.add("Start")
			if env.Site == (site.ID{}) || !slices.Contains(env.Sites, env.Site) || env.Logger == nil || env.Keys == nil ||
				env.Reconnected == nil || !env.Route.IsLoopback() {
				t.Errorf("the provider starts with %+v", env)
			}
			return p.Provider.Start(ctx, env)
		}
		p.send = func(ctx context.Context, frames [][]byte) error {
			s.add("Send")
			return p.Provider.Send(ctx, frames)
		}
		b := mustOpen(t, config(db, watched{p, &s}))
		s.add("in step")
		d := define()
		d.OnRaised(b, func(_ context.Context, r carillon.Raised[note]) {
			if !r.Local {
				s.add("Raised")
			}
		})
		raise(t, d, first, 1, 1)
		synctest.Wait()
		s.add("Enable")
		b.Enable()
		synctest.Wait()

		want := []string{"EnsureSite", "Sites", "ClientAddr", "Start", "NextEpoch", "Join", "Sites", "Snapshot", "Sites", "SetMembers", "Send", "in step", "Enable", "Raised"}
		got := slices.DeleteFunc(s.all(), func(s string) bool { return s == "Changes" || s == "Renew" })
		got = slices.Compact(got)
		if i := slices.Index(got, "in step"); i > 0 { // from then on, acknowledgements may go out at any time
			got = slices.Concat(got[:i], slices.DeleteFunc(slices.Clone(got[i:]), func(s string) bool { return s == "Send" }))
		}
		if !slices.Equal(got, want) {
			t.Errorf("order\n%v, want\n%v", got, want)
		}
	})
}

func TestOpen_MakesTheSiteAndItsSecretOnce(t *testing.T) { // E7
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3)
		sites, err := c.Database().Sites(t.Context())
		if err != nil || len(sites) != 1 || len(sites[0].Keys) != 1 || sites[0].Keys[0].Secret.IsZero() {
			t.Errorf("sites %+v, %v", sites, err)
		}
	})
}

func TestOpen_FailsClearlyWhenTheDatabaseIsAway(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hangs bool
	}{{"refuses", false}, {"hangs", true}} {
		bubble(t, func(t *testing.T) {
			mem, bus := site2()
			for _, call := range []string{"EnsureSite", "Sites", "NextEpoch", "Join", "Snapshot"} {
				db := &hookedDB{Database: mem, before: func(ctx context.Context, c string) error {
					if c != call {
						return nil
					}
					if tt.hangs {
						<-ctx.Done()
						return ctx.Err()
					}
					return errTest
				}}
				closed := false
				start := time.Now()
				b, err := carillon.Open(t.Context(), config(db, &wrap{Provider: bus.Provider(), close: func() { closed = true }}))
				if err == nil {
					b.Close()
					t.Fatalf("%s %s: no error", call, tt.name)
				}
				if d := time.Since(start); d > 5*time.Second {
					t.Errorf("%s %s: the error comes after %v", call, tt.name, d)
				}
				if !strings.HasPrefix(err.Error(), `carillon: open site "test": `) || !strings.Contains(err.Error(), "database") || !strings.Contains(err.Error(), "check") {
					t.Errorf("%s %s: error %q", call, tt.name, err)
				}
				if !tt.hangs {
					wantErr(t, call, err, errTest)
				}
				if !closed {
					t.Errorf("%s %s: the provider is left open", call, tt.name)
				}
				if rows := openRows(t, mem); len(rows) != 0 {
					t.Errorf("%s %s: %d member rows are left open", call, tt.name, len(rows))
				}
			}
		})
	}
}

func TestOpen_EndsWithItsContext(t *testing.T) {
	for _, call := range []string{"EnsureSite", "Join", "Snapshot", "in step"} {
		bubble(t, func(t *testing.T) {
			mem, bus := site2()
			db := &hookedDB{Database: mem, before: func(ctx context.Context, c string) error {
				if c == call {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}}
			if call == "in step" { // somebody who does not answer
				s, err := mem.EnsureSite(t.Context(), "test")
				if err != nil {
					t.Fatal(err)
				}
				if err := mem.Join(t.Context(), site.Member{Site: s.ID, Stream: site.StreamID{1}, Role: site.RolePublish}, time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			_, err := carillon.Open(ctx, config(db, bus.Provider()))
			wantErr(t, call, err, context.DeadlineExceeded)
			if d := time.Since(start); d != time.Second {
				t.Errorf("%s: Open returns after %v, want when its context ends", call, d)
			}
			want := 0
			if call == "in step" {
				want = 1
			}
			if rows := openRows(t, mem); len(rows) != want {
				t.Errorf("%s: %d member rows are left open", call, len(rows)-want)
			}
		})
	}
}

func TestOpen_FailedProviderLeavesNothingBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		closed := map[string]bool{}
		good := &wrap{Provider: bus.Provider(), close: func() { closed["good"] = true }}
		bad := named{&wrap{Provider: bus.Provider(), close: func() { closed["bad"] = true },
			start: func(context.Context, provider.Env) error { return errTest }}, "bad"}
		_, err := carillon.Open(t.Context(), config(mem, good, bad))
		wantErr(t, "open", err, errTest)
		if !strings.Contains(err.Error(), `provider "bad"`) {
			t.Errorf("error %q does not name the provider", err)
		}
		if !closed["good"] || !closed["bad"] {
			t.Errorf("closed: %v", closed)
		}
		if len(openRows(t, mem)) != 0 {
			t.Error("a member row is left open")
		}
	})
}

func TestOpen_UnclearJoinTakesANewStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		var streams []site.StreamID
		db := &joinHook{Database: mem, join: func(ctx context.Context, m site.Member, lease time.Duration) error {
			streams = append(streams, m.Stream)
			if err := mem.Join(ctx, m, lease); err != nil || len(streams) > 1 {
				return err
			}
			return errTest // committed, and nobody knows
		}}
		b := mustOpen(t, config(db, bus.Provider()))
		if len(streams) != 2 || streams[0] == streams[1] {
			t.Fatalf("streams %v", streams)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if rows := openRows(t, mem); len(rows) != 0 {
			t.Errorf("%d member rows are left open", len(rows))
		}
	})
}

type joinHook struct {
	site.Database
	join func(context.Context, site.Member, time.Duration) error
}

func (d *joinHook) Join(ctx context.Context, m site.Member, lease time.Duration) error {
	return d.join(ctx, m, lease)
}

func TestOpen_StaleSnapshotIsRetriedThenRefused(t *testing.T) {
	for _, tt := range []struct {
		stale int
		ok    bool
	}{{3, true}, {1000, false}} {
		bubble(t, func(t *testing.T) {
			mem, bus := site2()
			n := 0
			db := &hookedDB{Database: mem, before: func(_ context.Context, call string) error {
				if call == "Snapshot" {
					if n++; n <= tt.stale {
						return site.ErrStale
					}
				}
				return nil
			}}
			start := time.Now()
			b, err := carillon.Open(t.Context(), config(db, bus.Provider()))
			if (err == nil) != tt.ok {
				t.Errorf("%d stale answers: %v", tt.stale, err)
			}
			if err == nil {
				b.Close()
				return
			}
			wantErr(t, "open", err, site.ErrStale)
			if !strings.Contains(err.Error(), "primary") || time.Since(start) > 5*time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
	}
}

func TestOpen_SchemaTooNewSaysUpgrade(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		db := &hookedDB{Database: mem, before: func(context.Context, string) error { return site.ErrSchema }}
		_, err := carillon.Open(t.Context(), config(db, bus.Provider()))
		if !errors.Is(err, site.ErrSchema) || !strings.Contains(err.Error(), "upgrade") {
			t.Errorf("error %v", err)
		}
	})
}

func TestOpen_UnknownRouteIsNoObstacle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		db := &hookedDB{Database: mem, before: func(_ context.Context, call string) error {
			if call == "ClientAddr" {
				return errTest
			}
			return nil
		}}
		p := &wrap{Provider: bus.Provider()}
		p.start = func(ctx context.Context, env provider.Env) error {
			if env.Route.IsValid() {
				t.Errorf("route %v", env.Route)
			}
			return p.Provider.Start(ctx, env)
		}
		mustOpen(t, config(db, p))
	})
}

func TestOpen_ReturnsInStep(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1, carillontest.Disabled())
		c.Broker(0).Enable()
		d := define()
		raise(t, d, c.Broker(0), 1, 5)
		synctest.Wait()
		i := c.Add()
		// From here on nothing may be lost, though nobody has subscribed yet.
		raise(t, d, c.Broker(0), 6, 9)
		rec := carillontest.Record(t, c.Broker(i), d)
		c.Broker(i).Enable()
		if got := numbers(rec.WaitRaised(4)); !slices.Equal(got, span(6, 9)) {
			t.Errorf("told %v, want what was raised since Open returned", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if m := rec.Missed(); len(m) != 0 {
			t.Errorf("missed %+v", m)
		}
	})
}

func TestOpen_DoesNotWaitLongForTheDead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		time.Sleep(3 * time.Second)
		c.Crash(1)
		start := time.Now()
		c.Restart(1)
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Errorf("in step after %v beside the row of its former self", d)
		}
		c.Crash(0)
		c.Crash(1)
		start = time.Now()
		c.Restart(1)
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("in step after %v with nobody alive", d)
		}
	})
}

func TestEnv_ProvesAndVerifiesWithTheSitesKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := memsite.New(nil)
		var envs []provider.Env
		open := func(name string, accept []string) {
			p := &wrap{Provider: membus.New().Provider()}
			p.start = func(ctx context.Context, env provider.Env) error {
				envs = append(envs, env)
				return p.Provider.Start(ctx, env)
			}
			cfg := config(mem, p)
			cfg.Site, cfg.AcceptSites = name, accept
			mustOpen(t, cfg)
		}
		open("other", nil)
		open("here", nil)
		open("here", nil)
		open("here", []string{})
		other, a, b, narrow := envs[0].Keys, envs[1].Keys, envs[2].Keys, envs[3].Keys
		if len(envs[1].Sites) != 2 || len(envs[3].Sites) != 1 {
			t.Errorf("sites accepted: %v and %v", envs[1].Sites, envs[3].Sites)
		}

		s, k := a.Signing()
		transcript := []byte("transcript")
		proof, err := a.Prove(s, k, "test v1", provider.Initiator, transcript)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(s, k, "test v1", provider.Initiator, transcript, proof); err != nil {
			t.Errorf("a right proof: %v", err)
		}
		wantErr(t, "the other side's proof", b.Verify(s, k, "test v1", provider.Acceptor, transcript, proof), provider.ErrProof)
		wantErr(t, "another handshake's proof", b.Verify(s, k, "test v2", provider.Initiator, transcript, proof), provider.ErrProof)
		wantErr(t, "another transcript", b.Verify(s, k, "test v1", provider.Initiator, []byte("x"), proof), provider.ErrProof)
		wantErr(t, "an unknown key", b.Verify(s, k+1, "test v1", provider.Initiator, transcript, proof), provider.ErrKey)
		wantErr(t, "an unknown site", b.Verify(site.ID{1}, k, "test v1", provider.Initiator, transcript, proof), provider.ErrKey)
		os, ok := other.Signing()
		if _, err := a.Prove(os, ok, "test v1", provider.Acceptor, transcript); err != nil {
			t.Errorf("with the key of another site that is accepted: %v", err)
		}
		_, err = narrow.Prove(os, ok, "test v1", provider.Acceptor, transcript)
		wantErr(t, "with the key of a site that is not accepted", err, provider.ErrKey)
	})
}
