package engine

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

func TestFragments_OfASenderKilledBetweenThemAreMissed(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(500 * time.Millisecond)
	if _, err := a.m.Raise(c.now, &wire.Event{ID: wire.ID{1}, Payload: make([]byte, 5000)}, false); err != nil {
		t.Fatal(err)
	}
	frames := a.m.Take(c.now, nil)
	for _, f := range frames[:3] {
		c.broadcast(a, f.Bytes, site.StreamID{})
	}
	a.crash()
	c.run(time.Minute)
	r := a.row()
	r.State = site.MemberReaped
	c.run(3 * time.Minute)
	if b.m.byStream[a.stream] != nil {
		t.Fatal("still there")
	}
	if len(b.misses) == 0 {
		t.Errorf("3 of %d fragments were heard, the stream has ended, and nobody is told of the event", len(frames))
	}
}

func TestOwn_AProcessPutBackToASnapshotIsFoundOut(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(500 * time.Millisecond)
	for range 5 {
		a.raise(1, 8, false)
		c.run(100 * time.Millisecond)
	}
	a.row().Mark = a.m.HandedMark()
	c.run(2 * time.Second)
	a.down = true

	again := &node{c: c, stream: a.stream, told: a.told, missed: a.missed, order: a.order, base: a.base}
	again.m = New(a.m.cfg)
	again.m.Start(c.now, nil, &again.fx)
	again.effects()
	c.nodes = []*node{again, b}
	c.after(time.Second, again.poll)
	c.run(2 * time.Second)
	cloned := false
	for range 3 {
		if _, err := again.m.Raise(c.now, &wire.Event{ID: wire.ID{1}, Raiser: wire.ID{9}, Payload: make([]byte, 8)}, false); err != nil {
			t.Fatal(err)
		}
		for _, f := range again.m.Take(c.now, nil) {
			c.broadcast(again, f.Bytes, site.StreamID{})
			again.m.Handed(c.now, f.Number, &again.fx)
		}
		cloned = cloned || again.fx.Cloned
		again.effects()
		c.run(100 * time.Millisecond)
	}
	c.run(5 * time.Minute)
	if !cloned && !again.m.cloned {
		t.Errorf("what it raises is taken for what it raised before: %d duplicates", b.m.counts[Duplicate])
	}
}

func TestSetKey_AppliesToWhatWaits(t *testing.T) {
	m, _, now, _ := pair(t)
	for range 50 {
		if _, err := m.Raise(now, &wire.Event{ID: wire.ID{1}, Payload: make([]byte, 1000)}, false); err != nil {
			t.Fatal(err)
		}
	}
	m.SetKey(now, 2, 22)
	old := 0
	for _, f := range m.Take(now, nil) {
		if h, err := wire.ParseHeader(f.Bytes); err != nil {
			t.Fatal(err)
		} else if h.Key == 1 {
			old++
		}
	}
	if old > 0 {
		t.Errorf("%d frames that were not sealed yet keep the old key", old)
	}
}

func TestRepair_OneProviderAwayDoesNotStopIt(t *testing.T) {
	m, other, now, fx := pair(t)
	if _, err := m.Raise(now, &wire.Event{ID: wire.ID{1}, Payload: make([]byte, 8)}, false); err != nil {
		t.Fatal(err)
	}
	frames := m.Take(now, nil)
	tell(m, other, now, nakOf(m.cfg.Stream, 1, 1), fx)
	if len(fx.Repairs) > 0 {
		t.Error("a frame that is not sealed yet is sent")
	}
	m.Sent(frames[0].Number) // through one provider; the other does not accept it, so it is not handed
	fx.Reset()
	now = now.Add(time.Second)
	tell(m, other, now, nakOf(m.cfg.Stream, 1, 1), fx)
	if len(fx.Repairs) == 0 {
		t.Error("no repair through the provider that works")
	}
}

func TestHeld_FramesOfAnotherSiteAreRefused(t *testing.T) {
	m := New(testConfig(site.NewStreamID(1, 1), 1))
	now, fx := time.Unix(0, 0), &Effects{}
	m.Start(now, nil, fx)
	victim := site.NewStreamID(2, 2)
	var b wire.Builder
	b.Reset(1200, 32)
	b.Append(&wire.Event{ID: wire.ID{66}, Payload: []byte("forged")})
	frame := b.Finish(wire.Header{Key: 1, Site: site.ID{2}, Stream: victim, Number: 1})
	h, _ := wire.ParseHeader(frame)
	m.Receive(now, h, frame, wire.Body(frame, 32), fx)
	m.Members(now, []site.Member{{Site: testSite, Stream: victim, State: site.MemberOpen}}, true, fx)
	for _, it := range fx.Items {
		t.Errorf("site %v is told to have raised %q, sealed by site %v", it.Site, it.Events.Payload(0), h.Site)
	}
}

