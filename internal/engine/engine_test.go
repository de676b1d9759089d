package engine

import (
	"errors"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

func TestJoin_AloneIsInStepAtOnce(t *testing.T) {
	c := newCluster(t, 1)
	n := c.start()
	if !n.m.InStep() || !n.inStep.Equal(c.now) {
		t.Error("an instance without others is not in step")
	}
}

func TestJoin_InStepWhenTheOthersHaveAnswered(t *testing.T) {
	c := newCluster(t, 1)
	for range 5 {
		c.start()
		c.run(100 * time.Millisecond)
	}
	for _, n := range c.nodes {
		if !n.m.InStep() {
			t.Errorf("%v is not in step: %v", n.stream, n.m.peers)
		}
	}
}

func TestJoin_LatecomerHearsNothingFromBeforeAndMissesNothingAfter(t *testing.T) {
	c := newCluster(t, 1)
	a := c.start()
	for range 50 {
		a.raise(1, 8, false)
		c.run(time.Millisecond)
	}
	b := c.start()
	for range 200 {
		a.raise(1, 8, false)
		c.run(time.Millisecond)
	}
	c.run(10 * time.Second)
	c.verify()
	if got := c.missed(); got > 0 {
		t.Errorf("%d events missed on a network that loses nothing", got)
	}
	if b.base[a.stream].Next < 50 {
		t.Errorf("baseline at event %d; 50 had been raised before", b.base[a.stream].Next)
	}
}

func TestJoin_KilledInstancesDelayARestartForAMomentOnly(t *testing.T) {
	c := newCluster(t, 1)
	a := c.start()
	for range 10 {
		dead := c.start()
		c.run(300 * time.Millisecond)
		dead.raise(1, 8, false)
		dead.crash()
	}
	began := c.now
	n := c.start()
	c.run(time.Second)
	if waited := n.inStep.Sub(began); n.inStep.IsZero() || waited > 500*time.Millisecond {
		t.Errorf("in step after %v, with %d killed instances in the table", waited, 10)
	}
	a.raise(1, 8, false)
	c.run(5 * time.Second)
	c.verify()
}

func TestJoin_ALapsedRowIsWaitedForBriefly(t *testing.T) {
	c := newCluster(t, 1)
	c.start().crash()
	c.rows[0].Lapsed = true
	began := c.now
	n := c.start()
	c.run(3 * time.Second)
	if got := n.inStep.Sub(began); got != lapsedGrace {
		t.Errorf("in step after %v, want %v", got, lapsedGrace)
	}
}

func TestJoin_ASilentRowIsWaitedForInFull(t *testing.T) {
	c := newCluster(t, 1)
	c.start().crash()
	c.rows[0].Mark = site.Mark{Frame: 7, Next: 9}
	began := c.now
	n := c.start()
	c.run(3 * time.Second)
	if got := n.inStep.Sub(began); got != baselineWait {
		t.Errorf("in step after %v, want %v", got, baselineWait)
	}
	if got := n.base[c.rows[0].Stream]; got != c.rows[0].Mark {
		t.Errorf("baseline %v, want the mark of its row, %v", got, c.rows[0].Mark)
	}
}

// A replayed STATE, or one meant for somebody else, must not set a baseline: it
// may be older than what was sent since.
func TestJoin_OnlyAnAnswerToOurNonceSetsABaseline(t *testing.T) {
	stream, other := site.NewStreamID(1, 1), site.NewStreamID(2, 2)
	m := New(testConfig(stream, 1))
	var fx Effects
	now := time.Unix(0, 0)
	m.Start(now, []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen}}, &fx)
	state := wire.State{Mark: site.Mark{Frame: 3, Next: 3}, Nonces: []wire.ID{{1, 2, 3}}}
	m.Receive(now, wire.Header{Type: wire.TypeState, Site: testSite, Stream: other, Number: 1}, nil, state.Append(nil), &fx)
	if m.InStep() {
		t.Error("in step after a STATE that answers another nonce")
	}
	state.Nonces = []wire.ID{m.join.nonce}
	m.Receive(now, wire.Header{Type: wire.TypeState, Site: testSite, Stream: other, Number: 2}, nil, state.Append(nil), &fx)
	if !m.InStep() || m.byStream[other].base != state.Mark {
		t.Errorf("baseline %v after the STATE that answers our nonce, want %v", m.byStream[other].base, state.Mark)
	}
	state.Mark = site.Mark{Frame: 9, Next: 9}
	m.Receive(now, wire.Header{Type: wire.TypeState, Site: testSite, Stream: other, Number: 3}, nil, state.Append(nil), &fx)
	if got := m.byStream[other]; got.base.Frame != 3 || got.high.Frame != 9 {
		t.Errorf("a later STATE: %v, want the baseline unmoved and what is known to exist raised", got)
	}
}

