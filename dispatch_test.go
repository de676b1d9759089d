package carillon_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider/providertest"
)

func TestSubscriber_SlowOneDelaysNoOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		leave := make(chan struct{})
		var slow []int
		d.OnRaised(c.Broker(1), func(_ context.Context, r carillon.Raised[note]) {
			<-leave
			slow = append(slow, r.Parameter.N)
		})
		fast := carillontest.Record(t, c.Broker(1), d)
		raise(t, d, c.Broker(0), 1, 100)
		if got := numbers(fast.WaitRaised(100)); !slices.Equal(got, span(1, 100)) {
			t.Errorf("the fast one was told %v", got)
		}
		synctest.Wait()
		if s := c.Broker(1).Stats().Queues; s.Events != 99 || s.Bytes == 0 {
			t.Errorf("behind the slow one wait %+v, want 99 events", s)
		}
		close(leave)
		synctest.Wait()
		if !slices.Equal(slow, span(1, 100)) {
			t.Errorf("the slow one was told %v", slow)
		}
	})
}

func TestSubscriber_CallsFromElsewhereAreSequential(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 4)
		d := define()
		inside, total := 0, 0 // without a lock: the race detector looks on
		d.OnRaised(c.Broker(0), func(context.Context, carillon.Raised[note]) {
			inside++
			runtime.Gosched()
			if inside != 1 {
				t.Errorf("%d calls at once", inside)
			}
			inside--
			total++
		})
		for i := 1; i < 4; i++ {
			raise(t, d, c.Broker(i), 1, 50)
		}
		synctest.Wait()
		if total != 150 {
			t.Errorf("told %d, want 150", total)
		}
	})
}

func TestSubscriber_LocalCallRunsBesideOneFromElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		leave := make(chan struct{})
		d.OnRaised(c.Broker(0), func(_ context.Context, r carillon.Raised[note]) {
			if !r.Local {
				<-leave
			}
		})
		raise(t, d, c.Broker(1), 1, 1)
		synctest.Wait()
		raise(t, d, c.Broker(0), 2, 2) // would hang if it had to wait for the other call
		close(leave)
	})
}

func TestSubscriber_PanicIsCountedLoggedAndDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log logBook
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(i int, cfg *carillon.Config) {
			if i == 1 {
				cfg.Logger = log.logger()
			}
		}))
		d := define()
		b := c.Broker(1)
		d.OnRaised(b, func(context.Context, carillon.Raised[note]) { panic("subscriber panics") })
		rec := carillontest.Record(t, b, d)
		b.OnReceived(func(carillon.Received) { panic("tap panics") })
		text := carillon.Define[string](carillon.NewID(), "text")
		unreadable := carillon.Define[int](text.ID(), "no text")
		unreadable.OnMissed(b, func(context.Context, carillon.Missed) { panic("OnMissed panics") })
		unreadable.OnRaised(b, func(context.Context, carillon.Raised[int]) {})
		raise(t, d, c.Broker(0), 1, 5)
		raise(t, d, b, 6, 6)
		if got := numbers(rec.WaitRaised(6)); len(got) != 6 {
			t.Errorf("told %v", got)
		}
		synctest.Wait()
		if n := d.Event(b).Counts().Panics; n != 6 {
			t.Errorf("%d panics counted for the event, want 6", n)
		}
		if n := b.Stats().Panics; n != 11 {
			t.Errorf("%d panics counted, want 11", n)
		}
		if n := len(rec.Missed()); n != 0 {
			t.Errorf("what panicked was raised, and yet %d are missed", n)
		}
		if lines := log.lines("panicked", "panics"); len(lines) != 1 {
			t.Errorf("%d log lines within one second, want 1: %q", len(lines), lines)
		}
		if err := text.Raise(t.Context(), c.Broker(0), carillon.ID{}, "x"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := unreadable.Event(b).Counts().Panics; n != 1 {
			t.Errorf("%d panics of the OnMissed function counted, want 1", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		raise(t, d, c.Broker(0), 7, 7)
		synctest.Wait()
		if lines := log.lines("panicked", "suppressed=12"); len(lines) != 1 {
			t.Errorf("a second later: %q", log.lines("panicked"))
		}
	})
}