func TestMembers_ATombstoneFromBeforeIsNoNewcomer(t *testing.T) {
	m := New(testConfig(site.NewStreamID(9, 1), 1))
	now, fx := time.Unix(0, 0), &Effects{}
	m.Start(now, nil, fx)
	fx.Reset()
	old := site.NewStreamID(2, 2)
	m.Members(now, []site.Member{{Site: testSite, Stream: old, State: site.MemberReaped, Mark: site.Mark{Frame: 3, Next: 3}}}, false, fx)
	if v, _ := arrive(m, old, now, 2, 1, 1, fx); v == Accepted {
		t.Errorf("a replayed frame of a stream that ended before this instance began is told: %d items", len(fx.Items))
	}
	m.Tick(now.Add(time.Minute), fx)
	for _, it := range fx.Items {
		if it.Missed != nil {
			t.Errorf("missed %+v", *it.Missed)
		}
	}
}

func TestFragments_TheDeadAreForgotten(t *testing.T) {
	m, other, now, fx := pair(t)
	p := m.byStream[other]
	send := func(number, ord uint64) {
		f := wire.Fragment{Index: 1, Total: 2, Size: 40, Chunk: make([]byte, 8)}
		frame := wire.FragmentFrame(wire.Header{Key: 1, Site: testSite, Stream: other, Number: number, Ordinal: ord}, f, 32)
		h, err := wire.ParseHeader(frame)
		if err != nil {
			t.Fatal(err)
		}
		m.Receive(now, h, frame, wire.Body(frame, 32), fx)
		fx.Reset()
	}
	for i := range uint64(20000) {
		send(i+3, i+2) // frames 1 and 2 are missing
	}
	if len(p.parts) > 3000 {
		t.Errorf("%d dead events are kept", len(p.parts))
	}
}

func TestRepair_WhatWaitsIsNotQueuedAgain(t *testing.T) {
	for _, receivers := range []int{1, 4} {
		c := newCluster(t, 1)
		cut := false
		c.tweak = func(cfg *Config) { cfg.MissedAfter = 10 * time.Second; cfg.SharedLoss = true }
		a := c.start()
		c.cut = func(from, to *node) bool { return cut && (from == a || to == a) }
		for range receivers {
			c.start()
		}
		c.run(2 * time.Second)
		put := func() {
			for range 100 {
				a.raise(1, 1000, false)
			}
			c.run(100 * time.Millisecond)
		}
		for range 100 { // 10 s at 1 MB/s
			put()
		}
		was := a.m.resent
		cut = true
		for range 75 { // 7.5 s more
			put()
		}
		cut = false
		c.run(time.Minute)
		if n := a.m.resent - was; c.missed() > 0 || n > 2*7500 {
			t.Errorf("%d receivers: missed %d, and resent %d frames for the 7500 that all of them lost", receivers, c.missed(), n)
		}
	}
}

func TestReset_DoubtAfterTheEndIsHeard(t *testing.T) {
	for _, first := range []wire.Control{wire.Bye{Mark: site.Mark{Frame: 2, Next: 2}}, wire.Reset{Mark: site.Mark{Frame: 2, Next: 2}}} {
		m, s, now, fx := pair(t)
		both := joined(m, now, 2, fx)
		arrive(m, s, now, 1, 0, 1, fx)
		arrive(m, s, now, 2, 1, 1, fx) // that of the original; the copy's frame 2 is taken for a duplicate
		fx.Items = nil
		if r, ok := first.(wire.Reset); ok {
			r.Old = s
			tell(m, both[0], now, r, fx)
		} else {
			tell(m, s, now, first, fx)
		}
		tell(m, both[1], now, wire.Reset{Old: s, Mark: site.Mark{Frame: 2, Next: 2}, Doubtful: true}, fx)
		if len(fx.Items) == 0 {
			t.Errorf("after %T nobody is told that events of a copied stream may be missing", first)
		}
	}
}

func TestFragments_ABrokenOneIsMissedOnce(t *testing.T) {
	for _, bad := range []int{1, 3} { // in the middle; the last
		for _, lost := range []int{-1, 2} {
			m, _, now, fx := pair(t)
			h, body := fragments(t, 0)
			for i := range h {
				if i == lost {
					continue
				}
				b := body[i]
				if i == bad {
					b = []byte{0xff}
				}
				m.Receive(now, h[i], nil, b, fx)
			}
			m.Tick(now.Add(time.Minute), fx)
			m.Members(now.Add(2*time.Minute), []site.Member{{Site: testSite, Stream: h[0].Stream, State: site.MemberClosed, Mark: site.Mark{Frame: 4, Next: 1}}}, false, fx)
			m.Tick(now.Add(4*time.Minute), fx)
			if len(fx.Items) != 1 {
				t.Errorf("fragment %d is broken, %d lost: told %d times: %+v", bad, lost, len(fx.Items), fx.Items)
			}
		}
	}
}
