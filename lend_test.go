package carillon_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
)

// These are the numbers of lend.go, as far as an application notices them.
const (
	lendFirst  = 16
	lendEvents = 16
	lendTime   = 20 * time.Millisecond
)

// A lender is a Provider that lends the goroutines which deliver.
type lender struct {
	wrap
	resumed atomic.Int32
	undone  atomic.Int32 // batches whose Done was not called
}

func newLender(t *testing.T, bus *membus.Bus) *lender {
	l := &lender{wrap: wrap{Provider: bus.Provider()}}
	l.start = func(ctx context.Context, env provider.Env) error {
		deliver := env.Deliver
		env.Deliver = func(b provider.Batch) { l.lend(t, deliver, b) }
		return l.Provider.Start(ctx, env)
	}
	return l
}

// lend returns when deliver does, or when it is to go on without.
func (l *lender) lend(t *testing.T, deliver func(provider.Batch), b provider.Batch) {
	b.Frames = slices.Clone(b.Frames)
	l.undone.Add(1)
	b.Done = func() { l.undone.Add(-1) }
	resumed, over := make(chan struct{}), make(chan struct{})
	var returned, late atomic.Bool
	b.Resume = func() {
		if late.Load() {
			t.Error("Resume is called after Deliver has returned")
		}
		l.resumed.Add(1)
		close(resumed) // panics if called twice
	}
	go func() {
		defer close(over)
		deliver(b)
		late.Store(true)
		returned.Store(true)
	}()
	select {
	case <-resumed:
	case <-over:
		select {
		case <-resumed:
		default:
			if !returned.Load() {
				t.Error("the goroutine ended, and Resume was not called")
			}
		}
	}
}

// lent reports whether the caller, a subscriber's function, runs on a goroutine that was lent.
func lent() bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, ".runLent") {
			return true
		}
		if !more {
			return false
		}
	}
}

// A lendingSite is two instances, of which the second one's provider lends its goroutines.
type lendingSite struct {
	a, b   *carillon.Broker
	l      *lender
	losing atomic.Bool                   // event frames of a
	gate   atomic.Pointer[chan struct{}] // event frames of a wait for it; nil: they do not
}

// newLendingSite opens both. It runs in a bubble.
func newLendingSite(t *testing.T) *lendingSite {
	t.Helper()
	db, bus := site2()
	s := &lendingSite{l: newLender(t, bus)}
	from := &wrap{Provider: bus.Provider()}
	from.send = func(ctx context.Context, frames [][]byte) error {
		if eventFrames(frames) > 0 {
			if g := s.gate.Load(); g != nil {
				<-*g
			}
			if s.losing.Load() {
				return nil
			}
		}
		return from.Provider.Send(ctx, frames)
	}
	s.a, s.b = mustOpen(t, config(db, from)), mustOpen(t, config(db, s.l))
	s.a.Enable()
	s.b.Enable()
	time.Sleep(3 * time.Second) // what is said of the start
	return s
}

// one has a raise a lone event, and waits until it was told. It runs in a bubble.
func (s *lendingSite) one(t *testing.T, d *carillon.Definition[note], n int) {
	t.Helper()
	time.Sleep(time.Millisecond)
	raise(t, d, s.a, n, n)
	synctest.Wait()
}

// together has a raise events of which all but the first are sent in one frame. It runs in a bubble.
func (s *lendingSite) together(t *testing.T, d *carillon.Definition[note], first, last int) {
	t.Helper()
	g := make(chan struct{})
	s.gate.Store(&g)
	s.one(t, d, first)
	raise(t, d, s.a, first+1, last)
	synctest.Wait()
	s.gate.Store(nil)
	close(g)
	synctest.Wait()
}

