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
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
)

// eventFrames returns how many of the frames hold events.
func eventFrames(frames [][]byte) int {
	n := 0
	for _, f := range frames {
		if h, err := wire.ParseHeader(f); err == nil && !h.Type.Control() {
			n++
		}
	}
	return n
}

func TestSend_FailingProviderDelaysAndLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log logBook
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		var failing atomic.Bool
		var mu sync.Mutex
		var tries []time.Time
		p.send = func(ctx context.Context, frames [][]byte) error {
			if failing.Load() {
				if eventFrames(frames) > 0 {
					mu.Lock()
					tries = append(tries, time.Now())
					mu.Unlock()
				}
				return errTest
			}
			return p.Provider.Send(ctx, frames)
		}
		cfg := config(db, p)
		cfg.Logger = log.logger()
		a, b := mustOpen(t, cfg), mustOpen(t, config(db, bus.Provider()))
		a.Enable()
		b.Enable()
		d := define()
		rec := carillontest.Record(t, b, d)
		failing.Store(true)
		start := time.Now()
		raise(t, d, a, 1, 10) // does not wait for the network
		if time.Since(start) != 0 {
			t.Errorf("raising took %v", time.Since(start))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		s := a.Stats()
		if s.Backlog != 10 || s.Handed.Next != 0 || s.Providers[0].Failures == 0 || s.Providers[0].LastError != errTest.Error() || s.Providers[0].FailingSince.Before(start) {
			t.Errorf("stats %+v", s)
		}
		if st := a.Status(); len(st.Problems) != 1 || !strings.Contains(st.Problems[0], `provider "mem"`) {
			t.Errorf("status %+v", st)
		}
		if n := len(log.lines("does not accept frames")); n != 1 {
			t.Errorf("%d lines in 30 s say that it began", n)
		}
		mu.Lock()
		for i := 1; i < len(tries); i++ { // first 10 ms apart or less, then up to 1 s, with jitter
			if gap := tries[i].Sub(tries[i-1]); gap < 5*time.Millisecond || gap > time.Second || i > 8 && gap < 500*time.Millisecond {
				t.Errorf("try %d comes %v after the one before", i, gap)
			}
		}
		if len(tries) < 30 || len(tries) > 80 {
			t.Errorf("%d tries in 30 s", len(tries))
		}
		mu.Unlock()
		failing.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := numbers(rec.Raised()); !slices.Equal(got, span(1, 10)) || len(rec.Missed()) != 0 {
			t.Errorf("raised %v, missed %+v", got, rec.Missed())
		}
		if st := a.Status(); len(st.Problems) != 0 {
			t.Errorf("status afterwards: %+v", st)
		}
		if n := len(log.lines("accepts frames again")); n != 1 {
			t.Errorf("%d lines say that it is over", n)
		}
	})
}

// A reason is logged once in an outage, however long that lasts; if they differ each time, a few of them are.
func TestSend_LogsEachReasonOfAnOutageOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		log := &logBook{}
		p := &wrap{Provider: bus.Provider()}
		var why atomic.Pointer[func() error]
		p.send = func(ctx context.Context, frames [][]byte) error {
			if f := why.Load(); f != nil {
				return (*f)()
			}
			return p.Provider.Send(ctx, frames)
		}
		cfg := config(db, p)
		cfg.Logger = log.logger()
		mustOpen(t, cfg).Enable()
		// After so long in an outage there must be n lines more.
		fails := func(because func() error, n int) {
			t.Helper()
			before := len(log.lines("does not accept frames"))
			why.Store(&because)
			time.Sleep(time.Minute)
			if got := len(log.lines("does not accept frames")) - before; got != n {
				t.Errorf("%d lines in a minute, want %d: %s", got, n, strings.Join(log.lines("does not accept frames"), "\n"))
			}
		}
		one, two := errors.New("the server closed the connection"), errors.New("nobody listens there")
		fails(func() error { return one }, 1)
		fails(func() error { return two }, 1)
		fails(func() error { return one }, 0)
		var try atomic.Int64
		fails(func() error { return fmt.Errorf("from port %d", try.Add(1)) }, 2)
		why.Store(nil)
		time.Sleep(5 * time.Second)
		if n := len(log.lines("accepts frames again")); n != 1 {
			t.Errorf("%d lines say that it is over", n)
		}
		fails(func() error { return one }, 1)
	})
}

