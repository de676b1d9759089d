package uplink_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
)

var errBroken = errors.New("example: the cable is broken")

// A link is to a server that is this test.
type link struct {
	env     provider.Env
	broken  chan error
	flushed atomic.Bool // Close had time to flush
	closed  atomic.Bool
}

func (l *link) Wait(ctx context.Context) error {
	select {
	case err := <-l.broken:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *link) Close(ctx context.Context) {
	if l.closed.Swap(true) {
		panic("closed twice")
	}
	l.flushed.Store(ctx.Err() == nil)
}

// A server counts what is made of it.
type server struct {
	mu    sync.Mutex
	links []*link
	tries []time.Time
	down  error
}

func (s *server) connect(ctx context.Context, env provider.Env) (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries = append(s.tries, time.Now())
	if s.down != nil {
		return nil, s.down
	}
	l := &link{env: env, broken: make(chan error, 1)}
	s.links = append(s.links, l)
	return l, nil
}

func (s *server) set(down error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *server) all() ([]*link, []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links, s.tries
}

// told is what a Broker is told.
type told struct {
	delivered, reconnected atomic.Int32
	log                    strings.Builder

	mu  sync.Mutex
	why []string // of Disconnected
}

func (b *told) env() provider.Env {
	return provider.Env{
		Logger:      slog.New(slog.NewTextHandler(&b.log, nil)),
		Deliver:     func(provider.Batch) { b.delivered.Add(1) },
		Reconnected: func() { b.reconnected.Add(1) },
		Disconnected: func(why error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.why = append(b.why, why.Error())
		},
	}
}

func (b *told) reasons() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.why)
}

func keeper(s *server) *uplink.Keeper[*link] {
	return uplink.New(uplink.Options[*link]{Name: "example", MaxFrameBytes: 4, Connect: s.connect})
}

func accept(context.Context, *link) error { return nil }

var frames = [][]byte{{1}}

func TestKeeper_ReplacesALinkThatBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		var b told
		k := keeper(&s)
		if err := k.Start(t.Context(), b.env()); err != nil {
			t.Fatal(err)
		}
		s.set(errBroken)
		links, _ := s.all()
		links[0].broken <- errBroken
		synctest.Wait()
		if err := k.Send(t.Context(), frames, accept); !errors.Is(err, errBroken) {
			t.Errorf("send while the link is away: %v", err)
		}
		if _, ok := k.Link(); ok {
			t.Error("there is a link while it is away")
		}
		if !links[0].closed.Load() || links[0].flushed.Load() {
			t.Errorf("the link that broke: closed %v, asked to flush %v; want true, false", links[0].closed.Load(), links[0].flushed.Load())
		}
		time.Sleep(time.Minute)
		_, tries := s.all()
		if gap := tries[1].Sub(tries[0]); gap > 50*time.Millisecond {
			t.Errorf("the first new attempt came after %v", gap)
		}
		if n := len(tries); n < 12 || n > 200 {
			t.Errorf("%d attempts in a minute", n)
		}
		s.set(nil)
		time.Sleep(5 * time.Second)
		if err := k.Send(t.Context(), frames, accept); err != nil {
			t.Errorf("send after the link is back: %v", err)
		}
		if n := b.reconnected.Load(); n != 1 {
			t.Errorf("the Broker was told %d times that frames may be lost, want once", n)
		}
		if got, want := b.reasons(), []string{errBroken.Error(), errBroken.Error()}; !slices.Equal(got, want) {
			t.Errorf("the Broker was told %q, want that the link broke and that it cannot be made again: %q", got, want)
		}
		k.Close()
		links, _ = s.all()
		if len(links) != 2 || !links[1].closed.Load() || !links[1].flushed.Load() {
			t.Errorf("the last of %d links was closed: %v, with time to flush: %v", len(links), links[1].closed.Load(), links[1].flushed.Load())
		}
		if n := strings.Count(b.log.String(), "cannot connect"); n != 1 {
			t.Errorf("the log says %d times that it cannot connect, for one reason:\n%s", n, &b.log)
		}
	})
}