func TestLend_OnceASubscriberIsKnownToBeQuick(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		d := define()
		told := make(chan bool, 100)
		d.OnRaised(s.b, func(context.Context, carillon.Raised[note]) {
			if lent() && s.l.undone.Load() > 0 {
				t.Error("the batch is not done before the function is called")
			}
			told <- lent()
		})
		for n := 1; n <= 2*lendFirst; n++ {
			s.one(t, d, n)
			if got, want := <-told, n > lendFirst; got != want {
				t.Errorf("event %d: told on a goroutine that was lent is %v, want %v", n, got, want)
			}
		}
		if n := s.l.resumed.Load(); n != 0 {
			t.Errorf("Resume was called %d times for a function that returns at once", n)
		}
	})
}

func TestLend_NeverToOneThatIsNotQuick(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		d := define()
		told := make(chan bool, 100)
		d.OnRaised(s.b, func(context.Context, carillon.Raised[note]) {
			time.Sleep(200 * time.Microsecond)
			told <- lent()
		})
		for n := 1; n <= 3*lendFirst; n++ {
			s.one(t, d, n)
			if <-told {
				t.Fatalf("event %d is told on a goroutine that was lent", n)
			}
		}
		if n := s.l.resumed.Load(); n != 0 {
			t.Errorf("Resume was called %d times", n)
		}
	})
}

// Of more events the subscriber's own goroutine takes care, so that reading goes on meanwhile. That they
// take long together is not held against it.
func TestLend_NotForMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		d := define()
		told := make(chan bool, 200)
		d.OnRaised(s.b, func(context.Context, carillon.Raised[note]) {
			time.Sleep(50 * time.Microsecond)
			told <- lent()
		})
		tell := func(events int) (lends int) {
			t.Helper()
			s.together(t, d, 1, events)
			time.Sleep(time.Second)
			if got := len(told); got != events {
				t.Errorf("%d events of %d are told", got, events)
			}
			for len(told) > 0 {
				if <-told {
					lends++
				}
			}
			return lends
		}
		for range 2 * lendFirst {
			tell(1)
		}
		if got := tell(1 + lendEvents); got < lendEvents {
			t.Errorf("%d of %d events that come together are told on a goroutine that was lent", got, lendEvents)
		}
		if got := tell(2 + lendEvents); got > 1 {
			t.Errorf("%d of %d events that come together are told on a goroutine that was lent", got, 1+lendEvents)
		}
		tell(100)
		if got := tell(1); got != 1 {
			t.Error("then a lone event is not")
		}
	})
}

// Neither of two waits for the other.
func TestLend_NotToTwoAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		d := define()
		told := make(chan bool, 200)
		for range 2 {
			d.OnRaised(s.b, func(context.Context, carillon.Raised[note]) { told <- lent() })
		}
		for n := 1; n <= 3*lendFirst; n++ {
			s.one(t, d, n)
			if len(told) != 2 {
				t.Fatalf("event %d is told %d times", n, len(told))
			}
			if first, second := <-told, <-told; first || second {
				t.Fatalf("event %d is told on a goroutine that was lent", n)
			}
		}
		if n := s.l.resumed.Load(); n != 0 {
			t.Errorf("Resume was called %d times", n)
		}
	})
}

