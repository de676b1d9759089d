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
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// isDone reports whether the Broker has ended.
func isDone(b *carillon.Broker) bool {
	select {
	case <-b.Done():
		return true
	default:
		return false
	}
}

func TestShutdown_FinishesInOrder(t *testing.T) { // G8
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		other := mustOpen(t, config(mem, bus.Provider()))
		other.Enable()
		var s steps
		db := &hookedDB{Database: mem, before: func(_ context.Context, call string) error {
			if call == "Leave" {
				s.add("Leave")
			}
			return nil
		}}
		p := &wrap{Provider: bus.Provider(), close: func() { s.add("Close") }}
		p.send = func(ctx context.Context, frames [][]byte) error {
			for _, f := range frames {
				if h, err := wire.ParseHeader(f); err == nil && (h.Type == wire.TypeEvents || h.Type == wire.TypeBye) {
					s.add(h.Type.String())
				}
			}
			return p.Provider.Send(ctx, frames)
		}
		b := mustOpen(t, config(db, p))
		d := define()
		rec := carillontest.Record(t, other, d)
		d.OnRaised(b, func(_ context.Context, r carillon.Raised[note]) {
			if !r.Local {
				time.Sleep(time.Second)
				s.add("handled")
			}
		})
		b.Enable()
		raise(t, d, other, 1, 1)
		synctest.Wait()
		raise(t, d, b, 2, 3)
		if isDone(b) {
			t.Error("done before Shutdown")
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.add("returned")
		if !isDone(b) {
			t.Error("not done after Shutdown")
		}
		if got, want := slices.Compact(s.all()), []string{"events", "bye", "Leave", "Close", "handled", "returned"}; !slices.Equal(got, want) {
			t.Errorf("order %v, want %v", got, want)
		}
		if got := numbers(rec.Raised()); !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("the other was told %v", got)
		}
		rows := openRows(t, mem)
		if len(rows) != 1 {
			t.Errorf("open rows %+v", rows)
		}
		snap, err := mem.Changes(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range snap.Members {
			if m.State == site.MemberClosed && m.Mark.Next != 2 {
				t.Errorf("the row is closed with mark %+v, want 2 events", m.Mark)
			}
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("a second Shutdown: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("Close after Shutdown: %v", err)
		}
		wantErr(t, "raise", d.Raise(t.Context(), b, carillon.ID{}, note{}), carillon.ErrClosed)
		wantErr(t, "raise locally", d.Raise(t.Context(), b, carillon.ID{}, note{}, carillon.LocalOnly()), carillon.ErrClosed)
		wantErr(t, "flush", b.Flush(t.Context()), carillon.ErrClosed)
		if st := b.Status(); st.Ready || !st.Closing {
			t.Errorf("status %+v", st)
		}
		b.Enable()
		b.Members()
		b.Stats()
	})
}

func TestShutdown_WaitsForAcknowledgementsButNotForEver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		raise(t, d, c.Broker(0), 1, 1)
		raise(t, d, c.Broker(1), 1, 1)
		time.Sleep(5 * time.Second)         // both have heard each other
		c.CutDirection(1, providertest.Out) // instance 1 hears, and its acknowledgements are lost
		raise(t, d, c.Broker(0), 2, 2)
		start := time.Now()
		if err := c.Broker(0).Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("Shutdown took %v, want to wait 2 s for the acknowledgement", d)
		}
		rec.WaitRaised(3)
	})
}

func TestShutdown_IsQuickWhenAllHaveAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3)
		d := define()
		raise(t, d, c.Broker(0), 1, 1)
		time.Sleep(5 * time.Second)
		raise(t, d, c.Broker(0), 2, 100)
		start := time.Now()
		if err := c.Broker(0).Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Errorf("Shutdown took %v", d)
		}
	})
}

func TestShutdown_SendsWhatWasRaisedBeforeEnable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		other := mustOpen(t, config(db, bus.Provider()))
		other.Enable()
		d := define()
		rec := carillontest.Record(t, other, d)
		b := mustOpen(t, config(db, bus.Provider()))
		raise(t, d, b, 1, 3)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		rec.WaitRaised(3)
	})
}

func TestShutdown_EndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, _ := stuckPair(t, 0)
		b.Enable()
		raise(t, define(), b, 1, 3)
		start := time.Now()
		err := b.Shutdown(bounded(t, time.Second))
		wantErr(t, "shut down", err, context.DeadlineExceeded)
		if err == nil || !strings.Contains(err.Error(), "3 events") {
			t.Errorf("error %v does not say what was left undone", err)
		}
		if d := time.Since(start); d > 3*time.Second || !isDone(b) {
			t.Errorf("Shutdown returned after %v, done: %v", d, isDone(b))
		}
	})
}

func TestShutdown_WaitsForFunctionsUntilItsContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		leave := make(chan struct{})
		ended := make(chan error, 1)
		d.OnRaised(c.Broker(1), func(ctx context.Context, _ carillon.Raised[note]) {
			<-leave
			ended <- ctx.Err()
		})
		raise(t, d, c.Broker(0), 1, 1)
		synctest.Wait()
		err := c.Broker(1).Shutdown(bounded(t, 5*time.Second))
		wantErr(t, "shut down", err, context.DeadlineExceeded)
		if err == nil || !strings.Contains(err.Error(), "functions") {
			t.Errorf("error %v does not say what still runs", err)
		}
		close(leave)
		if err := <-ended; err == nil {
			t.Error("the function's context goes on after the Broker has stopped")
		}
	})
}

func TestShutdown_QueuedEventsAreTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		var told int
		d.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) {
			time.Sleep(10 * time.Millisecond)
			told++
		})
		raise(t, d, c.Broker(0), 1, 100)
		synctest.Wait()
		if err := c.Broker(1).Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if told != 100 {
			t.Errorf("told %d of 100 events that were in the queue", told)
		}
	})
}

func TestShutdown_NothingIsTakenInFromItsBeginning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		other := mustOpen(t, config(db, bus.Provider()))
		other.Enable()
		p := &wrap{Provider: bus.Provider()}
		proceed := make(chan struct{})
		p.send = func(ctx context.Context, frames [][]byte) error {
			if eventFrames(frames) > 0 {
				<-proceed
			}
			return p.Provider.Send(ctx, frames)
		}
		b := mustOpen(t, config(db, p))
		b.Enable()
		d := define()
		rec := carillontest.Record(t, b, d)
		raise(t, d, other, 1, 1)
		synctest.Wait()
		raise(t, d, b, 2, 2)
		done := make(chan error)
		go func() { done <- b.Shutdown(context.Background()) }() // waits for its provider
		synctest.Wait()
		raise(t, d, other, 3, 4)
		synctest.Wait()
		if n := b.Stats().Drops[carillon.DropClosing]; n != 2 {
			t.Errorf("dropped because of closing: %d, want 2", n)
		}
		close(proceed)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := numbers(rec.Raised()); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("told %v", got)
		}
	})
}

func TestShutdown_InsideAFunctionIsBoundedByItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		result := make(chan error, 1)
		d.OnRaised(c.Broker(1), func(ctx context.Context, r carillon.Raised[note]) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			result <- c.Broker(1).Shutdown(ctx)
		})
		raise(t, d, c.Broker(0), 1, 1)
		wantErr(t, "shut down", <-result, context.DeadlineExceeded)
		if !isDone(c.Broker(1)) {
			t.Error("not done")
		}
	})
}

func TestClose_InsideAFunctionEndsTheBroker(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		result := make(chan error, 1)
		calls := 0
		d.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) {
			calls++
			result <- c.Broker(1).Close()
		})
		raise(t, d, c.Broker(0), 1, 5)
		if err := <-result; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if calls != 1 || !isDone(c.Broker(1)) {
			t.Errorf("%d calls, done: %v", calls, isDone(c.Broker(1)))
		}
	})
}

func TestClose_StopsNow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, _ := stuckPair(t, 0)
		b.Enable()
		raise(t, define(), b, 1, 3)
		synctest.Wait()
		start := time.Now()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if time.Since(start) != 0 || !isDone(b) {
			t.Errorf("Close took %v, done: %v", time.Since(start), isDone(b))
		}
		if err := b.Close(); err != nil {
			t.Errorf("Close again: %v", err)
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown after Close: %v", err)
		}
	})
}

func TestClose_GivesADatabaseThatIsAwayASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		var hang atomic.Bool
		db := &hookedDB{Database: mem, before: func(ctx context.Context, call string) error {
			if call == "Leave" && hang.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		other, b := mustOpen(t, config(mem, bus.Provider())), mustOpen(t, config(db, bus.Provider()))
		other.Enable()
		b.Enable()
		d := define()
		told := 0
		d.OnRaised(b, func(context.Context, carillon.Raised[note]) {
			told++
			time.Sleep(10 * time.Millisecond)
		})
		raise(t, d, other, 1, 100)
		time.Sleep(95 * time.Millisecond)
		synctest.Wait()
		hang.Store(true)
		start := time.Now()
		if err := b.Close(); err == nil || !strings.Contains(err.Error(), "member row") {
			t.Errorf("Close: %v", err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("Close took %v", d)
		}
		if told != 10 {
			t.Errorf("told %d events, 10 before Close began: what is queued is not told", told)
		}
	})
}