func TestSubscriber_EndingItsGoroutineIsSurvived(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		told := make(chan int, 10)
		d.OnRaised(c.Broker(1), func(_ context.Context, r carillon.Raised[note]) {
			told <- r.Parameter.N
			runtime.Goexit() // as t.FailNow does
		})
		raise(t, d, c.Broker(0), 1, 3)
		synctest.Wait()
		if len(told) != 3 {
			t.Errorf("told %d events, want 3", len(told))
		}
	})
}

func TestSubscriber_FullQueueIsMissedByThatOneAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const queue = 64 << 10
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.QueueBytes = queue }))
		d := define()
		b := c.Broker(1)
		leave := make(chan struct{})
		var told []int
		d.OnRaised(b, func(_ context.Context, r carillon.Raised[note]) {
			<-leave
			told = append(told, r.Parameter.N)
		})
		rec := carillontest.Record(t, b, d)
		other := carillontest.Record(t, b, define())
		text := strings.Repeat("x", 1000)
		const all = 200
		for n := 1; n <= all; n++ {
			if err := d.Raise(t.Context(), c.Broker(0), carillon.ID{}, note{n, text}); err != nil {
				t.Fatal(err)
			}
			// Or the fast one overflows as well. The slow one paces the raiser for a while.
			time.Sleep(50 * time.Millisecond)
			synctest.Wait()
		}
		if got := numbers(rec.Raised()); !slices.Equal(got, span(1, all)) {
			t.Errorf("the fast one was told %v", got)
		}
		close(leave)
		time.Sleep(time.Second)
		synctest.Wait()
		missed := all - len(told)
		if missed == 0 || missed == all || !slices.Equal(told, span(1, len(told))) {
			t.Fatalf("the slow one was told %v", told)
		}
		if got := len(told); got > queue/1000+2 {
			t.Errorf("the slow one was told %d events of 1000 bytes, its queue has %d bytes", got, queue)
		}
		if n := rec.MissedCount(); n != uint64(missed) {
			t.Errorf("%d missed, want %d", n, missed)
		}
		for _, m := range rec.Missed() {
			if m.Reason != carillon.MissedLocalQueue || !m.Known || m.Event != d.ID() || !m.Exact || m.Last-m.First+1 != m.Count {
				t.Errorf("missed: %+v", m)
			}
		}
		if n := b.Stats().Drops[carillon.DropLocalQueue]; n != uint64(missed) {
			t.Errorf("dropped: %d, want %d", n, missed)
		}
		if n := len(other.Missed()); n != 0 {
			t.Errorf("another event hears of %d misses", n)
		}
	})
}

func TestSubscriber_EventLargerThanTheQueueIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.QueueBytes = 1000 }))
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		if err := d.Raise(t.Context(), c.Broker(0), carillon.ID{}, note{1, strings.Repeat("x", 5000)}); err != nil {
			t.Fatal(err)
		}
		rec.WaitRaised(1)
	})
}

func TestTap_FullQueueIsCountedAndNotMissed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.QueueBytes = 10_000 }))
		d := define()
		leave := make(chan struct{})
		c.Broker(1).OnReceived(func(carillon.Received) { <-leave })
		rec := carillontest.Record(t, c.Broker(1), d)
		for n := range 100 {
			raise(t, d, c.Broker(0), n, n)
			synctest.Wait()
		}
		if n := c.Broker(1).Stats().Drops[carillon.DropTapQueue]; n == 0 || n >= 100 {
			t.Errorf("dropped %d", n)
		}
		close(leave)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(rec.Raised()) != 100 || len(rec.Missed()) != 0 {
			t.Errorf("told %d, %d reports of misses", len(rec.Raised()), len(rec.Missed()))
		}
	})
}