// Where nothing is sent while nothing is raised, only the provider knows that its connection is lost.
func TestProvider_ThatSaysItIsAwayIsSeenAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		var env provider.Env
		p.start = func(ctx context.Context, e provider.Env) error {
			env = e
			return p.Provider.Start(ctx, e)
		}
		b := mustOpen(t, config(db, p))
		b.Enable()
		is := func(since time.Time, why string) {
			t.Helper()
			s, st := b.Stats().Providers[0], b.Status()
			if !s.FailingSince.Equal(since) || s.LastError != why || (len(st.Problems) > 0) != (why != "") {
				t.Errorf("failing since %v for %q, problems %q; want since %v for %q", s.FailingSince, s.LastError, st.Problems, since, why)
			}
		}
		env.Reconnected() // frames may be lost, and it was not away
		is(time.Time{}, "")
		began := time.Now()
		env.Disconnected(errors.New("the server closed the connection"))
		is(began, "the server closed the connection")
		time.Sleep(5 * time.Second) // what is sent meanwhile it may have taken: heartbeats are
		env.Disconnected(errors.New("nobody listens there"))
		time.Sleep(5 * time.Second)
		is(began, "nobody listens there")
		env.Reconnected()
		is(time.Time{}, "")
	})
}

// What fails for good must not be tried for ever, and not be taken for sent: receivers find the gap and ask.
func TestSend_FinalErrorIsNotRetried(t *testing.T) {
	for _, final := range []error{provider.ErrFrameTooLarge, provider.ErrClosed} {
		bubble(t, func(t *testing.T) {
			db, bus := site2()
			p := &wrap{Provider: bus.Provider()}
			var tries atomic.Int32
			p.send = func(ctx context.Context, frames [][]byte) error {
				if eventFrames(frames) > 0 && tries.Add(1) == 1 {
					return fmt.Errorf("test: %w", final)
				}
				return p.Provider.Send(ctx, frames)
			}
			a, b := mustOpen(t, config(db, p)), mustOpen(t, config(db, bus.Provider()))
			a.Enable()
			b.Enable()
			d := define()
			rec := carillontest.Record(t, b, d)
			raise(t, d, a, 1, 1)
			if err := a.Flush(bounded(t, time.Minute)); err != nil {
				t.Errorf("flush: %v", err)
			}
			raise(t, d, a, 2, 2)
			rec.WaitRaised(2)
			if n := tries.Load(); n != 3 {
				t.Errorf("%d tries, want one for each event and the repair that the receiver asked for", n)
			}
		})
	}
}

// Only who raises can have sent it: no other goroutine of the Broker has run.
func TestSend_ALoneEventIsSentByWhoRaisesIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		p := bus.Provider()
		a, b := mustOpen(t, config(db, p)), mustOpen(t, config(db, bus.Provider()))
		a.Enable()
		b.Enable()
		d := define()
		rec := carillontest.Record(t, b, d)
		time.Sleep(time.Second)
		synctest.Wait()
		handed := func() int { return int(a.Stats().Handed.Next) }
		const times = 100
		together := 0
		for i := range times {
			n := 3 * i
			raise(t, d, a, n+1, n+1)
			if got := handed(); got != n+1 {
				t.Fatalf("%d events were handed over when Raise had returned, want %d", got, n+1)
			}
			raise(t, d, a, n+2, n+3) // at the same moment: these go together, by a goroutine that may be quick
			if handed() < n+3 {
				together++
			}
			rec.WaitRaised(n + 3)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if together == 0 {
			t.Errorf("of %d times who raised close together sent it every time", times)
		}
		if got := numbers(rec.Raised()); !slices.Equal(got, span(1, 3*times)) {
			t.Errorf("raised %v", got)
		}
	})
}