func TestHeartbeat_TheLastMessageBeforeSilenceIsMissedWhenLost(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(3 * time.Second)
	a.raise(1, 8, false)
	c.run(300 * time.Millisecond) // the member table is read at full seconds: not in what follows
	c.loss = 1
	c.deafen(a)
	a.raise(1, 8, false)
	c.run(10 * time.Millisecond)
	c.loss = 0
	c.run(200 * time.Millisecond)
	if b.m.Peers()[0].Gaps != 1 {
		t.Errorf("200 ms after the loss the gap is not known: %v", b.m.peers)
	}
	c.run(3 * time.Second)
	c.verify()
	if len(b.misses) != 1 || b.misses[0].First != 1 || b.misses[0].Count != 1 || b.misses[0].Reason != ReasonTimeout {
		t.Errorf("misses %+v, want event 1 once, for timeout", b.misses)
	}
}

func TestMissed_IsExactAndSaidOnceAtTheTimeout(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	a.raise(1, 8, false)
	c.run(10 * time.Millisecond)
	c.loss = 1
	c.deafen(a)
	for range 7 {
		a.raise(1, 8, false)
	}
	c.loss = 0
	a.raise(1, 8, false)
	c.run(2*time.Second - time.Millisecond)
	if len(b.misses) != 0 {
		t.Fatalf("missed %+v before the timeout", b.misses)
	}
	c.run(5 * time.Millisecond)
	if len(b.misses) != 1 || b.misses[0].First != 1 || b.misses[0].Last != 7 {
		t.Errorf("misses %+v, want events 1 to 7 in one", b.misses)
	}
	c.run(time.Minute)
	c.verify()
}

func TestLeave_AGoodbyeIsNeverAGap(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	for range 20 {
		a.raise(1, 8, false)
	}
	a.leave()
	c.run(10 * time.Second)
	if len(b.misses) > 0 || len(b.told[a.stream]) != 20 || len(b.m.Peers()) != 0 {
		t.Errorf("%d told, missed %v, peers %v; want 20, none, none", len(b.told[a.stream]), b.misses, b.m.peers)
	}
}

func TestLeave_TheRowsFinalMarkFindsALostTail(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	c.loss = 1
	a.raise(1, 8, false)
	a.raise(1, 8, false)
	a.leave()
	c.run(10 * time.Second)
	if len(b.misses) != 1 || b.misses[0].Count != 2 {
		t.Errorf("misses %+v, want both events of a that nothing but its row tells of", b.misses)
	}
}

func TestRestart_IsANewStreamWithoutGapOrReplay(t *testing.T) {
	c := newCluster(t, 1)
	b := c.start()
	for range 10 {
		a := c.start()
		c.run(400 * time.Millisecond)
		for range 5 {
			a.raise(1, 8, false)
		}
		c.run(20 * time.Millisecond)
		a.crash()
	}
	c.run(10 * time.Second)
	c.verify()
	if len(b.misses) > 0 || len(b.told) != 10 {
		t.Errorf("missed %v, heard %d streams; want none, 10", b.misses, len(b.told))
	}
}

func TestOrdered_WaitsForItsOwnNumberOnly(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	c.loss = 1
	c.deafen(a)
	a.raise(1, 8, true) // lost: ordinal 0, the first of event 1
	c.loss = 0
	a.raise(2, 8, true) // the first of event 2
	a.raise(1, 8, true) // must wait
	a.raise(3, 8, false)
	c.run(100 * time.Millisecond)
	for o, want := range []int{0, 1, 0, 1} {
		if got := b.told[a.stream][uint64(o)]; got != want {
			t.Errorf("before the timeout event %d was told %d times, want %d", o, got, want)
		}
	}
	c.run(5 * time.Second)
	if b.told[a.stream][2] != 1 {
		t.Error("after Missed the event that waited was not told")
	}
	c.verify()
}

func TestOrdered_MissedComesBeforeWhatWaitedForIt(t *testing.T) {
	stream, other := site.NewStreamID(1, 1), site.NewStreamID(2, 2)
	m := New(testConfig(stream, 1))
	var fx Effects
	now := time.Unix(0, 0)
	m.Start(now, nil, &fx)
	m.Members(now, []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen}}, false, &fx)
	fx.Reset()
	rec := wire.AppendRecord(nil, &wire.Event{ID: wire.ID{1}, Order: 3})
	m.Receive(now, wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: other, Number: 3, Ordinal: 2, Count: 1}, nil, rec, &fx)
	if len(fx.Items) != 0 {
		t.Fatalf("told %+v while its predecessors may come", fx.Items)
	}
	m.Tick(now.Add(time.Minute), &fx)
	if len(fx.Items) != 2 || fx.Items[0].Missed == nil || fx.Items[1].Ordinal != 2 {
		t.Errorf("told %+v, want the miss and then event 2", fx.Items)
	}
}