func TestOnMissed_IsCalledAtMostEvery100ms(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		text, number := carillon.Define[string](id, "as text"), carillon.Define[int](id, "as a number")
		var at []time.Time
		var got []carillon.Missed
		number.OnMissed(c.Broker(1), func(_ context.Context, m carillon.Missed) {
			at, got = append(at, time.Now()), append(got, m)
		})
		number.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[int]) { t.Error("text decodes to a number") })
		const all = 50
		for range all {
			if err := text.Raise(t.Context(), c.Broker(0), carillon.ID{}, "x"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		var count, reports uint64
		for i, m := range got {
			count += m.Count
			reports += m.Reports
			if m.Last-m.First+1 != m.Count || m.Reports != m.Count || !m.Exact || !m.Known || m.Source.Server != "instance-0" {
				t.Errorf("report %d: %+v", i, m)
			}
			if i > 0 && at[i].Sub(at[i-1]) < 100*time.Millisecond {
				t.Errorf("call %d comes %v after the one before", i, at[i].Sub(at[i-1]))
			}
		}
		if count != all || reports != all {
			t.Errorf("%d events in %d reports, want %d", count, reports, all)
		}
		if len(got) < 5 || len(got) > 9 {
			t.Errorf("%d calls in 750 ms", len(got))
		}
	})
}

func TestOnMissed_MergedReportsLoseWhatDiffers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3)
		id := carillon.NewID()
		text, number := carillon.Define[string](id, "as text"), carillon.Define[int](id, "as a number")
		rec := carillontest.Record(t, c.Broker(2), number)
		for range 3 { // the first report is told at once, the others are merged
			for i := range 2 {
				if err := text.Raise(t.Context(), c.Broker(i), carillon.ID{}, "x"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		m := rec.WaitMissed(6)
		if len(m) != 2 {
			t.Fatalf("reports: %+v", m)
		}
		if m := m[1]; m.Source != (carillon.Source{}) || m.First != 0 || m.Last != 0 || m.Count != 5 || m.Reports != 5 ||
			!m.Exact || !m.Known || m.Event != id || m.Reason != carillon.MissedUndecodable {
			t.Errorf("merged: %+v", m)
		}
	})
}

func TestOnMissed_SlowOneDelaysNobodyAndLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		text, number := carillon.Define[string](id, "as text"), carillon.Define[int](id, "as a number")
		leave := make(chan struct{})
		var slow uint64
		number.OnMissed(c.Broker(1), func(_ context.Context, m carillon.Missed) {
			<-leave
			slow += m.Count
		})
		rec := carillontest.Record(t, c.Broker(1), number)
		for range 1000 {
			if err := text.Raise(t.Context(), c.Broker(0), carillon.ID{}, "x"); err != nil {
				t.Fatal(err)
			}
		}
		rec.WaitMissed(1000)
		close(leave)
		time.Sleep(time.Second)
		synctest.Wait()
		if slow != 1000 {
			t.Errorf("the slow one heard of %d", slow)
		}
	})
}

func TestOnMissed_RemovedIsNotCalled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		text, number := carillon.Define[string](id, "as text"), carillon.Define[int](id, "as a number")
		calls := 0
		remove := number.OnMissed(c.Broker(1), func(context.Context, carillon.Missed) { calls++ })
		number.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[int]) {})
		for range 3 { // one is told, the others wait for 100 ms
			if err := text.Raise(t.Context(), c.Broker(0), carillon.ID{}, "x"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		remove()
		remove()
		time.Sleep(time.Second)
		synctest.Wait()
		if calls != 1 {
			t.Errorf("called %d times, want once before remove", calls)
		}
	})
}