// A function that was quick blocks: its connection goes on after a moment, its own events wait in their order, and it is
// trusted less.
func TestLend_AFunctionThatBlocksStopsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		d, other := define(), define()
		gate := make(chan struct{})
		told, lends, others := make(chan int, 200), make(chan bool, 200), make(chan int, 200)
		d.OnRaised(s.b, func(_ context.Context, r carillon.Raised[note]) {
			lends <- lent()
			if r.Parameter.N == 2*lendFirst {
				<-gate
			}
			told <- r.Parameter.N
		})
		other.OnRaised(s.b, func(_ context.Context, r carillon.Raised[note]) { others <- r.Parameter.N })
		for n := 1; n <= 2*lendFirst; n++ {
			s.one(t, d, n)
		}
		time.Sleep(lendTime - 1)
		if n := s.l.resumed.Load(); n != 0 {
			t.Errorf("a nanosecond early, Resume was called %d times", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if n := s.l.resumed.Load(); n != 1 {
			t.Errorf("after %v, Resume was called %d times", lendTime, n)
		}
		for n := 2*lendFirst + 1; n <= 4*lendFirst; n++ {
			s.one(t, d, n)
			s.one(t, other, n)
			if len(others) == 0 {
				t.Fatalf("event %d of another subscriber is not told meanwhile", n)
			}
			<-others
		}
		if n := len(told); n != 2*lendFirst-1 {
			t.Errorf("%d events are told while one blocks", n)
		}
		close(gate)
		synctest.Wait()
		for n := 1; n <= 4*lendFirst; n++ {
			if got := <-told; got != n {
				t.Fatalf("told event %d in place %d", got, n)
			}
		}
		for len(lends) > 0 {
			<-lends
		}
		for n := 1; n <= 2*lendFirst; n++ {
			s.one(t, d, n)
			if <-lends {
				t.Fatalf("after %d quick runs it is lent a goroutine again", n-1)
			}
		}
	})
}

// One event waits for another that the same connection brings.
func TestLend_AFunctionMayWaitForTheNextEvent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		question, answer := define(), define()
		answers, told := make(chan int, 1), make(chan bool, 100)
		question.OnRaised(s.b, func(_ context.Context, r carillon.Raised[note]) {
			if r.Parameter.N > lendFirst {
				<-answers
			}
			told <- lent()
		})
		answer.OnRaised(s.b, func(_ context.Context, r carillon.Raised[note]) { answers <- r.Parameter.N })
		for n := 1; n <= lendFirst; n++ {
			s.one(t, question, n)
			<-told
		}
		s.one(t, question, lendFirst+1)
		s.one(t, answer, 1)
		time.Sleep(lendTime)
		synctest.Wait()
		if len(told) != 1 || !<-told {
			t.Error("the question was not told on a goroutine that was lent, or the answer did not come through")
		}
	})
}

func TestLend_AFunctionMayEndTheGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		d := define()
		told := make(chan int, 200)
		d.OnRaised(s.b, func(_ context.Context, r carillon.Raised[note]) {
			told <- r.Parameter.N
			if r.Parameter.N > lendFirst && lent() {
				runtime.Goexit() // as t.FailNow does
			}
		})
		for n := 1; n <= 10*lendFirst; n++ {
			s.one(t, d, n)
			if got := len(told); got != 1 {
				t.Fatalf("event %d is told %d times", n, got)
			}
			<-told
		}
		if n := s.l.resumed.Load(); n != 2 { // the first time, and when it has been quick four times as long
			t.Errorf("Resume was called %d times, want 2", n)
		}
		for range 20 * lendFirst { // trusted again
			s.one(t, d, 1)
			<-told
		}
		s.together(t, d, lendFirst, 2*lendFirst)
		for n := lendFirst; n <= 2*lendFirst; n++ {
			if len(told) == 0 {
				t.Fatalf("event %d of some that came together is not told", n)
			}
			if got := <-told; got != n {
				t.Fatalf("of some that came together, event %d is told as the next after %d", got, n-1)
			}
		}
		if got := s.l.resumed.Load(); got != 3 {
			t.Errorf("Resume was called %d times, want 3", got)
		}
	})
}

func TestLend_AFunctionMayCloseTheBroker(t *testing.T) {
	for name, end := range map[string]func(b *carillon.Broker) error{
		"Close": func(b *carillon.Broker) error { return b.Close() },
		"Shutdown": func(b *carillon.Broker) error { // which waits for the function itself
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := b.Shutdown(ctx); err == nil || ctx.Err() == nil {
				return errTest
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newLendingSite(t)
				d := define()
				ended := make(chan error, 1)
				d.OnRaised(s.b, func(_ context.Context, r carillon.Raised[note]) {
					if r.Parameter.N > lendFirst {
						if !lent() {
							t.Error("it is not told on a goroutine that was lent")
						}
						ended <- end(s.b)
					}
				})
				for n := 1; n <= lendFirst+1; n++ {
					s.one(t, d, n)
				}
				if err := <-ended; err != nil {
					t.Errorf("%s in a function: %v", name, err)
				}
				<-s.b.Done()
			})
		})
	}
}

