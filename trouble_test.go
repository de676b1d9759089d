package carillon_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/site"
)

func TestMembers_ReadFromTheBeginningTellNoMissesOfBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		d := define()
		for range 3 {
			gone := mustOpen(t, config(mem, bus.Provider()))
			gone.Enable()
			raise(t, d, gone, 1, 100)
			if err := gone.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var once atomic.Bool
		db := &changesHook{Database: mem}
		db.changes = func(ctx context.Context, since site.Revision) (site.Snapshot, error) {
			if once.CompareAndSwap(true, false) {
				return site.Snapshot{}, site.ErrStale // a replica answered, once
			}
			return mem.Changes(ctx, since)
		}
		b := mustOpen(t, config(db, bus.Provider()))
		rec := carillontest.Record(t, b, d)
		b.Enable()
		time.Sleep(3 * time.Second)
		once.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, m := range rec.Missed() {
			t.Errorf("missed what was raised before this instance was opened: %+v", m)
		}
	})
}

func TestIsolation_BeforeEnableIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		var away atomic.Bool
		db := &hookedDB{Database: mem, before: func(context.Context, string) error {
			if away.Load() {
				return errors.New("away")
			}
			return nil
		}}
		cfg := config(db, bus.Provider())
		cfg.Lease, cfg.Poll = 6*time.Second, time.Second
		b := mustOpen(t, cfg)
		rec := carillontest.Record(t, b, define())
		away.Store(true)
		time.Sleep(30 * time.Second)
		if !b.Status().Isolated {
			t.Fatal("not isolated")
		}
		away.Store(false)
		time.Sleep(5 * time.Second)
		b.Enable()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(rec.Missed()) == 0 {
			t.Error("was isolated between in step and Enable, and nobody is told")
		}
	})
}

// A database in which the keys cannot be read, but rows can be written.
func TestRejoin_LeavesNoRowsBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		var broken atomic.Bool
		db := &hookedDB{Database: mem, before: func(_ context.Context, call string) error {
			if broken.Load() && call == "Sites" {
				return site.ErrSecret // exchanged for a key-encryption key that this one does not have
			}
			return nil
		}}
		b := mustOpen(t, config(db, bus.Provider()))
		b.Enable()
		broken.Store(true)
		if err := mem.Leave(t.Context(), openRows(t, mem)[0].Stream, site.Mark{}); err != nil {
			t.Fatal(err)
		}
		for range 6 {
			time.Sleep(20 * time.Second)
		}
		if n := len(openRows(t, mem)); n > 3 {
			t.Errorf("%d open rows of one instance", n)
		}
	})
}

// Another site is registered between this instance's reading of the keys and its snapshot.
func TestOpen_ASiteRegisteredMeanwhileIsAccepted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bus := site2()
		d := define()
		var other *carillon.Broker
		db := &hookedDB{Database: mem, before: func(_ context.Context, call string) error {
			if call == "Snapshot" && other == nil {
				cfg := config(mem, bus.Provider())
				cfg.Site = "another"
				done := make(chan struct{})
				go func() { // its HELLO to the one that opens is not answered for 2 s
					defer close(done)
					var err error
					if other, err = carillon.Open(context.Background(), cfg); err != nil {
						t.Error(err)
					}
				}()
				<-done
			}
			return nil
		}}
		b := mustOpen(t, config(db, bus.Provider()))
		defer other.Close()
		rec := carillontest.Record(t, b, d)
		b.Enable()
		other.Enable()
		time.Sleep(time.Minute)
		raise(t, d, other, 1, 5)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(rec.Raised())+len(rec.Missed()) == 0 {
			t.Error("the events of a site that is accepted are lost in silence")
		}
	})
}