func TestFragments_ABigEventArrivesWholeOrIsMissedOnce(t *testing.T) {
	for _, lost := range []uint64{0, 1, 2, 5, 8, 9} { // frame 1 to 9 carry the event of 9,000 bytes; 0: none
		c := newCluster(t, 1)
		a, b := c.start(), c.start()
		c.run(time.Second)
		c.deafen(a)
		m := a.m
		if _, err := m.Raise(c.now, &wire.Event{ID: wire.ID{1}, Payload: make([]byte, 9000)}, false); err != nil {
			t.Fatal(err)
		}
		a.raised = append(a.raised, c.now)
		frames := m.Take(c.now, nil)
		if len(frames) != 9 {
			t.Fatalf("%d frames, want 9", len(frames))
		}
		for _, f := range frames {
			if f.Number != lost {
				c.broadcast(a, f.Bytes, site.StreamID{})
			}
			m.Handed(c.now, f.Number, &a.fx)
		}
		c.run(100 * time.Millisecond)
		a.raise(1, 8, false)
		c.run(10 * time.Second)
		c.verify()
		if want := map[bool]int{true: 0, false: 1}[lost == 0]; len(b.misses) != want || b.told[a.stream][1] != 1 {
			t.Errorf("frame %d lost: misses %+v, want %d; the next event told %d times", lost, b.misses, want, b.told[a.stream][1])
		}
	}
}

func TestRaise_Bounds(t *testing.T) {
	cfg := testConfig(site.NewStreamID(1, 1), 1)
	cfg.MaxEventBytes, cfg.UnsentBytes = 1000, 3000
	m := New(cfg)
	var fx Effects
	now := time.Unix(0, 0)
	if _, err := m.Raise(now, &wire.Event{Payload: make([]byte, 1001)}, false); !errors.Is(err, ErrTooLarge) {
		t.Errorf("1001 bytes of 1000: %v, want ErrTooLarge", err)
	}
	n := 0
	for ; n < 10; n++ {
		if _, err := m.Raise(now, &wire.Event{Payload: make([]byte, 1000)}, false); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
	}
	if n != 2 {
		t.Errorf("%d events of 1000 bytes within 3000 bytes with their frames, want 2", n)
	}
	frames := m.Take(now, nil)
	m.Handed(now, frames[len(frames)-1].Number, &fx)
	if !fx.Space {
		t.Error("handing on made no space")
	}
	if ord, err := m.Raise(now, &wire.Event{Payload: make([]byte, 1000)}, false); err != nil || ord != 2 {
		t.Errorf("after handing on: ordinal %d, %v; want 2", ord, err)
	}
}

func TestPacing_ASlowReceiverPacesForABoundedTime(t *testing.T) {
	c := newCluster(t, 1)
	c.tweak = func(cfg *Config) { cfg.RingBytes = 64 << 10 }
	a, b := c.start(), c.start()
	c.run(time.Second)
	c.cut = func(from, _ *node) bool { return from == b } // b hears, and is not heard
	full := func() bool {
		for range 200 {
			n := len(a.raised)
			if a.raise(1, 1000, false); len(a.raised) == n {
				return true
			}
		}
		return false
	}
	if !full() {
		t.Fatal("200 KB unacknowledged with a ring of 64 KiB did not pace Raise")
	}
	at := a.m.Next()
	c.run(stallProgress + 10*time.Millisecond)
	if at.IsZero() || full() {
		t.Errorf("Raise is still paced %v after the receiver made progress last", stallProgress)
	}
	if got := a.m.send.ring.bytes; got > 64<<10 {
		t.Errorf("the ring holds %d bytes of 64 KiB", got)
	}
	if got := a.m.Peers()[0]; got.Counts || got.Evictions != 1 {
		t.Errorf("%+v, want a receiver that does not count, evicted once", got)
	}
	c.cut = func(_, _ *node) bool { return false }
	a.raise(1, 8, false)
	c.run(time.Second)
	if !a.m.Peers()[0].Counts {
		t.Error("a receiver that has caught up does not count again")
	}
	c.verify()
}

func TestDrained_WaitsForLiveReceiversOnly(t *testing.T) {
	c := newCluster(t, 1)
	a, b, dead := c.start(), c.start(), c.start()
	c.run(time.Second)
	if !a.m.Drained(c.now) {
		t.Error("an idle instance is not drained")
	}
	dead.crash()
	a.raise(1, 8, false)
	if a.m.Drained(c.now) {
		t.Error("drained before anybody acknowledged")
	}
	c.run(200 * time.Millisecond)
	if a.m.Drained(c.now) {
		t.Error("drained while an instance that was alive a moment ago has not acknowledged")
	}
	c.run(5 * time.Second)
	if !a.m.Drained(c.now) || a.m.byStream[b.stream].acked != a.m.send.taken {
		t.Errorf("not drained though the one live receiver has everything: %v", a.m.peers)
	}
}

func TestUnknownStream_IsHeldUntilTheMemberTableTells(t *testing.T) {
	c := newCluster(t, 1)
	b := c.start()
	c.run(time.Second)
	a := c.start()
	a.raise(1, 8, false) // b has not read the table since
	c.run(50 * time.Millisecond)
	if b.told[a.stream][0] != 1 {
		t.Errorf("the first event of a new instance was not told: %v", b.m.Counts())
	}
	c.verify()
}

