package carillon

import (
	"testing"

	"github.com/carillon-go/carillon/site"
)

func TestMissed_MergeKeepsWhatIsEqual(t *testing.T) {
	a, b := Source{Stream: site.StreamID{1}, Server: "a"}, Source{Stream: site.StreamID{2}, Server: "b"}
	x, y := ID{1}, ID{2}
	one := Missed{Event: x, Known: true, Source: a, First: 10, Last: 12, Count: 3, Exact: true, Reason: MissedTimeout, Reports: 1}
	change := func(fn func(m *Missed)) Missed {
		m := one
		fn(&m)
		return m
	}
	for _, tt := range []struct {
		name        string
		first, then Missed
		want        Missed
	}{
		{"ranges grow upwards", one, change(func(m *Missed) { m.First, m.Last, m.Count = 20, 20, 1 }),
			change(func(m *Missed) { m.Last, m.Count, m.Reports = 20, 4, 2 })},
		{"and downwards", one, change(func(m *Missed) { m.First, m.Last, m.Count = 2, 3, 2 }),
			change(func(m *Missed) { m.First, m.Count, m.Reports = 2, 5, 2 })},
		{"two events are unknown", one, change(func(m *Missed) { m.Event = y }),
			change(func(m *Missed) { m.Event, m.Known, m.Count, m.Reports = ID{}, false, 6, 2 })},
		{"known and unknown are unknown", one, change(func(m *Missed) { m.Event, m.Known = ID{}, false }),
			change(func(m *Missed) { m.Event, m.Known, m.Count, m.Reports = ID{}, false, 6, 2 })},
		{"unknown and known are unknown", change(func(m *Missed) { m.Event, m.Known = ID{}, false }), one,
			change(func(m *Missed) { m.Event, m.Known, m.Count, m.Reports = ID{}, false, 6, 2 })},
		{"two streams have no range", one, change(func(m *Missed) { m.Source = b }),
			change(func(m *Missed) { m.Source, m.First, m.Last, m.Count, m.Reports = Source{}, 0, 0, 6, 2 })},
		{"no range and a range", change(func(m *Missed) { m.Source, m.First, m.Last, m.Reports = Source{}, 0, 0, 2 }), one,
			change(func(m *Missed) { m.Source, m.First, m.Last, m.Count, m.Reports = Source{}, 0, 0, 6, 3 })},
		{"reasons differ", one, change(func(m *Missed) { m.Reason = MissedLocalQueue }),
			change(func(m *Missed) { m.Reason, m.Count, m.Reports = 0, 6, 2 })},
		{"isolated makes it inexact", one, Missed{Reason: MissedIsolated, Reports: 1},
			Missed{Count: 3, Reports: 2}},
		{"isolated first", Missed{Reason: MissedIsolated, Reports: 1}, one,
			Missed{Count: 3, Reports: 2}},
	} {
		got := tt.first
		got.merge(&tt.then)
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestQueue_ForgetsWhatWasHandedOver(t *testing.T) {
	var group running
	var got []int
	start := make(chan struct{})
	var q queue[int]
	q = queue[int]{limit: 1 << 30, group: &group, handle: func(at *int) {
		n := *at
		q.load.take(1, 1)
		if n == 0 {
			<-start
		}
		got = append(got, n)
	}}
	for n := range 10_000 {
		if !q.push(n, 1, 1) {
			t.Fatal("full")
		}
	}
	close(start)
	if idle := group.idle(); idle != nil {
		<-idle
	}
	for i, n := range got {
		if i != n {
			t.Fatalf("handed over %d in place %d", n, i)
		}
	}
	if len(got) != 10_000 || cap(q.entries) > 1024 || cap(q.batch) > 1024 || q.load.packed.Load() != 0 || q.active {
		t.Errorf("handed over %d; left %d entries, load %x, active %v", len(got), cap(q.entries), q.load.packed.Load(), q.active)
	}
}

// A queue that never runs empty must not grow: its memory is that of what waits.
func TestQueue_NeverEmptyDoesNotGrow(t *testing.T) {
	var group running
	taken, take := make(chan int), make(chan struct{})
	var q queue[int]
	q = queue[int]{limit: 1 << 30, group: &group, handle: func(n *int) {
		q.load.take(1, 1)
		<-take
		taken <- *n
	}}
	q.push(0, 1, 1)
	for n := 1; n < 100_000; n++ {
		q.push(n, 1, 1)
		take <- struct{}{}
		<-taken
	}
	q.mu.Lock()
	c := cap(q.entries)
	q.mu.Unlock()
	if c > 1024 {
		t.Errorf("room for %d entries, where two waited at most", c)
	}
	close(take)
	<-taken
}