func TestMissed_WithoutOnMissedTheLogTells(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log logBook
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(i int, cfg *carillon.Config) {
			if i == 1 {
				cfg.Logger = log.logger()
			}
		}))
		d := define()
		d.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) {})
		c.Lose(1)
		raise(t, d, c.Broker(0), 1, 7)
		synctest.Wait()
		c.Heal(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if lines := log.lines("events missed", "count=7", "reason=timeout", "server=instance-0", "first=0", "last=6"); len(lines) != 1 {
			t.Errorf("log: %q", log.lines("missed"))
		}
		if n := c.Broker(1).Stats().Missed; n != 7 {
			t.Errorf("%d missed, want 7", n)
		}
	})
}

func TestOrdered_IsToldInOrderWhateverTheNetworkDoes(t *testing.T) {
	for seed := range uint64(20) {
		bubble(t, func(t *testing.T) {
			c := carillontest.NewCluster(t, 2, carillontest.Faults(providertest.Faults{
				Seed: seed, In: providertest.Rates{Reorder: 0.4, Jitter: 30 * time.Millisecond, Duplicate: 0.2, Drop: 0.1},
			}))
			d := define(carillon.Ordered())
			var got []int
			var missed uint64
			d.OnMissed(c.Broker(1), func(_ context.Context, m carillon.Missed) { missed += m.Count })
			d.OnRaised(c.Broker(1), func(_ context.Context, r carillon.Raised[note]) { got = append(got, r.Parameter.N) })
			for n := 1; n <= 200; n++ {
				raise(t, d, c.Broker(0), n, n)
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("seed %d: told %v", seed, got)
			}
			if len(got)+int(missed) != 200 {
				t.Errorf("seed %d: %d told, %d missed, of 200", seed, len(got), missed)
			}
		})
	}
}

func TestUnordered_IsToldAsItComes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		c.Lose(1)
		raise(t, d, c.Broker(0), 1, 1)
		synctest.Wait()
		c.Heal(1)
		raise(t, d, c.Broker(0), 2, 2)
		synctest.Wait()
		if got := numbers(rec.Raised()); !slices.Equal(got, []int{2}) {
			t.Errorf("told %v at once, want only what is there", got)
		}
	})
}

// A consumer that applies changes must know that one is missing before it
// applies the next one, though misses are told by another function.
func TestOrdered_MissIsToldBeforeWhatFollows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define(carillon.Ordered())
		var mu sync.Mutex
		var got []int // a miss of n events is -n
		add := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, n)
		}
		d.OnMissed(c.Broker(1), func(_ context.Context, m carillon.Missed) {
			time.Sleep(time.Second) // slow, and still the next event waits
			add(-int(m.Count))
		})
		d.OnRaised(c.Broker(1), func(_ context.Context, r carillon.Raised[note]) { add(r.Parameter.N) })
		raise(t, d, c.Broker(0), 1, 2)
		for round := range 3 {
			synctest.Wait()
			c.Lose(1)
			raise(t, d, c.Broker(0), 10*round+3, 10*round+5)
			synctest.Wait()
			c.Heal(1)
			raise(t, d, c.Broker(0), 10*round+6, 10*round+6)
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		missed, raised := 0, []int{}
		for _, n := range got {
			if n < 0 {
				missed -= n
				continue
			}
			raised = append(raised, n)
			if before := 3 * ((n + 4) / 10); missed < before {
				t.Errorf("%d is told when %d misses have been, want %d: %v", n, missed, before, got)
			}
		}
		if missed != 9 || !slices.Equal(raised, []int{1, 2, 6, 16, 26}) {
			t.Errorf("told %v", got)
		}
	})
}

