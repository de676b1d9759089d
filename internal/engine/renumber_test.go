package engine

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// GONE is about the stream that says it, so of one that it had before, an
// instance cannot say it: receivers would give up frames of the new one.
func TestRenumber_NothingIsSaidToBeGoneOfTheOldStream(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.RingFrames = 3
	m.byStream[other].counts = false
	sent(t, m, now, 10, 8, fx)
	old := m.cfg.Stream
	tell(m, other, now, nakOf(old, 2, 2), fx)
	if len(spoken[wire.Gone](t, fx)) != 1 {
		t.Fatal("the ring has dropped nothing, so this test shows nothing")
	}
	m.Renumber(now, site.NewStreamID(77, 7), fx)
	fx.Reset()
	now = now.Add(time.Second)
	tell(m, other, now, nakOf(old, 2, 10), fx)
	if gone := spoken[wire.Gone](t, fx); len(gone) > 0 || len(fx.Repairs) != 3 {
		t.Errorf("said %+v and repaired %d frames, want nothing gone and the 3 frames that are kept", gone, len(fx.Repairs))
	}
}

// An instance loses the database and not the network, its row is reaped, and it
// ends before the database is back.
func TestReaped_WhatIsSaidLongAfterIsTold(t *testing.T) {
	for _, pause := range []time.Duration{resetFor / 2, resetFor + 2*time.Second} {
		c := newCluster(t, 1)
		a, b := c.start(), c.start()
		c.run(500 * time.Millisecond)
		a.raise(1, 8, false)
		r := a.row()
		r.State, r.Mark = site.MemberReaped, a.m.HandedMark()
		a.read = 1 << 30 // a cannot read the table
		c.run(resetFor + 2*time.Second)
		c.cut = func(_, _ *node) bool { return true }
		c.run(pause) // nothing is heard of it
		c.cut = func(_, _ *node) bool { return false }
		a.raise(1, 8, false)
		c.run(time.Second)
		a.m.Bye(c.now, &a.fx)
		a.effects()
		c.run(time.Minute)
		for o := range uint64(2) {
			if n := b.told[a.stream][o] + b.missed[a.stream][o]; n != 1 {
				t.Errorf("silent for %v: event %d was raised or missed %d times, want once", pause, o, n)
			}
		}
	}
}

// The RESET of a stream is told for a minute, whatever happens to the next one.
func TestRenumber_TheEndOfEveryOldStreamIsTold(t *testing.T) {
	for _, then := range []string{"another new stream", "shutdown", "nothing"} {
		t.Run(then, func(t *testing.T) {
			c := newCluster(t, 1)
			cut := false
			c.cut = func(_, _ *node) bool { return cut }
			a, b := c.start(), c.start()
			c.run(500 * time.Millisecond)
			a.raise(1, 8, false)
			c.run(5 * time.Second)
			r := a.row()
			r.State, r.Mark = site.MemberReaped, a.m.HandedMark()
			old := a.stream
			cut = true
			a.raise(1, 8, false) // nobody hears it
			a.renumber()
			c.run(5 * time.Second)
			switch then {
			case "another new stream":
				a.renumber()
				cut = false
			case "shutdown":
				cut = false
				a.leave()
			default:
				cut = false
			}
			c.run(2 * time.Minute)
			if n := b.told[old][1] + b.missed[old][1]; n != 1 {
				t.Errorf("the event that nobody heard was raised or missed %d times, want once", n)
			}
		})
	}
}

func TestRenumber_LeavesTheRepairBudgetAsItWas(t *testing.T) {
	m, _, now, fx := pair(t)
	for range 12 {
		sent(t, m, now, 100, 1000, fx)
		now = now.Add(time.Second)
		m.noteSent(now)
	}
	before := m.repairRate(now)
	m.Renumber(now, site.NewStreamID(77, 7), fx)
	if after := m.repairRate(now); after != before {
		t.Errorf("the budget went from %g to %g bytes/s", before, after)
	}
	m.Distrust(now, func(site.StreamID) bool { return true }, fx)
	if after := m.repairRate(now); after != before {
		t.Errorf("and by distrust to %g bytes/s", after)
	}
}

// Frames that were in hand when the stream was changed are accepted later, and
// may be lost like any other.
func TestRenumber_WhatWasInFlightIsRepaired(t *testing.T) {
	m, other, now, fx := pair(t)
	old := m.cfg.Stream
	for range 2 {
		if _, err := m.Raise(now, &wire.Event{ID: wire.ID{1}, Payload: make([]byte, 8)}, false); err != nil {
			t.Fatal(err)
		}
	}
	frames := m.Take(now, nil)
	m.Renumber(now, site.NewStreamID(77, 7), fx)
	tell(m, other, now, nakOf(old, 1, 1), fx)
	if len(fx.Repairs) > 0 {
		t.Error("a frame that no provider has accepted yet is repaired")
	}
	m.Handed(now, frames[len(frames)-1].Number, fx)
	now = now.Add(time.Second)
	tell(m, other, now, nakOf(old, 1, 1), fx)
	if len(fx.Repairs) != 1 {
		t.Errorf("repaired %d frames, want the one that was in flight", len(fx.Repairs))
	}
	if m.HandedMark() != (site.Mark{}) {
		t.Errorf("frames of the old stream count for the new one: %v", m.HandedMark())
	}
}
