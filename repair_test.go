package carillon_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

func TestRepair_WhatTheNetworkLostIsRaised(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3)
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		raise(t, d, c.Broker(0), 1, 2)
		synctest.Wait()
		c.Cut(1)
		raise(t, d, c.Broker(0), 3, 40)
		time.Sleep(time.Second)
		c.Heal(1)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		got := numbers(rec.Raised())
		if slices.Sort(got); !slices.Equal(got, span(1, 40)) || len(rec.Missed()) > 0 {
			t.Errorf("raised %v, missed %+v; want 1 to 40, and none", got, rec.Missed())
		}
		if s := c.Broker(0).Stats().Repair; s.Resent == 0 {
			t.Errorf("%+v: nothing was sent again, so this test shows nothing", s)
		}
		if s := c.Broker(1).Stats().Repair; s.Asked == 0 || s.Repaired == 0 {
			t.Errorf("%+v: nothing was asked for, so this test shows nothing", s)
		}
	})
}

func TestOnInDoubt_IsToldWhileSomethingMayStillBeRepaired(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		notices := make(chan carillon.Source, 64)
		remove := c.Broker(1).OnInDoubt(func(s carillon.Source) { notices <- s })
		loss := func() {
			t.Helper()
			c.Lose(1)
			raise(t, d, c.Broker(0), 1, 3)
			synctest.Wait()
			c.Heal(1)
			raise(t, d, c.Broker(0), 4, 4)
			synctest.Wait()
		}
		loss()
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if len(notices) > 0 {
			t.Errorf("in doubt of %+v, when it may only have been overtaken", <-notices)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(notices) != 1 {
			t.Fatalf("%d notices of one loss, want 1", len(notices))
		}
		if s := <-notices; s.Server != "instance-0" {
			t.Errorf("in doubt of %+v, want the instance that raised it", s)
		}
		remove()
		loss()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(notices) > 0 {
			t.Error("told after it was removed")
		}
	})
}