func TestEnable_DispatchesWhatCameSinceOpen(t *testing.T) { // E7
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2, carillontest.Disabled())
		c.Broker(0).Enable()
		d := define(carillon.Ordered())
		rec := carillontest.Record(t, c.Broker(1), d)
		raise(t, d, c.Broker(0), 1, 10)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(rec.Raised()); n != 0 {
			t.Fatalf("told %d events before Enable", n)
		}
		if q := c.Broker(1).Stats().Queues; q.HeldEvents != 10 || q.HeldBytes == 0 {
			t.Errorf("held: %+v", q)
		}
		late := carillontest.Record(t, c.Broker(1), d) // still before Enable
		c.Broker(1).Enable()
		c.Broker(1).Enable()
		raise(t, d, c.Broker(0), 11, 12)
		for _, r := range []*carillontest.Recorder[note]{rec, late} {
			if got := numbers(r.WaitRaised(12)); !slices.Equal(got, span(1, 12)) {
				t.Errorf("told %v", got)
			}
			if len(r.Missed()) != 0 {
				t.Errorf("missed %+v", r.Missed())
			}
		}
		if q := c.Broker(1).Stats().Queues; q.HeldEvents != 0 || q.HeldBytes != 0 {
			t.Errorf("held after Enable: %+v", q)
		}
	})
}

func TestEnable_BeyondHoldBytesIsMissedByID(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3, carillontest.Disabled(), carillontest.Configure(func(_ int, cfg *carillon.Config) {
			cfg.HoldBytes = 10_000
		}))
		c.Broker(0).Enable()
		c.Broker(1).Enable()
		d, e, quiet := define(carillon.Ordered()), define(), define()
		recD, recE, recQuiet := carillontest.Record(t, c.Broker(2), d), carillontest.Record(t, c.Broker(2), e), carillontest.Record(t, c.Broker(2), quiet)
		raise(t, d, c.Broker(0), 1, 100)
		synctest.Wait()
		raise(t, e, c.Broker(1), 1, 50)
		synctest.Wait()
		c.Broker(2).Enable()
		time.Sleep(time.Second)
		synctest.Wait()
		told := numbers(recD.Raised())
		if n := len(told); n == 0 || n >= 100 || n > 10_000/128 || !slices.Equal(told, span(1, n)) {
			t.Errorf("told %v", told)
		}
		if n := recD.MissedCount(); n != uint64(100-len(told)) {
			t.Errorf("told %d, missed %d, of 100", len(told), n)
		}
		for _, m := range recD.Missed() {
			if m.Reason != carillon.MissedOverflow || !m.Known || m.Event != d.ID() || m.Source.Server != "instance-0" ||
				m.First != uint64(len(told)) || m.Last != 99 {
				t.Errorf("missed: %+v", m)
			}
		}
		if n := recE.MissedCount() + uint64(len(recE.Raised())); n != 50 {
			t.Errorf("the other event: %d told or missed, want 50", n)
		}
		if n := len(recQuiet.Missed()); n != 0 {
			t.Errorf("an event that was not missed hears of %d misses", n)
		}
		if n, want := c.Broker(2).Stats().Drops[carillon.DropNotEnabled], recD.MissedCount()+recE.MissedCount(); n != want {
			t.Errorf("dropped %d, want %d", n, want)
		}
		raise(t, d, c.Broker(0), 101, 101)
		recD.WaitRaised(len(told) + 1)
	})
}

// What is told must be in order, so nothing that fits is told after something that did not.
func TestEnable_NothingIsHeldAfterTheFirstThatDoesNotFit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2, carillontest.Disabled(), carillontest.Configure(func(_ int, cfg *carillon.Config) {
			cfg.HoldBytes = 10_000
		}))
		c.Broker(0).Enable()
		d := define(carillon.Ordered())
		rec := carillontest.Record(t, c.Broker(1), d)
		raise(t, d, c.Broker(0), 1, 2)
		if err := d.Raise(t.Context(), c.Broker(0), carillon.ID{}, note{3, strings.Repeat("x", 10_000)}); err != nil {
			t.Fatal(err)
		}
		raise(t, d, c.Broker(0), 4, 5)
		synctest.Wait()
		c.Broker(1).Enable()
		time.Sleep(time.Second)
		synctest.Wait()
		if got := numbers(rec.Raised()); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("raised %v", got)
		}
		if m := rec.Missed(); len(m) != 1 || m[0].First != 2 || m[0].Last != 4 || m[0].Count != 3 || m[0].Reports != 3 {
			t.Errorf("missed %+v", m)
		}
	})
}