func TestUnknownStream_HeardWhileHeldCountsAsHeard(t *testing.T) {
	m := New(testConfig(site.NewStreamID(1, 1), 1))
	var fx Effects
	now := time.Unix(5, 0)
	other := site.NewStreamID(2, 2)
	m.Start(now, nil, &fx)
	m.Receive(now, wire.Header{Type: wire.TypeHeartbeat, Site: testSite, Stream: other, Number: 1}, nil, wire.Heartbeat{}.Append(nil), &fx)
	m.Members(now, []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen}}, true, &fx)
	if _, err := m.Raise(now, &wire.Event{}, false); err != nil {
		t.Fatal(err)
	}
	m.Handed(now, m.Take(now, nil)[0].Number, &fx)
	if got := m.Peers()[0]; !got.HeardAt.Equal(now) || m.Drained(now) {
		t.Errorf("%+v, drained %v; want a live receiver that Shutdown waits for", got, m.Drained(now))
	}
}

func TestOrdered_WaitingKeepsNoFrameAlive(t *testing.T) {
	m, other, now, fx := pair(t)
	frame := append(wire.AppendRecord(nil, &wire.Event{ID: wire.ID{1}, Order: 2, Payload: []byte("x")}),
		wire.AppendRecord(nil, &wire.Event{ID: wire.ID{2}, Payload: make([]byte, 1000)})...)
	m.Receive(now, wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: other, Number: 2, Ordinal: 1, Count: 2}, nil, frame, fx)
	p := m.byStream[other]
	if len(p.waiting) != 1 {
		t.Fatalf("%d events wait, want 1", len(p.waiting))
	}
	clear(frame)
	if got := p.waiting[0].Events; string(got.Payload(0)) != "x" || got.BodyBytes() > 64 {
		t.Errorf("the payload is %q in a body of %d bytes: it is part of the frame", got.Payload(0), got.BodyBytes())
	}
}

func TestUnknownStream_IsDroppedWhenTheTableDoesNotKnowIt(t *testing.T) {
	m := New(testConfig(site.NewStreamID(1, 1), 1))
	var fx Effects
	now := time.Unix(0, 0)
	m.Start(now, nil, &fx)
	stranger := wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: site.NewStreamID(9, 9), Number: 1, Count: 1}
	if v := m.Receive(now, stranger, nil, nil, &fx); v != Held || !fx.AskMembers {
		t.Fatalf("%v, ask %v; want it held and the table asked", v, fx.AskMembers)
	}
	fx.Reset()
	late := stranger
	late.Stream = site.NewStreamID(9, 10)
	m.Receive(now, late, nil, nil, &fx)
	if fx.AskMembers {
		t.Error("asked again while a read is under way")
	}
	m.Members(now, nil, true, &fx)
	if got := m.Counts()[UnknownStream]; got != 1 || !fx.AskMembers {
		t.Errorf("%d dropped, ask %v; want 1 and another read for the frame that came after the first began", got, fx.AskMembers)
	}
	if v := m.Receive(now, stranger, nil, nil, &fx); v != UnknownStream {
		t.Errorf("again at once: %v, want UnknownStream", v)
	}
}

func TestUnknownStream_HeardBeforeStartIsAskedFor(t *testing.T) {
	m := New(testConfig(site.NewStreamID(1, 1), 1))
	var fx Effects
	now := time.Unix(0, 0)
	known, late := site.NewStreamID(2, 2), site.NewStreamID(3, 3)
	for _, s := range []site.StreamID{known, late} {
		m.Receive(now, wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: s, Number: 1, Count: 1}, nil, wire.AppendRecord(nil, &wire.Event{}), &fx)
	}
	if fx.AskMembers {
		t.Fatal("asked for the member table before Start")
	}
	m.Start(now, []site.Member{{Site: testSite, Stream: known, State: site.MemberOpen}}, &fx)
	if !fx.AskMembers {
		t.Error("a stream that registered after the snapshot was not asked for")
	}
	m.Members(now, []site.Member{{Site: testSite, Stream: late, State: site.MemberOpen}}, true, &fx)
	if len(fx.Items) != 1 || fx.Items[0].Stream != late {
		t.Errorf("told %+v, want the event of the latecomer", fx.Items)
	}
}

// An instance that restarts again and again is unknown each time.
func TestUnknownStream_ManyRestartsAreNotMadeToWait(t *testing.T) {
	c := newCluster(t, 1)
	c.start()
	for i := range 30 {
		n := c.start()
		c.run(300 * time.Millisecond)
		if n.inStep.IsZero() {
			t.Fatalf("restart %d is not in step after 300 ms: %v", i, n.m.peers[0])
		}
		n.crash()
	}
}