func TestClose_EndsAShutdownThatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, _ := stuckPair(t, 0)
		b.Enable()
		raise(t, define(), b, 1, 1)
		result := make(chan error)
		go func() { result <- b.Shutdown(context.Background()) }()
		time.Sleep(time.Hour)
		second := make(chan error)
		go func() { second <- b.Shutdown(context.Background()) }()
		wantErr(t, "a third Shutdown", b.Shutdown(bounded(t, time.Second)), context.DeadlineExceeded)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		wantErr(t, "the first Shutdown", <-result, carillon.ErrClosed)
		if err := <-second; err != nil {
			t.Errorf("the second Shutdown: %v", err)
		}
	})
}

func TestClose_EndsARaiseThatWaits(t *testing.T) {
	for _, end := range []func(*carillon.Broker){
		func(b *carillon.Broker) { b.Close() },
		func(b *carillon.Broker) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			b.Shutdown(ctx)
		},
	} {
		bubble(t, func(t *testing.T) {
			b, _ := stuckPair(t, 100)
			b.Enable()
			d := define()
			raise(t, d, b, 1, 1)
			result := make(chan error)
			go func() {
				result <- d.Raise(context.Background(), b, carillon.ID{}, note{Text: strings.Repeat("x", 1000)})
			}()
			synctest.Wait()
			go end(b)
			wantErr(t, "raise", <-result, carillon.ErrUnsent, carillon.ErrClosed)
			<-b.Done()
		})
	}
}

func TestClose_WaitsForTheSendThatRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		var ended atomic.Bool
		p.send = func(ctx context.Context, frames [][]byte) error {
			if eventFrames(frames) > 0 {
				<-ctx.Done()
				time.Sleep(100 * time.Millisecond) // a transport that takes its time
				ended.Store(true)
			}
			return ctx.Err()
		}
		b := mustOpen(t, config(db, p))
		b.Enable()
		raise(t, define(), b, 1, 1)
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if !ended.Load() {
			t.Error("Close has returned, and Send still runs")
		}
	})
}

func TestClose_ErrorOfAProviderIsReturned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		b := mustOpen(t, config(db, failsToClose{&wrap{Provider: bus.Provider()}}))
		err := b.Close()
		wantErr(t, "close", err, errTest)
		if !isDone(b) {
			t.Error("not done")
		}
	})
}

type failsToClose struct{ *wrap }

func (f failsToClose) Close() error {
	f.wrap.Close()
	return errTest
}

var _ provider.Provider = failsToClose{}

func TestBroker_LeavesNoGoroutineBehind(t *testing.T) {
	bubble(t, func(t *testing.T) { // which fails when one is left
		c := carillontest.NewCluster(t, 4)
		d := define()
		rec := carillontest.Record(t, c.Broker(0), d)
		raise(t, d, c.Broker(1), 1, 100)
		rec.WaitRaised(100)
		c.Stop(1)
		c.Crash(2)
	})
}

func TestBroker_HasNoGoroutinePerSubscriber(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		synctest.Wait()
		before := runtime.NumGoroutine()
		var rec []*carillontest.Recorder[note]
		for range 200 {
			rec = append(rec, carillontest.Record(t, c.Broker(0), d))
		}
		raise(t, d, c.Broker(1), 1, 10)
		for _, r := range rec {
			r.WaitRaised(10)
		}
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > before+20 {
			t.Errorf("%d goroutines for 200 idle subscribers", n-before)
		}
	})
}

// Instances that shut down together on a busy database wait for each other. A row
// that stays open for that is waited for by everybody who comes.
func TestShutdown_GivesABusyDatabaseTimeToCloseTheRow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		db := &hookedDB{Database: mem, before: func(ctx context.Context, call string) error {
			if call != "Leave" {
				return nil
			}
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		b := mustOpen(t, config(db, bus.Provider()))
		b.Enable()
		if err := b.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if rows := openRows(t, mem); len(rows) != 0 {
			t.Errorf("%d rows stay open", len(rows))
		}
	})
}