// The same where what is missed arrived, and was refused by the subscriber's own queue or the codec.
func TestOrdered_MissOfThisInstanceIsToldBeforeWhatFollows(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, c *carillontest.Cluster, id carillon.ID, leave chan<- struct{})
	}{
		{"local queue", func(t *testing.T, c *carillontest.Cluster, id carillon.ID, leave chan<- struct{}) {
			d := carillon.Define[note](id, "note", carillon.Ordered())
			raise(t, d, c.Broker(0), 1, 1) // held by the function
			synctest.Wait()
			text := strings.Repeat("x", 5000)
			for n := 2; n <= 3; n++ { // the first fills the queue, the second finds no room
				if err := d.Raise(t.Context(), c.Broker(0), carillon.ID{}, note{n, text}); err != nil {
					t.Fatal(err)
				}
			}
			raise(t, d, c.Broker(0), 4, 4)
			synctest.Wait()
			close(leave)
		}},
		{"undecodable", func(t *testing.T, c *carillontest.Cluster, id carillon.ID, leave chan<- struct{}) {
			d := carillon.Define[note](id, "note", carillon.Ordered(), carillon.WithCodec(spoiler{carillon.JSON()}))
			close(leave)
			raise(t, d, c.Broker(0), 1, 4)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.QueueBytes = 6000 }))
				id := carillon.NewID()
				var opts []carillon.DefineOption
				if tt.name == "undecodable" {
					opts = append(opts, carillon.WithCodec(spoiler{carillon.JSON()}))
				}
				d := carillon.Define[note](id, "note", append(opts, carillon.Ordered())...)
				var mu sync.Mutex
				var got []int // the miss is -1
				add := func(n int) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, n)
				}
				leave := make(chan struct{})
				d.OnMissed(c.Broker(1), func(_ context.Context, m carillon.Missed) {
					time.Sleep(time.Second)
					add(-int(m.Count))
				})
				d.OnRaised(c.Broker(1), func(_ context.Context, r carillon.Raised[note]) {
					<-leave
					add(r.Parameter.N)
				})
				tt.spoil(t, c, id, leave)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				i, j := slices.Index(got, -1), slices.Index(got, 4)
				if len(got) != 4 || i < 0 || j < i {
					t.Errorf("told %v, want the miss before 4", got)
				}
			})
		})
	}
}

// spoiler is a codec that cannot decode the third note.
type spoiler struct{ carillon.Codec }

func (s spoiler) Decode(data []byte, v any) error {
	if err := s.Codec.Decode(data, v); err != nil || v.(*note).N == 3 {
		return errTest
	}
	return nil
}

// What a full queue counts must be what it holds in memory, though each event of it came in a
// frame of its own, full of other events.
func TestSubscriber_QueueHoldsNoMoreThanItCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.RingBytes, cfg.CacheBytes = 1<<20, -1 }))
		slow, filler := define(), carillon.NewID()
		leave := make(chan struct{})
		slow.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) { <-leave })
		other := define()
		other.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) {})
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		text := strings.Repeat("x", 30_000)
		const frames = 1000 // of 30 KB
		for n := range frames {
			raise(t, slow, c.Broker(0), n, n)
			raise(t, other, c.Broker(0), 1, 64)
			if err := c.Broker(0).Event(filler).Raise(t.Context(), carillon.ID{}, text); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if q := c.Broker(1).Stats().Queues; q.Events != frames-1 || q.Bytes > 1<<20 {
			t.Errorf("queued %+v", q)
		}
		if now := heap(); now > before+15<<20 {
			t.Errorf("the queue holds %d MB", (now-before)>>20)
		}
		close(leave)
	})
}