func TestUnknownStream_FloodIsBoundedInMemoryAndReads(t *testing.T) {
	cfg := testConfig(site.NewStreamID(1, 1), 1)
	m := New(cfg)
	var fx Effects
	now := time.Unix(0, 0)
	m.Start(now, nil, &fx)
	reads := 0
	for i := range 100_000 {
		now = now.Add(100 * time.Microsecond) // ten seconds in all
		h := wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: site.NewStreamID(5, uint64(i)), Number: 1, Count: 1}
		fx.Reset()
		m.Receive(now, h, nil, make([]byte, 100), &fx)
		m.Tick(now, &fx)
		if fx.AskMembers {
			reads++
			m.Members(now, nil, true, &fx)
		}
		if len(m.held.frames) > cfg.HoldFrames || m.held.bytes > cfg.HoldBytes || len(m.held.absent) > cfg.HoldFrames {
			t.Fatalf("holds %d frames, %d bytes, %d streams", len(m.held.frames), m.held.bytes, len(m.held.absent))
		}
	}
	if most := askBurst + int(10*time.Second/askEvery) + 1; reads > most {
		t.Errorf("%d reads of the member table in 10 s, want at most %d", reads, most)
	}
}

func TestGaps_AreBoundedAndNothingIsGivenUpForThat(t *testing.T) {
	m, other, fx := follow()
	now := time.Unix(0, 0)
	rec := wire.AppendRecord(nil, &wire.Event{})
	receive := func(number uint64) Verdict {
		return m.Receive(now, wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: other, Number: number, Ordinal: number - 1, Count: 1}, nil, rec, fx)
	}
	for i := range uint64(3 * maxGaps) {
		if v := receive(2 * (i + 1)); (v == Accepted) != (i < maxGaps) {
			t.Fatalf("frame %d with %d gaps open: %v", 2*(i+1), len(m.byStream[other].gaps), v)
		}
	}
	p := m.byStream[other]
	if len(p.gaps) > maxGaps+1 || len(fx.Items) != maxGaps {
		t.Errorf("%d gaps open and %d items, want at most %d and %d", len(p.gaps), len(fx.Items), maxGaps+1, maxGaps)
	}
	if v := receive(5 * maxGaps); v != Full {
		t.Errorf("a frame in the middle of a gap: %v, want Full", v)
	}
	// Once all of it has come again, all has been told.
	for number := range uint64(6 * maxGaps) {
		receive(number + 1)
	}
	if err := m.invariant(); len(p.gaps) > 0 || len(fx.Items) != 6*maxGaps || err != nil {
		t.Errorf("%d gaps, %d items of %d, %v", len(p.gaps), len(fx.Items), 6*maxGaps, err)
	}
}

func TestUndecodable_IsMissedAsAWhole(t *testing.T) {
	m := New(testConfig(site.NewStreamID(1, 1), 1))
	other := site.NewStreamID(2, 2)
	var fx Effects
	now := time.Unix(0, 0)
	m.Start(now, nil, &fx)
	m.Members(now, []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen}}, false, &fx)
	body := append(wire.AppendRecord(nil, &wire.Event{}), 0xff)
	v := m.Receive(now, wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: other, Number: 1, Count: 2}, nil, body, &fx)
	if v != Undecodable || len(fx.Items) != 1 || fx.Items[0].Missed == nil || fx.Items[0].Missed.Count != 2 || fx.Items[0].Missed.Reason != ReasonUndecodable {
		t.Errorf("%v, items %+v; want both events missed as undecodable", v, fx.Items)
	}
}

func TestRenumber_CarriesWhatWasNotTakenAndEndsTheOldStream(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	for range 3 {
		a.raise(1, 8, true)
	}
	c.run(100 * time.Millisecond)
	old := a.stream
	// Two are raised and not taken when the row is found gone.
	for i := range byte(2) {
		if _, err := a.m.Raise(c.now, &wire.Event{ID: wire.ID{1}, Payload: []byte{7: i}}, true); err != nil {
			t.Fatal(err)
		}
	}
	a.row().State = site.MemberReaped
	a.row().Mark = a.m.HandedMark()
	a.renumber()
	a.flush()
	c.run(5 * time.Second)
	if got := len(b.order[a.stream][wire.ID{1}]); got != 2 || len(b.misses) != 0 {
		t.Errorf("%d events on the new stream, misses %v; want 2 and none", got, b.misses)
	}
	if b.m.byStream[old] != nil {
		t.Errorf("the old stream is still followed: %v", b.m.byStream[old])
	}
}

func TestRenumber_WhatTheOldStreamLostIsMissedForReset(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	c.loss = 1
	c.deafen(a)
	a.raise(1, 8, false)
	c.loss = 0
	a.renumber()
	c.run(5 * time.Second)
	if len(b.misses) != 1 || b.misses[0].Reason != ReasonReset || b.misses[0].Count != 1 {
		t.Errorf("misses %+v, want the lost event, for reset", b.misses)
	}
}

func TestRenumber_WhatWasSentAfterTheRowWasReapedIsTold(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	a.row().State = site.MemberReaped // a was frozen, and does not know
	c.run(1100 * time.Millisecond)    // b does
	old := a.stream
	a.raise(1, 8, false)
	c.run(10 * time.Millisecond)
	if b.told[old][0] != 1 {
		t.Errorf("an event sent after the row was reaped was not told: %v", b.m.Counts())
	}
	c.loss = 1
	c.deafen(a)
	a.raise(1, 8, false)
	c.loss = 0
	a.renumber()
	c.run(5 * time.Second)
	if len(b.misses) != 1 || b.misses[0].First != 1 || b.m.byStream[old] != nil {
		t.Errorf("misses %+v, old stream %v; want event 1 missed and the stream forgotten", b.misses, b.m.byStream[old])
	}
}

