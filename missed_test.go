package carillon_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider/providertest"
)

func TestMissed_GapIsToldOnceAfterTheTimeout(t *testing.T) { // E6
	bubble(t, func(t *testing.T) {
		const after = 3 * time.Second
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.MissedAfter = after }))
		d, other := define(), define()
		rec, also := carillontest.Record(t, c.Broker(1), d), carillontest.Record(t, c.Broker(1), other)
		raise(t, d, c.Broker(0), 1, 2)
		synctest.Wait()
		c.Lose(1)
		raise(t, d, c.Broker(0), 3, 5)
		synctest.Wait()
		c.Heal(1)
		raise(t, d, c.Broker(0), 6, 6)
		synctest.Wait()
		time.Sleep(after - 1)
		synctest.Wait()
		if m := rec.Missed(); len(m) != 0 {
			t.Fatalf("1 ns before the timeout: missed %+v", m)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := numbers(rec.Raised()); !slices.Equal(got, []int{1, 2, 6}) {
			t.Errorf("raised %v", got)
		}
		for _, r := range []*carillontest.Recorder[note]{rec, also} { // which event it was is not known
			m := r.Missed()
			if len(m) != 1 {
				t.Fatalf("missed %+v, want one report", m)
			}
			if m := m[0]; m.Known || !m.Event.IsZero() || m.First != 2 || m.Last != 4 || m.Count != 3 || !m.Exact ||
				m.Reason != carillon.MissedTimeout || m.Source.Server != "instance-0" || m.Reports != 1 {
				t.Errorf("missed %+v", m)
			}
		}
		if s := c.Broker(1).Stats(); s.Missed != 3 || s.Peers[0].Missed != 3 || s.Peers[0].Gaps != 0 {
			t.Errorf("stats %+v", s)
		}
		if s := c.Broker(0).Stats(); s.Missed != 0 {
			t.Errorf("the sender missed %d", s.Missed)
		}
	})
}

func TestMissed_LastEventsBeforeSilenceAreFound(t *testing.T) { // G1
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		raise(t, d, c.Broker(0), 1, 1)
		synctest.Wait()
		c.Lose(1)
		raise(t, d, c.Broker(0), 2, 8)
		synctest.Wait()
		c.Heal(1)
		time.Sleep(time.Hour) // nothing is raised any more
		synctest.Wait()
		if m := rec.Missed(); len(m) != 1 || m[0].First != 1 || m[0].Last != 7 || m[0].Count != 7 || !m[0].Exact {
			t.Errorf("missed %+v, want one report of 7", m)
		}
	})
}

func TestMissed_LongCutIsAccountedExactly(t *testing.T) {
	for seed := range uint64(10) {
		bubble(t, func(t *testing.T) {
			c := carillontest.NewCluster(t, 3, carillontest.Faults(providertest.Faults{
				Seed: seed, In: providertest.Rates{Drop: 0.2, Duplicate: 0.1, Jitter: 20 * time.Millisecond},
			}))
			d := define()
			var rec []*carillontest.Recorder[note]
			for i := range 3 {
				rec = append(rec, carillontest.Record(t, c.Broker(i), d))
			}
			const all = 300
			for n := range all {
				raise(t, d, c.Broker(n%3), n, n)
				time.Sleep(5 * time.Millisecond)
				switch n {
				case 100:
					c.Lose(2)
				case 200:
					c.Heal(2)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			for i, r := range rec {
				if n := len(r.Raised()) + int(r.MissedCount()); n != all {
					t.Errorf("seed %d: instance %d: %d raised, %d missed, of %d", seed, i, len(r.Raised()), r.MissedCount(), all)
				}
				ns := numbers(r.Raised())
				slices.Sort(ns)
				if len(slices.Compact(ns)) != len(r.Raised()) {
					t.Errorf("seed %d: instance %d was told something twice", seed, i)
				}
			}
		})
	}
}

func TestRestart_IsANewStreamAndNeitherGapNorReplay(t *testing.T) { // G3
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		rec := carillontest.Record(t, c.Broker(0), d)
		raise(t, d, c.Broker(1), 1, 3)
		first := rec.WaitRaised(3)[0].Source
		time.Sleep(3 * time.Second)
		c.Restart(1)
		raise(t, d, c.Broker(1), 4, 5)
		got := rec.WaitRaised(5)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if ns := numbers(rec.Raised()); !slices.Equal(ns, span(1, 5)) {
			t.Errorf("raised %v", ns)
		}
		if m := rec.Missed(); len(m) != 0 {
			t.Errorf("missed %+v", m)
		}
		if last := got[4]; last.Source.Stream == first.Stream || last.Source.Server != first.Server || last.Ordinal != 1 {
			t.Errorf("after the restart: %+v, before: %+v", last, first)
		}
	})
}

func TestRestart_HearsNothingOfWhatWasBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := define()
		var rec *carillontest.Recorder[note]
		c := carillontest.NewCluster(t, 2, carillontest.Wire(func(i int, b *carillon.Broker) {
			if i == 1 {
				rec = carillontest.Record(t, b, d)
			}
		}))
		raise(t, d, c.Broker(0), 1, 3)
		synctest.Wait()
		c.Crash(1)
		raise(t, d, c.Broker(0), 4, 6)
		synctest.Wait()
		c.Restart(1)
		raise(t, d, c.Broker(0), 7, 9)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if ns := numbers(rec.Raised()); !slices.Equal(ns, span(7, 9)) {
			t.Errorf("raised %v, want what was raised since it is in step", ns)
		}
		if m := rec.Missed(); len(m) != 0 {
			t.Errorf("missed %+v", m)
		}
	})
}

func TestLateJoiner_MissesNothingBelowItsBaseline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		c.Lose(1)
		raise(t, d, c.Broker(0), 1, 100) // instance 1 has them all missing
		synctest.Wait()
		c.Heal(1)
		i := c.Add()
		rec := carillontest.Record(t, c.Broker(i), d)
		raise(t, d, c.Broker(0), 101, 101)
		time.Sleep(time.Hour)
		synctest.Wait()
		if ns := numbers(rec.Raised()); !slices.Equal(ns, []int{101}) {
			t.Errorf("raised %v", ns)
		}
		if m := rec.Missed(); len(m) != 0 {
			t.Errorf("missed %+v", m)
		}
	})
}

func TestMissed_EndOfASenderIsNoGap(t *testing.T) { // G8
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		rec := carillontest.Record(t, c.Broker(0), d)
		raise(t, d, c.Broker(1), 1, 50)
		c.Stop(1)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(rec.Raised()) != 50 || len(rec.Missed()) != 0 {
			t.Errorf("raised %d, missed %+v", len(rec.Raised()), rec.Missed())
		}
	})
}

func TestMissed_PromiseHoldsUnderFaultsAndRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	for seed := range uint64(10) {
		bubble(t, func(t *testing.T) {
			c := carillontest.NewCluster(t, 3, carillontest.Faults(providertest.Faults{
				Seed: seed, In: providertest.Rates{Drop: 0.1, Duplicate: 0.1, Reorder: 0.1, Jitter: 10 * time.Millisecond},
			}))
			d := define()
			rec := carillontest.Record(t, c.Broker(0), d)
			n := 0
			for range 5 {
				for range 60 {
					n++
					raise(t, d, c.Broker(1), n, n)
					time.Sleep(3 * time.Millisecond)
				}
				c.Restart(2) // of another instance
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := len(rec.Raised()) + int(rec.MissedCount()); got != n {
				t.Errorf("seed %d: %d raised and %d missed, of %d", seed, len(rec.Raised()), rec.MissedCount(), n)
			}
		})
	}
}
