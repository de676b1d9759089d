package carillontest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider/providertest"
)

var number = carillon.Define[int](carillon.MustParseID("5b0f6a0e-0b1c-4f43-9a5f-6c2f1d1f8a77"), "a number")

func raise(t *testing.T, b *carillon.Broker, n int) {
	t.Helper()
	if err := number.Raise(t.Context(), b, carillon.ID{}, n); err != nil {
		t.Fatal(err)
	}
}

func TestCluster_WorksOutsideABubble(t *testing.T) {
	c := carillontest.NewCluster(t, 3)
	rec := carillontest.Record(t, c.Broker(2), number)
	raise(t, c.Broker(0), 1)
	raise(t, c.Broker(1), 2)
	rec.WaitRaised(2)
	got := rec.Parameters()
	slices.Sort(got)
	if !slices.Equal(got, []int{1, 2}) {
		t.Errorf("raised %v", got)
	}
}

func TestCluster_WiresEveryInstanceBeforeEnable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wired []int
		c := carillontest.NewCluster(t, 2, carillontest.Wire(func(i int, b *carillon.Broker) {
			wired = append(wired, i)
			if s := b.Status(); s.Enabled || !s.InStep {
				t.Errorf("instance %d is wired with status %+v", i, s)
			}
		}))
		c.Restart(1)
		c.Crash(0)
		c.Restart(0)
		if n := c.Add(); n != 2 || c.Len() != 3 {
			t.Errorf("the third instance is number %d of %d", n, c.Len())
		}
		if !slices.Equal(wired, []int{0, 1, 1, 0, 2}) {
			t.Errorf("wired %v", wired)
		}
		if !c.Broker(0).Status().Enabled {
			t.Error("not enabled afterwards")
		}
	})
}

func TestCluster_Disabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1, carillontest.Disabled())
		if c.Broker(0).Status().Enabled {
			t.Error("enabled")
		}
	})
}

func TestCluster_ConfiguresEveryInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2,
			carillontest.Configure(func(i int, cfg *carillon.Config) { cfg.Version = fmt.Sprint("v", i) }),
			carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.Application = "shop" }))
		time.Sleep(2 * time.Second)
		for i, m := range c.Broker(0).Members() {
			if m.Version != fmt.Sprint("v", i) || m.Application != "shop" || m.Server != fmt.Sprint("instance-", i) {
				t.Errorf("member %+v", m)
			}
		}
	})
}

func TestCluster_WhatIsCutIsRepairedOrMissed(t *testing.T) {
	both := func(c *carillontest.Cluster) { c.Cut(1) }
	for _, tt := range []struct {
		name   string
		cut    func(c *carillontest.Cluster)
		lasts  time.Duration
		missed uint64 // by instance 1, of what instance 0 raises, and the other way round
		other  uint64
	}{
		{"both directions for a moment", both, time.Second, 0, 0},
		{"both directions for long", both, time.Minute, 1, 1},
		{"what arrives for long", func(c *carillontest.Cluster) { c.CutDirection(1, providertest.In) }, time.Minute, 1, 0},
		{"what it sends for long", func(c *carillontest.Cluster) { c.CutDirection(1, providertest.Out) }, time.Minute, 0, 1},
		{"lost", func(c *carillontest.Cluster) { c.Lose(1) }, 0, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := carillontest.NewCluster(t, 2)
				rec0, rec1 := carillontest.Record(t, c.Broker(0), number), carillontest.Record(t, c.Broker(1), number)
				tt.cut(c)
				raise(t, c.Broker(0), 1)
				raise(t, c.Broker(1), 2)
				time.Sleep(tt.lasts)
				synctest.Wait()
				c.Heal(1)
				raise(t, c.Broker(0), 3)
				raise(t, c.Broker(1), 4)
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := rec1.MissedCount(); n != tt.missed {
					t.Errorf("instance 1 missed %d, want %d", n, tt.missed)
				}
				if n := rec0.MissedCount(); n != tt.other {
					t.Errorf("instance 0 missed %d, want %d", n, tt.other)
				}
				if got := rec1.Parameters(); !slices.Contains(got, 3) || !slices.Contains(got, 4) {
					t.Errorf("instance 1 was told %v", got)
				}
			})
		})
	}
}

// Without a fake clock, what Lose and Heal promise is a matter of waiting for what is on its way.
func TestCluster_LoseAndHealAreExactOutsideABubble(t *testing.T) {
	c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.MissedAfter = 10 * time.Millisecond }))
	rec := carillontest.Record(t, c.Broker(1), number)
	var want []int
	for n := range 200 {
		raise(t, c.Broker(0), n)
		if n%2 == 0 {
			want = append(want, n)
			c.Lose(1)
		} else {
			c.Heal(1)
		}
	}
	rec.WaitMissed(100)
	if got := rec.Parameters(); !slices.Equal(got, want) || rec.MissedCount() != 100 {
		t.Errorf("raised %v, missed %d", got, rec.MissedCount())
	}
}