func TestSend_WhatMayWaitIsNotWaitedForByWhoRaises(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		proceed := make(chan struct{})
		p.send = func(ctx context.Context, f [][]byte) error { // which does not claim Prompt
			if eventFrames(f) > 0 {
				<-proceed
			}
			return p.Provider.Send(ctx, f)
		}
		a := mustOpen(t, config(db, p))
		a.Enable()
		time.Sleep(time.Second)
		raise(t, define(), a, 1, 1) // returns, or the bubble ends in a deadlock
		close(proceed)
	})
}

func TestSend_WhatWaitsGoesTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		proceed := make(chan struct{}, 1)
		var frames atomic.Int32
		p.send = func(ctx context.Context, f [][]byte) error {
			if n := eventFrames(f); n > 0 {
				frames.Add(int32(n))
				<-proceed
			}
			return p.Provider.Send(ctx, f)
		}
		a, b := mustOpen(t, config(db, p)), mustOpen(t, config(db, bus.Provider()))
		a.Enable()
		b.Enable()
		d := define()
		rec := carillontest.Record(t, b, d)
		raise(t, d, a, 1, 1)
		synctest.Wait()
		raise(t, d, a, 2, 101) // while the first is on its way
		proceed <- struct{}{}
		proceed <- struct{}{}
		if got := numbers(rec.WaitRaised(101)); !slices.Equal(got, span(1, 101)) {
			t.Errorf("raised %v", got)
		}
		if n := frames.Load(); n != 2 {
			t.Errorf("%d frames, want one for the first and one for all that waited", n)
		}
	})
}

func TestSend_EveryProviderCarriesEverything(t *testing.T) { // G10
	bubble(t, func(t *testing.T) {
		db, one := site2()
		two := membus.New()
		open := func() (*carillon.Broker, *membus.Provider) {
			first := one.Provider()
			b := mustOpen(t, config(db, first, named{&wrap{Provider: two.Provider()}, "mem2"}))
			b.Enable()
			return b, first
		}
		a, _ := open()
		b, first := open()
		d := define()
		rec := carillontest.Record(t, b, d)
		raise(t, d, a, 1, 5)
		synctest.Wait()
		if n := b.Stats().Drops[carillon.DropDuplicate]; n == 0 {
			t.Error("no second copy came")
		}
		first.Cut() // one of the two goes away
		raise(t, d, a, 6, 9)
		synctest.Wait()
		if got := numbers(rec.Raised()); !slices.Equal(got, span(1, 9)) {
			t.Errorf("raised %v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if m := rec.Missed(); len(m) != 0 {
			t.Errorf("missed %+v", m)
		}
	})
}

func TestSend_LargeEventsTravelInFragments(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		open := func() *carillon.Broker {
			p := &wrap{Provider: bus.Provider(), caps: &provider.Capabilities{MaxFrameBytes: 1200}}
			p.send = func(ctx context.Context, frames [][]byte) error {
				for _, f := range frames {
					if len(f) > 1200 {
						t.Errorf("a frame of %d bytes", len(f))
					}
				}
				return p.Provider.Send(ctx, frames)
			}
			b := mustOpen(t, config(db, p))
			b.Enable()
			return b
		}
		a, b := open(), open()
		id := carillon.NewID()
		rec := carillontest.RecordEvent(t, b.Event(id))
		sizes := []int{0, 1, 1000, 1019, 1100, 1200, 5000, 100_000, 1<<20 - 1}
		for _, n := range sizes {
			if err := a.Event(id).Raise(t.Context(), carillon.ID{}, strings.Repeat("x", n)); err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
		for i, r := range rec.WaitRaised(len(sizes)) {
			if got := len(r.Parameter.(string)); got != sizes[i] || r.Ordinal != uint64(i) {
				t.Errorf("event %d has %d bytes and ordinal %d, want %d bytes", i, got, r.Ordinal, sizes[i])
			}
		}
		wantErr(t, "one byte more", a.Event(id).Raise(t.Context(), carillon.ID{}, strings.Repeat("x", 1<<20)), carillon.ErrTooLarge)
	})
}