func TestLend_CloseWaitsForNoFunction(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		d := define()
		gate, told := make(chan struct{}), make(chan int, 200)
		d.OnRaised(s.b, func(_ context.Context, r carillon.Raised[note]) {
			told <- r.Parameter.N
			if r.Parameter.N > lendFirst {
				<-gate
			}
		})
		for n := 1; n <= lendFirst+1; n++ {
			s.one(t, d, n)
		}
		start := time.Now()
		if err := s.b.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("Close took %v while a function blocks on a goroutine that was lent", took)
		}
		close(gate)
		if n := len(told); n != lendFirst+1 {
			t.Errorf("%d events are told, want %d", n, lendFirst+1)
		}
	})
}

// An event that is to be told after a miss waits for OnMissed functions, and not on a goroutine of somebody else.
func TestLend_NotToOneThatMustWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newLendingSite(t)
		d := define(carillon.Ordered())
		order, lends := make(chan int, 100), make(chan bool, 100)
		gate := make(chan struct{})
		d.OnRaised(s.b, func(_ context.Context, r carillon.Raised[note]) {
			order <- r.Parameter.N
			lends <- lent()
		})
		d.OnMissed(s.b, func(context.Context, carillon.Missed) {
			<-gate
			order <- -1
		})
		for n := 1; n <= 2*lendFirst; n++ {
			s.one(t, d, n)
			<-order
			if got, want := <-lends, n > lendFirst; got != want {
				t.Fatalf("event %d: lent is %v", n, got)
			}
		}
		s.losing.Store(true)
		raise(t, d, s.a, 100, 100)
		time.Sleep(time.Minute) // it is missed, and nothing follows it yet
		s.losing.Store(false)
		s.one(t, d, 101)
		time.Sleep(time.Second)
		if n := s.l.resumed.Load(); n != 0 || len(order) > 0 {
			t.Errorf("an event that must wait: Resume was called %d times, told %d", n, len(order))
		}
		close(gate)
		synctest.Wait()
		if len(order) != 2 || <-order != -1 || <-order != 101 {
			t.Error("the miss is not told before what follows it, or not at all")
		}
	})
}

// Over real sockets: a function that was quick and blocks for ever stops nothing, not even Close.
func TestLend_SocketsGoOnWithoutTheGoroutine(t *testing.T) {
	for name, transport := range transports(t) {
		if name == "mem" {
			continue // lends none
		}
		t.Run(name, func(t *testing.T) {
			brokers := connect(t, 2, transport)
			a, b := brokers[0], brokers[1]
			d, other := define(), define()
			gate := make(chan struct{})
			var blocked atomic.Bool
			var told, others atomic.Int32
			d.OnRaised(b, func(context.Context, carillon.Raised[note]) {
				if lent() && blocked.CompareAndSwap(false, true) {
					<-gate
				}
				told.Add(1)
			})
			other.OnRaised(b, func(context.Context, carillon.Raised[note]) { others.Add(1) })
			n := 0
			eventually(t, "a goroutine is lent", func() bool {
				n++
				raise(t, d, a, n, n)
				return blocked.Load()
			})
			before := told.Load()
			raise(t, d, a, 1, 100)
			raise(t, other, a, 1, 100)
			eventually(t, "others are told meanwhile", func() bool { return others.Load() == 100 })
			if got := told.Load(); got != before {
				t.Errorf("%d events are told while one before them is not done", got-before)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			close(gate)
		})
	}
}