func TestCluster_FaultsDifferByInstanceAndCanChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3, carillontest.Faults(providertest.Faults{Seed: 7, In: providertest.Rates{Drop: 0.5}}))
		var rec []*carillontest.Recorder[int]
		for i := range 3 {
			rec = append(rec, carillontest.Record(t, c.Broker(i), number))
		}
		for n := range 50 {
			raise(t, c.Broker(0), n)
			synctest.Wait()
		}
		a, b := rec[1].Parameters(), rec[2].Parameters()
		if len(a) == 50 || len(b) == 50 || slices.Equal(a, b) {
			t.Errorf("of 50 events, the two others were told %d and %d, the same ones: %v", len(a), len(b), slices.Equal(a, b))
		}
		for i := range 3 {
			c.SetRates(i, providertest.Rates{}, providertest.Rates{})
		}
		rec[1].Reset()
		for n := range 50 {
			raise(t, c.Broker(0), n)
		}
		rec[1].WaitRaised(50)
	})
}

func TestCluster_CrashLeavesTheRowAndSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		synctest.Wait()
		c.Crash(1)
		if c.Broker(1) != nil {
			t.Error("there is a Broker after the crash")
		}
		time.Sleep(10 * time.Second)
		if m := c.Broker(0).Members(); len(m) != 2 {
			t.Errorf("members %+v, want the row of the crashed instance to stay", m)
		}
		c.Stop(0)
		c.Restart(0)
		time.Sleep(3 * time.Second)
		if m := c.Broker(0).Members(); len(m) != 2 { // the one that stopped has left
			t.Errorf("members %+v", m)
		}
	})
}

func TestCluster_DatabaseGoesAndComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1)
		c.TakeDatabaseAway()
		time.Sleep(3 * time.Second)
		if c.Broker(0).Status().DatabaseAwaySince.IsZero() {
			t.Error("the database is there")
		}
		c.Crash(0)
		if err := c.TryOpen(0); err == nil || !strings.Contains(err.Error(), "taken away") {
			t.Errorf("open without a database: %v", err)
		}
		c.BringDatabaseBack()
		if err := c.TryOpen(0); err != nil {
			t.Error(err)
		}
	})
}

func TestCluster_ClosesItselfWithTheTest(t *testing.T) {
	before := runtime.NumGoroutine()
	var b *carillon.Broker
	t.Run("inner", func(t *testing.T) {
		c := carillontest.NewCluster(t, 3)
		b = c.Broker(0)
		c.Crash(1)
		c.TakeDatabaseAway()
	})
	<-b.Done()
	carillontest.Eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// failing is a testing.TB that remembers how it failed.
type failing struct {
	testing.TB
	failed string
}

func (f *failing) Helper() {}
func (f *failing) Fatalf(format string, args ...any) {
	f.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestRecorder_GivesUpInsteadOfHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 1)
		f := &failing{TB: t}
		rec := carillontest.Record(f, c.Broker(0), number)
		raise(t, c.Broker(0), 1)
		never := func() { carillontest.Eventually(f, "a number, 1 raised", func() bool { return false }) }
		for _, wait := range []func(){func() { rec.WaitRaised(2) }, func() { rec.WaitMissed(1) }, never} {
			f.failed = ""
			done := make(chan struct{})
			go func() {
				defer close(done)
				wait()
			}()
			<-done
			if !strings.Contains(f.failed, "a number") || !strings.Contains(f.failed, "1 raised") {
				t.Errorf("failed with %q", f.failed)
			}
		}
	})
}

func TestCluster_NotRunningFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{TB: t}
		c := carillontest.NewCluster(f, 1)
		c.Crash(0)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Cut(0)
		}()
		<-done
		if !strings.Contains(f.failed, "instance 0 does not run") {
			t.Errorf("failed with %q", f.failed)
		}
	})
}

func TestRecorder_RecordsUntypedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		rec := carillontest.RecordEvent(t, c.Broker(1).Event(id))
		if err := c.Broker(0).Event(id).Raise(context.Background(), carillon.ID{}, "x"); err != nil {
			t.Fatal(err)
		}
		if got := rec.WaitRaised(1); got[0].Parameter != "x" || len(rec.Raised()) != 1 {
			t.Errorf("raised %+v", got)
		}
		rec.Reset()
		if len(rec.Raised()) != 0 || len(rec.Missed()) != 0 {
			t.Error("Reset forgets nothing")
		}
	})
}

var errNone *carillon.ConfigError

func TestCluster_TryOpenReturnsWhatOpenReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := false
		c := carillontest.NewCluster(t, 1, carillontest.Configure(func(_ int, cfg *carillon.Config) {
			if bad {
				cfg.Application = ""
			}
		}))
		c.Stop(0)
		bad = true
		if err := c.TryOpen(0); !errors.As(err, &errNone) {
			t.Errorf("error %v", err)
		}
	})
}