func TestRenumber_WhatWasSentAfterTheRowWasClosedByHandIsMissed(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	a.raise(1, 8, false)
	c.run(10 * time.Millisecond)
	r := a.row()
	r.State, r.Mark = site.MemberClosed, a.m.Mark() // and a lives, and does not know yet
	c.run(1100 * time.Millisecond)
	old := a.stream
	for range 3 {
		a.raise(1, 8, false)
	}
	a.renumber()
	c.run(3 * time.Second)
	for o := uint64(1); o <= 3; o++ { // as soon as something shows it: the frames that are dropped, at the latest the RESET
		if b.missed[old][o] != 1 {
			t.Errorf("event %d missed %d times, want once", o, b.missed[old][o])
		}
	}
	if len(b.missed[old]) != 3 || b.misses[0].Reason != ReasonReset {
		t.Errorf("misses %+v, want events 1 to 3, for reset", b.misses)
	}
}

func TestMembers_TellsWhenTheOwnRowIsGone(t *testing.T) {
	m := New(testConfig(site.NewStreamID(1, 1), 1))
	var fx Effects
	m.Start(time.Unix(0, 0), nil, &fx)
	m.Members(time.Unix(0, 0), []site.Member{{Site: testSite, Stream: m.cfg.Stream, State: site.MemberReaped}}, false, &fx)
	if !fx.Gone {
		t.Error("a reaped row of our own went unnoticed")
	}
}

func TestRole_APublisherIsToldNothingAndAcknowledgesAll(t *testing.T) {
	c := newCluster(t, 1)
	c.tweak = func(cfg *Config) { cfg.Role = site.RolePublish }
	b := c.start()
	c.tweak = func(*Config) {}
	a := c.start()
	c.run(time.Second)
	a.raise(1, 8, true)
	a.raise(1, 5000, false)
	c.run(time.Second)
	if len(b.told) > 0 || len(b.misses) > 0 || !a.m.Drained(c.now) {
		t.Errorf("told %v, missed %v, drained %v; want nothing, nothing, true", b.told, b.misses, a.m.Drained(c.now))
	}
}

// pair returns a machine in step that follows one other stream from its start.
func pair(t *testing.T) (m *Machine, other site.StreamID, now time.Time, fx *Effects) {
	m, other, now, fx = New(testConfig(site.NewStreamID(1, 1), 1)), site.NewStreamID(2, 2), time.Unix(0, 0), &Effects{}
	m.Start(now, nil, fx)
	m.Members(now, []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen}}, false, fx)
	fx.Reset()
	return m, other, now, fx
}

func hear(m *Machine, from site.StreamID, now time.Time, c wire.Control, fx *Effects) Verdict {
	return m.Receive(now, wire.Header{Type: c.Type(), Site: testSite, Stream: from}, nil, c.Append(nil), fx)
}

// spoken returns the bodies of the control frames in fx that are a C.
func spoken[C wire.Control](t *testing.T, fx *Effects) (out []C) {
	t.Helper()
	for _, ctl := range fx.Control {
		h, err := wire.ParseHeader(ctl.Frame)
		if err != nil {
			t.Fatal(err)
		}
		c, err := wire.ReadControl(h.Type, wire.Body(ctl.Frame, 32))
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := c.(C); ok {
			out = append(out, c)
		}
	}
	return out
}

// A frame on its way into a provider may miss a newcomer whose connection is
// being made. If STATE named the mark of what was handed on, that frame would
// be a gap that nobody can explain.
func TestState_NamesWhatWasTakenForSending(t *testing.T) {
	m, other, now, fx := pair(t)
	if _, err := m.Raise(now, &wire.Event{}, false); err != nil {
		t.Fatal(err)
	}
	m.Take(now, nil)
	hear(m, other, now, wire.Hello{Nonce: wire.ID{7}}, fx)
	m.Tick(now.Add(time.Second), fx)
	got := spoken[wire.State](t, fx)
	if len(got) != 1 || got[0].Mark != (site.Mark{Frame: 1, Next: 1}) || got[0].Nonces[0] != (wire.ID{7}) {
		t.Errorf("said %+v, want one STATE with mark 1/1 and the nonce asked with", got)
	}
}

func TestHello_IsAnsweredByThoseAskedOnly(t *testing.T) {
	m, other, now, fx := pair(t)
	hear(m, other, now, wire.Hello{Nonce: wire.ID{7}, Streams: []site.StreamID{site.NewStreamID(8, 8)}}, fx)
	m.Tick(now.Add(time.Second), fx)
	if got := spoken[wire.State](t, fx); len(got) != 0 {
		t.Errorf("said %+v to a HELLO for somebody else", got)
	}
}

