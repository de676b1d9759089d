package carillon_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider/providertest"
)

// alarmed reports whether b says that there is a copy of its database.
func alarmed(b *carillon.Broker) bool {
	return strings.Contains(strings.Join(b.Status().Problems, "\n"), "carillon site fork")
}

// Staging is restored from production while that runs, and reaches its network.
func TestGuard_AnInstanceOnACopyRefusesToStart(t *testing.T) { // G7
	for _, age := range []time.Duration{time.Second, time.Hour} { // in a young copy, the rows of the originals look alive
		t.Run(age.String(), func(t *testing.T) { refusesOnACopy(t, age) })
	}
}

func refusesOnACopy(t *testing.T, age time.Duration) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		a, b := mustOpen(t, config(db, bus.Provider())), mustOpen(t, config(db, bus.Provider()))
		a.Enable()
		b.Enable()
		d := define()
		rec := carillontest.Record(t, b, d)
		time.Sleep(time.Hour)
		copied := db.Copy()
		time.Sleep(age)

		staging, err := carillon.Open(context.Background(), config(copied, bus.Provider()))
		if err == nil {
			staging.Close()
		}
		wantErr(t, "open on the copy", err, carillon.ErrCopied)
		for _, word := range []string{"carillon site fork", "carillon site accept-restore"} {
			if err != nil && !strings.Contains(err.Error(), word) {
				t.Errorf("the error %q does not name %q", err, word)
			}
		}
		raise(t, d, a, 1, 1)
		rec.WaitRaised(1)
		if !alarmed(a) || !alarmed(b) || !a.Status().Ready {
			t.Errorf("the instances that run must raise the alarm and go on: %+v", a.Status())
		}
	})
}

// Two environments run, and somebody connects their networks.
func TestGuard_RunningInstancesRaiseTheAlarmAndHearNothingOfEachOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		a := mustOpen(t, config(db, bus.Provider()))
		a.Enable()
		time.Sleep(time.Minute)
		copied := db.Copy()
		link := providertest.Faulty(bus.Provider(), providertest.Faults{})
		link.SetPartition(providertest.Both)
		b := mustOpen(t, config(copied, link))
		b.Enable()
		d := define()
		recA, recB := carillontest.Record(t, a, d), carillontest.Record(t, b, d)
		time.Sleep(time.Minute)
		if alarmed(a) || alarmed(b) {
			t.Error("alarm before they can hear each other")
		}
		link.Heal()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !alarmed(a) || !alarmed(b) {
			t.Errorf("a %v, b %v; want alarm in both", a.Status().Problems, b.Status().Problems)
		}
		recA.Reset()
		recB.Reset()
		raise(t, d, a, 1, 10)
		raise(t, d, b, 11, 20)
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, r := range append(recA.Raised(), recB.Raised()...) {
			if !r.Local {
				t.Errorf("heard %d of the other database", r.Parameter.N)
			}
		}
	})
}

// An instance that cannot reach the database looks dead in it, and is heard.
func TestGuard_AnInstanceWithoutItsDatabaseIsNotAccused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3)
		time.Sleep(time.Minute)
		c.TakeDatabaseAway()
		time.Sleep(10 * time.Minute)
		c.BringDatabaseBack()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for i := range 3 {
			if p := c.Broker(i).Status().Problems; len(p) > 0 {
				t.Errorf("instance %d: %v", i, p)
			}
		}
	})
}

// Whoever captured a question can send it again. That must not make instances
// talk, nor read the database, as fast as the network goes.
func TestGuard_AReplayedQuestionIsHardlyAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newTarget(t)
		self := g.Members()[0].Stream
		for _, m := range g.Members() {
			if m.Self {
				self = m.Stream
			}
		}
		g.puppet.stream[15]++ // nobody has registered that one
		question := func(mine byte) []byte {
			h := g.puppet.header(1)
			h.Type, h.Ordinal, h.Count = wire.TypeWitness, 0, 0
			return g.puppet.frame(h, g.puppet.key(), wire.Witness{To: self, Mine: wire.ID{mine}}.Append(nil))
		}
		captured := question(1)
		for range 1000 {
			g.puppet.send(captured)
			g.pass(time.Millisecond)
		}
		g.pass(time.Minute)
		for range 1000 {
			g.puppet.send(captured)
			g.pass(100 * time.Millisecond)
		}
		// Five answers to the question, and five questions of its own.
		if n := len(g.puppet.frames(wire.TypeWitness)); n == 0 || n > 10 {
			t.Errorf("%d frames in answer to one question sent 2,000 times", n)
		}
	})
}