func TestSend_FrameLimitIsTheSmallestOfTheProviders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		largest := 0
		p := &wrap{Provider: bus.Provider(), caps: &provider.Capabilities{MaxFrameBytes: 2000}}
		p.send = func(ctx context.Context, frames [][]byte) error {
			for _, f := range frames {
				largest = max(largest, len(f))
			}
			return nil
		}
		other := named{&wrap{Provider: membus.New().Provider(), caps: &provider.Capabilities{MaxFrameBytes: 4000}}, "other"}
		third := named{&wrap{Provider: membus.New().Provider()}, "third"}
		b := mustOpen(t, config(db, p, other, third))
		b.Enable()
		if err := b.Event(carillon.NewID()).Raise(t.Context(), carillon.ID{}, strings.Repeat("x", 10_000)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if largest < 1900 || largest > 2000 {
			t.Errorf("the largest frame has %d bytes, want 2000 or a little less", largest)
		}
	})
}

// stuckPair is a Broker whose provider takes events only when the test lets it.
func stuckPair(t *testing.T, unsent int) (b *carillon.Broker, proceed chan struct{}) {
	t.Helper()
	db, bus := site2()
	p := &wrap{Provider: bus.Provider()}
	proceed = make(chan struct{})
	p.send = func(ctx context.Context, frames [][]byte) error {
		if eventFrames(frames) > 0 {
			select {
			case <-proceed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return p.Provider.Send(ctx, frames)
	}
	cfg := config(db, p)
	cfg.UnsentBytes = unsent
	return mustOpen(t, cfg), proceed
}

func TestRaise_WaitsForRoomUntilItsContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, proceed := stuckPair(t, 10_000)
		b.Enable()
		e := b.Event(carillon.NewID())
		rec := carillontest.RecordEvent(t, e)
		text := strings.Repeat("x", 3000)
		n := 0
		var err error
		for start := time.Now(); err == nil; n++ {
			err = e.Raise(bounded(t, 3*time.Second), carillon.ID{}, text)
			if err != nil && time.Since(start) != 3*time.Second {
				t.Errorf("Raise returned after %v, want when its context ends", time.Since(start))
			}
		}
		wantErr(t, "raise", err, carillon.ErrUnsent, context.DeadlineExceeded)
		if n < 3 || n > 5 {
			t.Errorf("%d events of 3000 bytes fit into 10000 bytes", n-1)
		}
		if got := len(rec.Raised()); got != n {
			t.Errorf("local subscribers heard %d of %d raises", got, n)
		}
		if sent := e.Counts().Sent; sent != uint64(n-1) {
			t.Errorf("counted as sent: %d, want %d", sent, n-1)
		}

		done := make(chan error)
		go func() { done <- e.Raise(context.Background(), carillon.ID{}, text) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Raise returned %v while there is no room", err)
		default:
		}
		close(proceed)
		if err := <-done; err != nil {
			t.Errorf("Raise with room again: %v", err)
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if s := b.Stats(); s.Handed.Next != uint64(n) || s.Backlog != 0 {
			t.Errorf("handed %d, want %d", s.Handed.Next, n)
		}
	})
}

func TestRaise_BeforeEnableNeverWaitsAndIsBounded(t *testing.T) { // E7
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		other := mustOpen(t, config(db, bus.Provider()))
		other.Enable()
		cfg := config(db, bus.Provider())
		cfg.UnsentBytes = 10_000
		b := mustOpen(t, cfg)
		id := carillon.NewID()
		there := carillontest.RecordEvent(t, other.Event(id))
		e := b.Event(id)
		here := carillontest.RecordEvent(t, e)
		text := strings.Repeat("x", 1000)
		start, n := time.Now(), 0
		var err error
		for ; err == nil; n++ {
			err = e.Raise(context.Background(), carillon.ID{}, text)
		}
		wantErr(t, "raise", err, carillon.ErrUnsent, carillon.ErrNotEnabled)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(there.Raised()) != 0 {
			t.Errorf("%d events are sent before Enable", len(there.Raised()))
		}
		if n < 8 || n > 11 || len(here.Raised()) != n || time.Since(start) != time.Minute {
			t.Errorf("%d events of 1000 bytes fit into 10000 bytes; local subscribers heard %d", n-1, len(here.Raised()))
		}
		wantErr(t, "flush before Enable", b.Flush(bounded(t, time.Second)), context.DeadlineExceeded)
		b.Enable()
		there.WaitRaised(n - 1)
		if err := e.Raise(t.Context(), carillon.ID{}, text); err != nil {
			t.Errorf("after Enable: %v", err)
		}
	})
}