func TestHello_IsRepeatedToThoseThatHaveNotAnswered(t *testing.T) {
	m := New(testConfig(site.NewStreamID(1, 1), 1))
	var fx Effects
	start := time.Unix(0, 0)
	var rows []site.Member
	for i := range uint64(200) { // more than one UDP frame can name
		rows = append(rows, site.Member{Site: testSite, Stream: site.NewStreamID(2+i, 0), State: site.MemberOpen})
	}
	m.Start(start, rows, &fx)
	if first := spoken[wire.Hello](t, &fx); len(first) != 1 || len(first[0].Streams) != 0 {
		t.Errorf("%d HELLOs at first, want one for everybody that names nobody", len(first))
	}
	for _, c := range fx.Control {
		if len(c.Frame) > m.cfg.FrameBytes {
			t.Errorf("a HELLO of %d bytes, with frames of %d", len(c.Frame), m.cfg.FrameBytes)
		}
	}
	for _, r := range rows[1:] {
		tell(m, r.Stream, start, wire.State{Nonces: []wire.ID{m.join.nonce}}, &fx)
	}
	fx.Reset()
	said := 0
	for at := m.Next(); !m.InStep(); at = m.Next() {
		m.Tick(at, &fx)
		for _, h := range spoken[wire.Hello](t, &fx) {
			said++
			if len(h.Streams) != 1+witnesses || h.Streams[0] != rows[0].Stream {
				t.Errorf("HELLO to %v, want to the one that has not answered, and a few who may know of it", h.Streams)
			}
		}
		fx.Reset()
	}
	want := 0
	for _, at := range helloAt[1:] {
		if at > 50*time.Millisecond { // for so long the first one is being answered
			want++
		}
	}
	if said != want {
		t.Errorf("said again %d times, want %d", said, want)
	}
}

func TestACK_IsSaidAgainWhenTheSenderHasNotHeardIt(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	c.cut = func(from, _ *node) bool { return from == b }
	a.raise(1, 8, false)
	c.run(500 * time.Millisecond)
	c.cut = func(_, _ *node) bool { return false }
	c.run(1500 * time.Millisecond)
	if got := a.m.byStream[b.stream].acked; got != a.m.send.taken {
		t.Errorf("acknowledged %v of %v, though the way back is open again", got, a.m.send.taken)
	}
}

func TestACK_OfWhatWasNeverSentIsIgnored(t *testing.T) {
	m, other, now, fx := pair(t)
	hear(m, other, now, wire.ACK{Entries: []wire.ACKEntry{{Stream: m.cfg.Stream, Mark: site.Mark{Frame: 5, Next: 5}}}}, fx)
	if got := m.byStream[other].acked; got != (site.Mark{}) {
		t.Errorf("acknowledged %v of nothing", got)
	}
}

func TestACK_IsSaidAtOnceForAQuarterOfTheRing(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.RingBytes = 4096
	for i := range uint64(3) {
		rec := wire.AppendRecord(nil, &wire.Event{Payload: make([]byte, 500)})
		m.Receive(now, wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: other, Number: i + 1, Ordinal: i, Count: 1}, nil, rec, fx)
	}
	if got := spoken[wire.ACK](t, fx); len(got) != 1 || got[0].Entries[0].Mark.Frame < 2 {
		t.Errorf("said %+v after 1,500 bytes with a ring of 4,096", got)
	}
}

func TestBye_EndsTheStreamWithoutTheMemberTable(t *testing.T) {
	m, other, now, fx := pair(t)
	hear(m, other, now, wire.Bye{Mark: site.Mark{Frame: 2, Next: 3}}, fx)
	if p := m.byStream[other]; p == nil || p.open() {
		t.Fatalf("%v, want it closing, with frames 1-2 missing", p)
	}
	m.Tick(now.Add(time.Minute), fx)
	if len(fx.Items) != 1 || fx.Items[0].Missed.Count != 3 || m.byStream[other] != nil {
		t.Errorf("items %+v, peers %v; want 3 missed and the stream forgotten", fx.Items, m.peers)
	}
	if v := hear(m, other, now, wire.Heartbeat{}, fx); v != ClosedStream {
		t.Errorf("a frame after the end: %v, want ClosedStream", v)
	}
}

func TestNewcomer_OwesNothingFromBeforeItCame(t *testing.T) {
	c := newCluster(t, 1)
	c.tweak = func(cfg *Config) { cfg.RingBytes = 64 << 10 }
	a := c.start()
	for range 300 {
		a.raise(1, 1000, false)
	}
	b := c.start()
	c.run(time.Second)
	n := len(a.raised)
	if a.raise(1, 1000, false); len(a.raised) == n || !a.m.byStream[b.stream].counts {
		t.Errorf("a newcomer paces Raise for what was raised before it came: %v", a.m.peers)
	}
}

func TestRing_KeepsWhatIsNotAcknowledged(t *testing.T) {
	c := newCluster(t, 1)
	a, b := c.start(), c.start()
	c.run(time.Second)
	c.cut = func(from, _ *node) bool { return from == b }
	a.raise(1, 8, false)
	a.raise(1, 8, false)
	c.run(time.Second)
	if len(a.m.send.ring.frames) != 2 {
		t.Errorf("%d frames in the ring, want the two that are not acknowledged", len(a.m.send.ring.frames))
	}
	c.cut = func(_, _ *node) bool { return false }
	c.run(2 * time.Second)
	if len(a.m.send.ring.frames) != 0 {
		t.Errorf("%d frames in the ring, all acknowledged", len(a.m.send.ring.frames))
	}
}