func TestKeeper_EachStateHasItsErrors(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		life func(t *testing.T, k *uplink.Keeper[*link], s *server) error
		want error  // in the error
		says string // in its text
	}{
		{"started", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			return errors.Join(k.Start(t.Context(), new(told).env()), k.Send(t.Context(), frames, accept))
		}, nil, ""},
		{"sent before start", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			return k.Send(t.Context(), frames, accept)
		}, nil, "before start"},
		{"started twice", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			k.Start(t.Context(), new(told).env())
			return k.Start(t.Context(), new(told).env())
		}, nil, "twice"},
		{"started after close", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			k.Close()
			return k.Start(t.Context(), new(told).env())
		}, provider.ErrClosed, ""},
		{"started too late", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			return k.Start(ended, new(told).env())
		}, context.Canceled, "start"},
		{"refused", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			s.set(errBroken)
			return k.Start(t.Context(), new(told).env())
		}, errBroken, ""},
		{"sent after close", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			k.Start(t.Context(), new(told).env())
			k.Close()
			return k.Send(t.Context(), frames, accept)
		}, provider.ErrClosed, ""},
		{"sent too late", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			k.Start(t.Context(), new(told).env())
			return k.Send(ended, frames, accept)
		}, context.Canceled, "send"},
		{"too large", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			k.Start(t.Context(), new(told).env())
			return k.Send(t.Context(), [][]byte{{1}, {1, 2, 3, 4, 5}}, accept)
		}, provider.ErrFrameTooLarge, "5 bytes"},
		{"not taken", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			k.Start(t.Context(), new(told).env())
			return k.Send(t.Context(), frames, func(context.Context, *link) error { return errBroken })
		}, errBroken, ""},
		{"interrupted by close", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			k.Start(t.Context(), new(told).env())
			go k.Close()
			return k.Send(t.Context(), frames, func(ctx context.Context, _ *link) error { <-ctx.Done(); return ctx.Err() })
		}, provider.ErrClosed, ""},
		{"nothing to send", func(t *testing.T, k *uplink.Keeper[*link], s *server) error {
			k.Start(t.Context(), new(told).env())
			return k.Send(t.Context(), nil, func(context.Context, *link) error { return errBroken })
		}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s server
				k := keeper(&s)
				err := tt.life(t, k, &s)
				k.Close()
				switch {
				case tt.want == nil && tt.says == "" && err != nil, tt.want != nil && !errors.Is(err, tt.want):
					t.Errorf("error %v, want %v", err, tt.want)
				case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
					t.Errorf("error %v, want one with %q", err, tt.says)
				}
			})
		})
	}
}

func TestKeeper_CloseEndsAStartThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := uplink.New(uplink.Options[*link]{Name: "example", Connect: func(ctx context.Context, _ provider.Env) (*link, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		started := make(chan error)
		go func() { started <- k.Start(context.Background(), new(told).env()) }()
		synctest.Wait()
		k.Close()
		if err := <-started; !errors.Is(err, provider.ErrClosed) {
			t.Errorf("Start returned %v", err)
		}
	})
}

// A link that is there only when Close has been called belongs to nobody else.
func TestKeeper_CloseTakesDownALinkThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := &link{broken: make(chan error)}
		k := uplink.New(uplink.Options[*link]{Name: "example", Connect: func(ctx context.Context, _ provider.Env) (*link, error) {
			<-ctx.Done()
			return late, nil
		}})
		started := make(chan error)
		go func() { started <- k.Start(context.Background(), new(told).env()) }()
		synctest.Wait()
		go k.Close()
		if err := <-started; !errors.Is(err, provider.ErrClosed) || !late.closed.Load() {
			t.Errorf("Start returned %v, the link is closed: %v", err, late.closed.Load())
		}
	})
}

func TestKeeper_NothingIsToldAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		var b told
		k := keeper(&s)
		if err := k.Start(t.Context(), b.env()); err != nil {
			t.Fatal(err)
		}
		links, _ := s.all()
		links[0].env.Deliver(provider.Batch{})
		k.Close()
		k.Close()
		links[0].env.Deliver(provider.Batch{})
		links[0].env.Disconnected(errBroken)
		links[0].env.Reconnected()
		if d, r, n := b.delivered.Load(), b.reconnected.Load(), len(b.reasons()); d != 1 || r != 0 || n != 0 {
			t.Errorf("delivered %d times, reconnected %d times, disconnected %d times; want 1, 0 and 0", d, r, n)
		}
	})
}

// Without a bubble, in which nobody may wait for a mutex.
func TestKeeper_CloseWaitsForADelivery(t *testing.T) {
	var s server
	k := keeper(&s)
	env := new(told).env()
	delivering, release, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	env.Deliver = func(provider.Batch) { close(delivering); <-release }
	if err := k.Start(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	links, _ := s.all()
	go links[0].env.Deliver(provider.Batch{})
	<-delivering
	go func() { k.Close(); close(closed) }()
	select {
	case <-closed:
		t.Error("Close returned while a delivery ran")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	<-closed
}

func TestKeeper_GivesUpAnAttemptThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &link{broken: make(chan error, 1)}
		var tries atomic.Int32
		var b told
		k := uplink.New(uplink.Options[*link]{Name: "example", AttemptTimeout: time.Second, Connect: func(ctx context.Context, _ provider.Env) (*link, error) {
			if tries.Add(1) == 1 {
				return first, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		if err := k.Start(t.Context(), b.env()); err != nil {
			t.Fatal(err)
		}
		first.broken <- errBroken
		time.Sleep(20 * time.Second)
		err := k.Send(t.Context(), frames, accept)
		if err == nil || !strings.Contains(err.Error(), "no answer within 1s") || tries.Load() < 4 {
			t.Errorf("after %d attempts: %v", tries.Load(), err)
		}
		k.Close()
	})
}