func TestFlush_WaitsForEverythingRaisedSoFar(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, proceed := stuckPair(t, 0)
		b.Enable()
		if err := b.Flush(t.Context()); err != nil {
			t.Errorf("nothing raised: %v", err)
		}
		d := define()
		raise(t, d, b, 1, 3)
		err := b.Flush(bounded(t, time.Second))
		wantErr(t, "flush", err, context.DeadlineExceeded)
		if err == nil || !strings.Contains(err.Error(), "3 events") {
			t.Errorf("error %v does not say how many", err)
		}
		go func() {
			time.Sleep(time.Second)
			close(proceed)
		}()
		start := time.Now()
		if err := b.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < time.Second {
			t.Errorf("Flush returned after %v", d)
		}
		if h := b.Stats().Handed.Next; h != 3 {
			t.Errorf("handed %d", h)
		}
	})
}

func TestPacing_SlowReceiverHoldsUpRaiseForABoundedTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		cfg := config(db, bus.Provider())
		cfg.RingBytes, cfg.UnsentBytes = 100_000, 20_000
		b := mustOpen(t, cfg)
		b.Enable()
		mute := newPuppet(t, db, bus) // takes everything and acknowledges nothing
		mute.register(db)
		mute.send(mute.heartbeat(1)) // only who lives is waited for
		time.Sleep(2 * time.Second)
		e := b.Event(carillon.NewID())
		start := time.Now()
		var longest time.Duration
		for range 500 {
			one := time.Now()
			if err := e.Raise(t.Context(), carillon.ID{}, strings.Repeat("x", 1000)); err != nil {
				t.Fatal(err)
			}
			longest = max(longest, time.Since(one))
			synctest.Wait()
		}
		if longest == 0 || longest > time.Second || time.Since(start) > 2*time.Second {
			t.Errorf("a receiver that says nothing held up one Raise for %v, all for %v", longest, time.Since(start))
		}
		if p := b.Stats().Peers; len(p) != 1 || p[0].Evictions != 1 {
			t.Errorf("peers %+v", p)
		}
	})
}

func TestControl_GoesOutThoughEventsCannot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		p.send = func(ctx context.Context, frames [][]byte) error {
			if eventFrames(frames) > 0 {
				return errTest
			}
			return p.Provider.Send(ctx, frames)
		}
		a := mustOpen(t, config(db, p))
		a.Enable()
		raise(t, define(), a, 1, 1)
		time.Sleep(10 * time.Second)
		start := time.Now()
		mustOpen(t, config(db, bus.Provider())) // a answers its HELLO
		if d := time.Since(start); d > time.Second {
			t.Errorf("in step after %v beside an instance whose events do not get out", d)
		}
	})
}

// broadcaster is a Provider that can reach nobody alone.
type broadcaster struct{ provider.Provider }

func TestControl_ForOneGoesToAllIfTheProviderCannot(t *testing.T) {
	for _, tt := range []struct {
		name string
		wrap func(p *membus.Provider) provider.Provider
	}{
		{"it knows no way", func(p *membus.Provider) provider.Provider {
			return &wrap{Provider: p, sendTo: func(context.Context, site.StreamID, [][]byte) error {
				return fmt.Errorf("test: %w", provider.ErrUnreachable)
			}}
		}},
		{"it is no Unicaster", func(p *membus.Provider) provider.Provider { return broadcaster{p} }},
	} {
		bubble(t, func(t *testing.T) {
			db, bus := site2()
			first := mustOpen(t, config(db, tt.wrap(bus.Provider())))
			first.Enable()
			start := time.Now()
			mustOpen(t, config(db, tt.wrap(bus.Provider())))
			if d := time.Since(start); d > 100*time.Millisecond {
				t.Errorf("%s: in step after %v", tt.name, d)
			}
		})
	}
}