func TestReceive_AStreamBelongsToOneSite(t *testing.T) {
	m, other, now, fx := pair(t)
	h := wire.Header{Type: wire.TypeEvents, Site: site.ID{9}, Stream: other, Number: 1, Count: 1}
	if v := m.Receive(now, h, nil, wire.AppendRecord(nil, &wire.Event{}), fx); v != Inconsistent || len(fx.Items) > 0 {
		t.Errorf("%v, %d items; want Inconsistent, none", v, len(fx.Items))
	}
}

// fragments returns the frames of one event of four fragments, from number 1.
func fragments(t *testing.T, ordinal uint64) (out []wire.Header, bodies [][]byte) {
	record := wire.AppendRecord(nil, &wire.Event{Payload: make([]byte, 400)})
	for i := range 4 {
		f := wire.Fragment{Index: i, Total: 4, Size: len(record), Chunk: record[i*110 : min(len(record), (i+1)*110)]}
		frame := wire.FragmentFrame(wire.Header{Key: 1, Site: testSite, Stream: site.NewStreamID(2, 2), Number: uint64(i) + 1, Ordinal: ordinal}, f, 0)
		h, err := wire.ParseHeader(frame)
		if err != nil {
			t.Fatal(err)
		}
		out, bodies = append(out, h), append(bodies, wire.Body(frame, 0))
	}
	return out, bodies
}

func TestFragments_TheRestOfAnEventGivenUpIsNotMissedAgain(t *testing.T) {
	for first := 1; first < 4; first++ { // the first fragment that arrives, after the gap before it was given up
		m, _, now, fx := pair(t)
		h, body := fragments(t, 0)
		hear(m, h[0].Stream, now, wire.Heartbeat{Mark: site.Mark{Frame: uint64(first)}}, fx)
		m.Tick(now.Add(time.Minute), fx)
		now = now.Add(time.Minute)
		for i := first; i < 4; i++ {
			m.Receive(now, h[i], nil, body[i], fx)
		}
		if len(fx.Items) != 1 || fx.Items[0].Missed == nil || fx.Items[0].Missed.Count != 1 {
			t.Errorf("fragments from %d on: %+v, want one miss", first, fx.Items)
		}
		if p := m.byStream[h[0].Stream]; len(p.parts) != 0 {
			t.Errorf("%d partial events are kept for nothing", len(p.parts))
		}
	}
}

func TestFragments_AnEventBegunBeforeTheBaselineIsNoMiss(t *testing.T) {
	m := New(testConfig(site.NewStreamID(1, 1), 1))
	var fx Effects
	now := time.Unix(0, 0)
	h, body := fragments(t, 6)
	m.Start(now, []site.Member{{Site: testSite, Stream: h[0].Stream, State: site.MemberOpen}}, &fx)
	hear(m, h[0].Stream, now, wire.State{Mark: site.Mark{Frame: 2, Next: 6}, Nonces: []wire.ID{m.join.nonce}}, &fx)
	for i := range h {
		m.Receive(now, h[i], nil, body[i], &fx)
	}
	if len(fx.Items) != 0 {
		t.Errorf("told %+v of an event that began before the baseline", fx.Items)
	}
}

// The promise, under everything that a datagram network and dying processes can
// do to it.
func TestCluster_KeepsThePromiseUnderFaults(t *testing.T) {
	const seeds = 48 // every combination twice; package sim runs many more
	for seed := range uint64(seeds) {
		c := newCluster(t, seed)
		c.loss = []float64{0, 0.02, 0.2, 0.5}[seed%4]
		c.dup = []float64{0, 0.1}[seed/4%2]
		c.delay = []time.Duration{time.Millisecond, 50 * time.Millisecond, 900 * time.Millisecond}[seed/8%3]
		for range 2 + c.rand.IntN(4) {
			c.start()
			c.run(time.Duration(c.rand.IntN(400)) * time.Millisecond)
		}
		for range 150 {
			n := c.nodes[c.rand.IntN(len(c.nodes))]
			switch r := c.rand.IntN(100); {
			case n.down:
			case r == 0:
				n.crash()
				c.start()
			case r == 1:
				n.leave()
				c.start()
			default:
				n.raise(byte(c.rand.IntN(3)), []int{8, 8, 200, 3000, 20000}[c.rand.IntN(5)], c.rand.IntN(2) == 0)
			}
			c.run(time.Duration(c.rand.IntN(30)) * time.Millisecond)
		}
		c.loss = 0              // faults stop: no gap stays open past the timeout and a heartbeat
		c.run(12 * time.Second) // or, where a sender died, past the last digest of it
		c.verify()
		for _, n := range c.nodes {
			for _, p := range n.m.Peers() {
				if !n.down && p.Gaps > 0 {
					t.Errorf("%v: gaps of %v open after the faults stopped", n.stream, p.Stream)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
