package carillon

import (
	"testing"
	"time"
)

// What waits for a transport that does not work is bounded in bytes and in number, and what is dropped is not
// waited for.
func TestLane_IsBounded(t *testing.T) {
	var l lane
	l.init()
	first := newShipment([][]byte{make([]byte, 100)})
	l.push(first, true)
	var all []*shipment
	for range 100 {
		s := newShipment([][]byte{make([]byte, laneBytes/10)})
		l.push(s, false)
		all = append(all, s)
	}
	if l.bytes > laneBytes+laneBytes/10 || len(l.shipments) > 12 {
		t.Errorf("%d bytes in %d shipments wait", l.bytes, len(l.shipments))
	}
	if l.shipments[0] != first {
		t.Error("the one in hand was dropped")
	}
	if !all[0].done() || all[0].accepted.Load() {
		t.Error("the oldest was dropped, and is waited for")
	}
	if last := all[len(all)-1]; last.done() || l.shipments[len(l.shipments)-1] != last {
		t.Error("the newest was dropped")
	}
	done := 0
	for range 2 * maxErrands {
		l.pushErrand(&errand{done: func() { done++ }})
	}
	if len(l.errands) != maxErrands || done != maxErrands {
		t.Errorf("%d errands wait and %d are given up, want %d of each", len(l.errands), done, maxErrands)
	}
	heavy := func() *errand { return &errand{bytes: laneBytes * 2 / 3, done: func() { done++ }} }
	l.pushErrand(heavy())
	l.pushErrand(heavy())
	if len(l.errands) != 1 || l.due != laneBytes*2/3 {
		t.Errorf("%d errands of %d bytes wait, want the last", len(l.errands), l.due)
	}
	l.empty()
	if done != 2*maxErrands+2 || l.due != 0 || l.bytes != 0 || len(l.shipments) != 0 || !l.busy.IsZero() || l.late {
		t.Errorf("emptied: %d errands given up, %d bytes, %d shipments, busy since %v, late %v", done, l.bytes, len(l.shipments), l.busy, l.late)
	}
	for i, s := range all {
		if s.left.Load() != 0 {
			t.Errorf("shipment %d is waited for still", i)
		}
	}
}

func TestLane_PutsOffLongerEachTime(t *testing.T) {
	var l lane
	l.init()
	now := time.Unix(0, 0)
	for i, most := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		l.putOffLocked(now)
		if d := l.retryAt.Sub(now); d < most*time.Millisecond/2 || d > most*time.Millisecond {
			t.Errorf("attempt %d is put off for %v, want half of %d ms to all of it", i+1, d, most)
		}
	}
}
