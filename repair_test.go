package carillon_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
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

// A tag costs more than everything else about a frame, and whoever repeats frames must
// not make instances compute it.
func TestReceive_RepeatedFramesAreDroppedBeforeTheirTagsAreComputed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newTarget(t)
		frame := g.valid(1)
		if r := g.drops(frame); r != 0 {
			t.Fatalf("the frame itself: dropped as %v", r)
		}
		frame = slices.Clone(frame)
		frame[len(frame)-1] ^= 1
		if r := g.drops(frame); r != carillon.DropDuplicate {
			t.Errorf("a repetition with a wrong tag: dropped as %v, want %v", r, carillon.DropDuplicate)
		}
	})
}

func TestReceive_FramesOfAStreamBeforeAreOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newTarget(t)
		raiseUntyped := func() {
			if err := g.Event(g.event).Raise(t.Context(), carillon.ID{}, []byte("x")); err != nil {
				t.Fatal(err)
			}
			g.pass(time.Second)
		}
		raiseUntyped()
		old := g.puppet.frames(wire.TypeEvents)
		if len(old) == 0 {
			t.Fatal("the puppet heard nothing")
		}
		h, err := wire.ParseHeader(old[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := g.db.Leave(t.Context(), h.Stream, site.Mark{}); err != nil {
			t.Fatal(err)
		}
		g.pass(time.Minute)
		if r := g.drops(old[0]); r != carillon.DropOwn {
			t.Errorf("a frame of the stream before came back: dropped as %v, want %v", r, carillon.DropOwn)
		}
	})
}

// eager delivers frames as soon as it is started.
type eager struct {
	*membus.Provider
	frames func(env provider.Env) [][]byte
}

func (e *eager) Start(ctx context.Context, env provider.Env) error {
	if err := e.Provider.Start(ctx, env); err != nil {
		return err
	}
	env.Deliver(provider.Batch{Frames: e.frames(env)})
	return nil
}

func TestReceive_BeforeTheRowIsThereNothingIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		p := newPuppet(t, db, bus)
		p.register(db)
		link := &eager{Provider: bus.Provider(), frames: func(provider.Env) [][]byte {
			return [][]byte{p.event(p.header(1), p.key(), carillon.NewID(), "x"), p.heartbeat(1)}
		}}
		b := mustOpen(t, config(db, link))
		if n := b.Stats().Drops[carillon.DropBeforeBaseline]; n != 2 {
			t.Errorf("%d frames dropped as before the baseline, want both", n)
		}
	})
}

// A replica may lag. What it does not show yet once is no copy of the database.
func TestGuard_OneAnswerMakesNoCopy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		cfg := config(db, bus.Provider())
		cfg.Lease = 30 * time.Second
		a := mustOpen(t, cfg)
		a.Enable()
		time.Sleep(time.Minute)
		copied := db.Copy()
		link := providertest.Faulty(bus.Provider(), providertest.Faults{})
		link.SetPartition(providertest.Both)
		cfg = config(copied, link)
		cfg.Lease = 30 * time.Second
		b := mustOpen(t, cfg)
		b.Enable()
		time.Sleep(time.Minute)
		link.Heal()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if alarmed(a) || alarmed(b) {
			t.Errorf("a %v, b %v; want no alarm before a second answer, a lease later", a.Status().Problems, b.Status().Problems)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !alarmed(a) || !alarmed(b) {
			t.Error("no alarm at all: this test shows nothing")
		}
	})
}

// The keys are read once more behind the new row, and not only with the next read of the
// changes, which may be long in coming.
func TestKey_RotatedWhileThereWasNoRowNeedsNoFurtherRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		joins := 0
		hooked := &hookedDB{Database: db, before: func(ctx context.Context, call string) error {
			switch {
			case call == "Changes" && joins == 2:
				return context.DeadlineExceeded
			case call != "Join":
				return nil
			}
			if joins++; joins < 2 {
				return nil
			}
			sites, err := db.Sites(ctx)
			if err != nil {
				return err
			}
			s := sites[0]
			key := site.NewKey(2, site.SuiteHMACSHA256)
			key.State, s.Keys[0].State = site.KeyActive, site.KeyRetiring
			s.Keys = append(s.Keys, key)
			_, err = db.ChangeSite(ctx, s)
			return err
		}}
		b := mustOpen(t, config(hooked, bus.Provider()))
		if err := db.Leave(t.Context(), b.Members()[0].Stream, site.Mark{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st := b.Status(); joins != 2 || st.Key != 2 {
			t.Errorf("%d joins, %+v; want two, and key 2 to be in use", joins, st)
		}
	})
}

// A hidingDB hides the rows of others from who has read anything before, as one does that
// failed over and gives revisions again.
type hidingDB struct{ site.Database }

func (d hidingDB) Changes(ctx context.Context, since site.Revision) (site.Snapshot, error) {
	snap, err := d.Database.Changes(ctx, since)
	if since > 0 {
		snap.Members = slices.DeleteFunc(snap.Members, func(m site.Member) bool { return m.Server != "here" })
	}
	return snap, err
}

func TestDatabase_ARowHiddenByAFailoverIsFoundWithinALease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		cfg := config(hidingDB{db}, bus.Provider())
		cfg.Lease = 30 * time.Second
		a := mustOpen(t, cfg)
		hidden := config(db, bus.Provider())
		hidden.Server = "elsewhere"
		mustOpen(t, hidden)
		time.Sleep(2 * cfg.Lease)
		if n := len(a.Members()); n != 2 {
			t.Errorf("%d members after two leases, want 2", n)
		}
	})
}
