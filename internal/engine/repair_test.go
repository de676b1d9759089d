package engine

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// arrive has m receive a frame of n events of stream, and returns it.
func arrive(m *Machine, stream site.StreamID, now time.Time, number, ordinal uint64, n int, fx *Effects) (Verdict, []byte) {
	var b wire.Builder
	b.Reset(64<<10, 32)
	for i := range n {
		b.Append(&wire.Event{ID: wire.ID{byte(ordinal) + byte(i)}, Payload: make([]byte, 100)})
	}
	frame := b.Finish(wire.Header{Type: wire.TypeEvents, Key: 1, Site: testSite, Stream: stream, Number: number, Ordinal: ordinal})
	h, err := wire.ParseHeader(frame)
	if err != nil {
		panic(err)
	}
	return m.Receive(now, h, frame, wire.Body(frame, 32), fx), frame
}

// tell has m hear another control frame of stream.
func tell(m *Machine, stream site.StreamID, now time.Time, c wire.Control, fx *Effects) Verdict {
	h := wire.Header{Type: c.Type(), Site: testSite, Stream: stream, Number: m.byStream[stream].control.high + 1}
	return m.Receive(now, h, nil, c.Append(nil), fx)
}

// live is a heartbeat of stream that counts as a sign of life.
func live(m *Machine, stream site.StreamID, now time.Time, number uint64, mark site.Mark, fx *Effects) {
	h := wire.Header{Type: wire.TypeHeartbeat, Site: testSite, Stream: stream, Number: number}
	m.Receive(now, h, nil, wire.Heartbeat{Mark: mark}.Append(nil), fx)
}

// passes ticks m whenever it wants to be until end, and calls each after every
// tick, with what came of that.
func passes(m *Machine, end time.Time, fx *Effects, each func(now time.Time)) {
	for at := m.Next(); !at.IsZero() && !at.After(end); at = m.Next() {
		m.Tick(at, fx)
		each(at)
		fx.Reset()
	}
}

// joined makes n more streams known to m.
func joined(m *Machine, now time.Time, n int, fx *Effects) (streams []site.StreamID) {
	for i := range n {
		s := site.NewStreamID(100+uint64(i), 1)
		streams = append(streams, s)
		m.Members(now, []site.Member{{Site: testSite, Stream: s, State: site.MemberOpen}}, false, fx)
	}
	fx.Reset()
	return streams
}

// sent raises n events of size bytes, each in a frame of its own, and hands
// all of them on.
func sent(t *testing.T, m *Machine, now time.Time, n, size int, fx *Effects) (frames []*Frame) {
	t.Helper()
	for range n {
		if _, err := m.Raise(now, &wire.Event{ID: wire.ID{byte(len(frames))}, Payload: make([]byte, size)}, false); err != nil {
			t.Fatal(err)
		}
		frames = m.Take(now, frames)
		m.Handed(now, frames[len(frames)-1].Number, fx)
	}
	fx.Reset()
	return frames
}

func nakOf(s site.StreamID, first, last uint64) wire.NAK {
	return wire.NAK{Stream: s, Ranges: []wire.Range{{First: first, Last: last}}}
}

func TestNAK_AsksTheSenderAMomentAfterTheLoss(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.RepairDelay = 20 * time.Millisecond
	arrive(m, other, now, 1, 0, 1, fx)
	arrive(m, other, now, 5, 4, 1, fx)
	passes(m, now.Add(m.cfg.RepairDelay-1), fx, func(at time.Time) {
		if got := spoken[wire.NAK](t, fx); len(got) > 0 {
			t.Fatalf("asked %+v after %v, when it may only have been overtaken", got, at.Sub(now))
		}
	})
	m.Tick(now.Add(m.cfg.RepairDelay+askFirst), fx)
	got := spoken[wire.NAK](t, fx)
	if len(got) != 1 || got[0].Stream != other || got[0].Anyone || !slices.Equal(got[0].Ranges, []wire.Range{{First: 2, Last: 4}}) {
		t.Errorf("asked %+v, want once, the sender alone, for frames 2 to 4", got)
	}
	for _, c := range fx.Control {
		if h, _ := wire.ParseHeader(c.Frame); h.Type == wire.TypeNAK && c.To != other {
			t.Errorf("the NAK goes to %v, want the sender", c.To)
		}
	}
}

func TestNAK_IsRepeatedUntilTheGapIsGivenUp(t *testing.T) {
	m, other, now, fx := pair(t)
	arrive(m, other, now, 2, 1, 1, fx)
	said, last := 0, now
	passes(m, now.Add(m.cfg.MissedAfter), fx, func(at time.Time) {
		if len(spoken[wire.NAK](t, fx)) > 0 {
			if said++; at.Sub(last) > askMost {
				t.Errorf("%v between two NAKs, more than %v", at.Sub(last), askMost)
			}
			last = at
		}
	})
	if said < int(m.cfg.MissedAfter/askMost) {
		t.Errorf("asked %d times in %v", said, m.cfg.MissedAfter)
	}
	passes(m, now.Add(time.Minute), fx, func(at time.Time) {
		if got := spoken[wire.NAK](t, fx); len(got) > 0 {
			t.Errorf("asked for %+v %v after it was given up", got, at.Sub(now)-m.cfg.MissedAfter)
		}
	})
}

func TestNAK_BackOffIsRandomAndRarelyShortAmongMany(t *testing.T) {
	m, _, now, fx := pair(t)
	joined(m, now, 100, fx)
	const spread, tries = time.Second, 2000
	seen, short := map[time.Duration]bool{}, 0
	for range tries {
		d := m.backoff(spread)
		if d < 0 || d > spread {
			t.Fatalf("%v, not between 0 and %v", d, spread)
		}
		if seen[d] = true; d < spread/2 {
			short++
		}
	}
	if len(seen) < tries/2 {
		t.Errorf("%d different times in %d: those who lose the same all ask at once", len(seen), tries)
	}
	if short == 0 || short > tries/5 {
		t.Errorf("%d of %d in the first half; with 100 members want few, and some", short, tries)
	}
}

// crowd is a machine that loses what others lose too, and a stream with a gap.
func crowd(t *testing.T, seed uint64) (m *Machine, other site.StreamID, all []site.StreamID, now time.Time, fx *Effects) {
	cfg := testConfig(site.NewStreamID(1, 1), seed)
	cfg.SharedLoss, cfg.MissedAfter = true, time.Minute
	m, other, now, fx = New(cfg), site.NewStreamID(2, 2), time.Unix(0, 0), &Effects{}
	m.Start(now, nil, fx)
	m.Members(now, []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen}}, false, fx)
	all = joined(m, now, 2*fewPeers, fx)
	arrive(m, other, now, 4, 3, 1, fx)
	return m, other, all, now, fx
}

func TestNAK_IsPutOffWhenAnotherHasAskedForTheSame(t *testing.T) {
	early := 0
	for seed := range uint64(50) {
		m, other, all, now, fx := crowd(t, seed)
		g := &m.byStream[other].gaps[0]
		if g.at.Before(now.Add(askFirst / 2)) {
			early++
		}
		was := g.at
		if tell(m, all[0], now, nakOf(other, 2, 3), fx); !g.at.Equal(was) {
			t.Fatal("put off by a NAK that asks for a part only")
		}
		if tell(m, all[0], now, nakOf(other, 1, 3), fx); g.at.Before(now.Add(askFirst / 2)) {
			t.Fatalf("seed %d: will ask %v after another has asked for the same", seed, g.at.Sub(now))
		}
	}
	if early == 0 {
		t.Error("no seed shows anything: all would have asked late anyway")
	}
}

func TestNAK_IsPutOffTwiceOnly(t *testing.T) {
	m, other, all, now, fx := crowd(t, 1)
	for d := time.Duration(0); d < time.Second; d += 5 * time.Millisecond {
		tell(m, all[0], now.Add(d), nakOf(other, 1, 3), fx)
		m.Tick(now.Add(d), fx)
		if got := spoken[wire.NAK](t, fx); len(got) > 0 {
			return
		}
		fx.Reset()
	}
	t.Error("somebody whose NAKs are not answered keeps this instance from asking")
}

func TestNAK_LetsAnybodyAnswerForASilentSender(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.MissedAfter = time.Minute
	now = now.Add(3 * heartbeatIdle)
	hear(m, other, now, wire.Heartbeat{Mark: site.Mark{Frame: 2, Next: 2}}, fx) // too old to be a sign of life
	m.Tick(now.Add(askMost), fx)
	if got := spoken[wire.NAK](t, fx); len(got) != 1 || !got[0].Anyone {
		t.Errorf("asked %+v, want anybody who has it", got)
	}

	m, other, now, fx = pair(t)
	tell(m, other, now, wire.Bye{Mark: site.Mark{Frame: 2, Next: 2}}, fx)
	m.Tick(now.Add(askMost), fx)
	if got := spoken[wire.NAK](t, fx); len(got) != 1 || !got[0].Anyone {
		t.Errorf("after a goodbye asked %+v, want anybody who has it", got)
	}
}

func TestNAK_LetsAnybodyAnswerForASenderThatHearsNone(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.MissedAfter = time.Minute
	arrive(m, other, now, 2, 1, 1, fx)
	alone, beat := 0, uint64(0)
	for at := m.Next(); at.Before(now.Add(10 * time.Second)); at = m.Next() {
		m.Tick(at, fx)
		beat++
		live(m, other, at, beat, site.Mark{Frame: 2, Next: 2}, fx)
		for _, n := range spoken[wire.NAK](t, fx) {
			if n.Anyone {
				if alone < askAnyone {
					t.Errorf("asked anybody after %d NAKs to a sender that lives", alone)
				}
				return
			}
			alone++
		}
		fx.Reset()
	}
	t.Errorf("asked the sender %d times in vain, and nobody else", alone)
}

func TestRTT_IsMeasuredOfNAKsSaidOnce(t *testing.T) {
	m, other, now, fx := pair(t)
	p := m.byStream[other]
	arrive(m, other, now, 2, 1, 1, fx)
	at := p.gaps[0].at
	m.Tick(at, fx)
	arrive(m, other, at.Add(7*time.Millisecond), 1, 0, 1, fx)
	if p.rtt != 7*time.Millisecond {
		t.Errorf("measured %v, want the 7 ms from the NAK to the repair", p.rtt)
	}
	now = at.Add(time.Second)
	arrive(m, other, now, 4, 3, 1, fx)
	for range 2 {
		m.Tick(p.gaps[0].at, fx)
	}
	arrive(m, other, now.Add(time.Second), 3, 2, 1, fx)
	if p.rtt != 7*time.Millisecond {
		t.Errorf("measured %v from two NAKs, of which nobody knows which one was answered", p.rtt)
	}
	if p.askTime() != 4*7*time.Millisecond {
		t.Errorf("NAKs are spread over %v, want four round trips", p.askTime())
	}
}

func TestInDoubt_IsToldOnceAQuarterSecondAfterTheLoss(t *testing.T) {
	m, other, now, fx := pair(t)
	arrive(m, other, now, 2, 1, 1, fx)
	var told []time.Duration
	passes(m, now.Add(50*time.Millisecond), fx, func(time.Time) {})
	arrive(m, other, now.Add(50*time.Millisecond), 4, 3, 1, fx)
	passes(m, now.Add(m.cfg.MissedAfter-1), fx, func(at time.Time) {
		for range fx.InDoubt {
			told = append(told, at.Sub(now))
		}
	})
	// The second gap is told of when it may be: a notice after the first.
	if want := []time.Duration{doubtAfter, 2 * doubtAfter}; !slices.Equal(told, want) {
		t.Errorf("told after %v, want %v", told, want)
	}
	m, other, now, fx = pair(t)
	tell(m, other, now, wire.Heartbeat{Mark: site.Mark{Frame: 3}}, fx) // frames without events
	passes(m, now.Add(m.cfg.MissedAfter-1), fx, func(time.Time) {
		if len(fx.InDoubt) > 0 {
			t.Error("told of a gap in which there is no event")
		}
	})
}

func TestRepair_GoesToWhoAsksAndToAllWhenSeveralDo(t *testing.T) {
	m, other, now, fx := pair(t)
	third := joined(m, now, 1, fx)[0]
	frames := sent(t, m, now, 3, 100, fx)
	expect := func(when string, to ...site.StreamID) {
		t.Helper()
		var got []site.StreamID
		for _, r := range fx.Repairs {
			got = append(got, r.To)
			if !bytes.Equal(r.Frame, frames[1].Bytes) {
				t.Errorf("%s: repaired with another frame", when)
			}
		}
		if !slices.Equal(got, to) {
			t.Errorf("%s: repaired for %v, want %v", when, got, to)
		}
		fx.Reset()
	}
	tell(m, other, now, nakOf(m.cfg.Stream, 2, 2), fx)
	expect("first NAK", other)
	now = now.Add(repairHold - 1)
	tell(m, other, now, nakOf(m.cfg.Stream, 2, 2), fx)
	expect("while the repair is on its way")
	tell(m, third, now, nakOf(m.cfg.Stream, 2, 2), fx)
	expect("when another misses it too", site.StreamID{})
	tell(m, other, now.Add(repairHold), nakOf(m.cfg.Stream, 2, 2), fx)
	expect("when the repair was lost", other)
}

func TestRepair_OfASharedLossGoesToAll(t *testing.T) {
	m, _, all, now, fx := crowd(t, 1)
	sent(t, m, now, 1, 100, fx)
	tell(m, all[0], now, nakOf(m.cfg.Stream, 1, 1), fx)
	if len(fx.Repairs) != 1 || fx.Repairs[0].To != (site.StreamID{}) {
		t.Errorf("%+v, want one repair for everybody: others were put off by the NAK", fx.Repairs)
	}
}

func TestRepair_LeavesAloneWhatIsBeingSent(t *testing.T) {
	m, other, now, fx := pair(t)
	for range 3 {
		if _, err := m.Raise(now, &wire.Event{}, false); err != nil {
			t.Fatal(err)
		}
		m.Take(now, nil)
	}
	m.Handed(now, 1, fx)
	tell(m, other, now, nakOf(m.cfg.Stream, 2, 3), fx)
	tell(m, other, now, nakOf(m.cfg.Stream, 1, 3), fx)
	if len(fx.Repairs) != 1 {
		t.Errorf("%d repairs, want frame 1 alone: the others may not be sealed yet", len(fx.Repairs))
	}
}

func TestRepair_KeepsToItsBudgetAndToReceiversBuffers(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.FrameBytes, m.cfg.MissedAfter = 32<<10, time.Hour
	sent(t, m, now, 200, 30000, fx) // 6 MB
	start := now.Add(time.Minute)
	bytes := 0
	for d := time.Duration(0); d < 20*time.Second; d += 10 * time.Millisecond {
		tell(m, other, start.Add(d), nakOf(m.cfg.Stream, 1, 200), fx)
		m.Tick(start.Add(d), fx)
		burst := 0
		for _, r := range fx.Repairs {
			burst += len(r.Frame)
		}
		if burst > 2*resendBurst { // of two calls
			t.Fatalf("%d bytes of repairs at once", burst)
		}
		bytes += burst
		fx.Reset()
	}
	if least, most := 25*repairLeast, 31*repairLeast; bytes < least || bytes > most {
		t.Errorf("repaired %d bytes in 20 s, want about those of 20 s and of the 10 s saved up: %d to %d", bytes, least, most)
	}
}

func TestRepair_BudgetGrowsWithWhatIsSent(t *testing.T) {
	m, _, now, fx := pair(t)
	m.cfg.FrameBytes = 32 << 10
	total := 0.0
	for range 10 {
		for _, f := range sent(t, m, now, 30, 30000, fx) {
			total += float64(len(f.Bytes))
		}
		now = now.Add(time.Second)
	}
	if got, want := m.repairRate(now), 2*total/10; got < 0.8*want || got > want {
		t.Errorf("%v bytes/s, want about %v: twice what was sent", got, want)
	}
	if got := m.repairRate(now.Add(time.Minute)); got != repairLeast {
		t.Errorf("%v bytes/s after a minute of silence, want %v", got, repairLeast)
	}
}

func TestRepair_QueueIsBounded(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.FrameBytes = 32 << 10
	n := 12 << 20 / 30000
	sent(t, m, now, n, 30000, fx)
	tell(m, other, now, nakOf(m.cfg.Stream, 1, uint64(n)), fx)
	if m.again.bytes > maxResend {
		t.Errorf("%d bytes of repairs wait, more than %d", m.again.bytes, maxResend)
	}
	if len(m.again.queue) == 0 {
		t.Error("none waits: this test shows nothing")
	}
}

func TestRepair_TheOldStreamIsStillRepaired(t *testing.T) {
	m, other, now, fx := pair(t)
	old := m.cfg.Stream
	frames := sent(t, m, now, 2, 100, fx)
	m.Renumber(now, site.NewStreamID(9, 9), fx)
	fx.Reset()
	tell(m, other, now, nakOf(old, 2, 2), fx)
	if len(fx.Repairs) != 1 || !bytes.Equal(fx.Repairs[0].Frame, frames[1].Bytes) {
		t.Errorf("%d repairs of the stream before, want frame 2", len(fx.Repairs))
	}
}

func TestGone_NamesWhatTheRingHadToDrop(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.RingFrames = 4
	for i := range byte(10) {
		if _, err := m.Raise(now, &wire.Event{ID: wire.ID{i / 2}}, false); err != nil {
			t.Fatal(err)
		}
		m.Handed(now, m.Take(now, nil)[0].Number, fx)
	}
	fx.Reset()
	tell(m, other, now, nakOf(m.cfg.Stream, 2, 8), fx)
	want := wire.Gone{Frames: wire.Range{First: 2, Last: 6}, FirstOrdinal: 1, NextOrdinal: 6, Complete: true,
		Events: []wire.EventCount{{ID: wire.ID{0}, Count: 1}, {ID: wire.ID{1}, Count: 1}, {ID: wire.ID{1}, Count: 1}, {ID: wire.ID{2}, Count: 1}, {ID: wire.ID{2}, Count: 1}}}
	got := spoken[wire.Gone](t, fx)
	if len(got) != 1 || got[0].Frames != want.Frames || got[0].FirstOrdinal != want.FirstOrdinal || got[0].NextOrdinal != want.NextOrdinal ||
		!got[0].Complete || !slices.Equal(got[0].Events, want.Events) {
		t.Errorf("said %+v, want %+v", got, want)
	}
	if len(fx.Repairs) != 2 {
		t.Errorf("%d repairs, want frames 7 and 8", len(fx.Repairs))
	}
}

func TestGone_IsRememberedWithinBounds(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.RingFrames = 2
	frames := maxEvicted + 1000
	for range frames {
		if _, err := m.Raise(now, &wire.Event{}, false); err != nil {
			t.Fatal(err)
		}
		m.Handed(now, m.Take(now, nil)[0].Number, fx)
		m.byStream[other].counts = false
	}
	if r := &m.send.ring; r.runs > maxEvicted || len(r.evicted) > maxEvicted || len(r.evicted) < maxEvicted/2 {
		t.Errorf("%d evictions with %d runs are remembered, want at most %d, and most of them", len(r.evicted), r.runs, maxEvicted)
	}
	fx.Reset()
	tell(m, other, now, nakOf(m.cfg.Stream, 1, uint64(frames)), fx)
	if got := spoken[wire.Gone](t, fx); len(got) < 1 || got[0].Frames.First != 1 || got[0].Complete || got[0].FirstOrdinal != 0 || got[0].NextOrdinal != got[0].Frames.Last {
		t.Errorf("said %+v, want first that nothing is known of the first frames but their count", got)
	}
	now = now.Add(goneFor + time.Second)
	sent(t, m, now, 1, 8, fx)
	if n := len(m.send.ring.evicted); n > 1 {
		t.Errorf("%d evictions are remembered after %v", n, goneFor)
	}
}

func TestGone_IsMissedByName(t *testing.T) {
	m, other, now, fx := pair(t)
	arrive(m, other, now, 1, 0, 1, fx)
	arrive(m, other, now, 5, 8, 1, fx) // frames 2 to 4 are missing, events 1 to 7
	fx.Reset()
	a, b := wire.ID{1}, wire.ID{2}
	gone := wire.Gone{Frames: wire.Range{First: 1, Last: 3}, NextOrdinal: 5, Complete: true, Events: []wire.EventCount{{ID: a, Count: 2}, {ID: b, Count: 3}}}
	if v := tell(m, other, now, gone, fx); v != Accepted {
		t.Fatalf("%v", v)
	}
	var got []Missed
	for _, it := range fx.Items {
		got = append(got, *it.Missed)
	}
	want := []Missed{
		{Site: testSite, Stream: other, Reason: ReasonEvicted, Event: a, Known: true, First: 1, Last: 1, Count: 1, Exact: true},
		{Site: testSite, Stream: other, Reason: ReasonEvicted, Event: b, Known: true, First: 2, Last: 4, Count: 3, Exact: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("missed %+v, want %+v", got, want)
	}
	fx.Reset()
	if tell(m, other, now, gone, fx); len(fx.Items) > 0 {
		t.Errorf("missed %+v again", fx.Items)
	}
	if v, _ := arrive(m, other, now, 3, 2, 3, fx); v != Late {
		t.Errorf("a frame that is gone arrives: %v, want Late", v)
	}
	if v, _ := arrive(m, other, now, 4, 5, 3, fx); v != Accepted {
		t.Errorf("a frame that is not gone arrives: %v", v)
	}
}

func TestGone_ThatContradictsTheGapIsRefused(t *testing.T) {
	for _, gone := range []wire.Gone{
		{Frames: wire.Range{First: 3, Last: 4}, FirstOrdinal: 0, NextOrdinal: 8}, // begins below the gap
		{Frames: wire.Range{First: 2, Last: 3}, FirstOrdinal: 1, NextOrdinal: 9}, // ends above it
		{Frames: wire.Range{First: 3, Last: 3}, FirstOrdinal: 5, NextOrdinal: 4}, // runs backwards
	} {
		m, other, now, fx := pair(t)
		arrive(m, other, now, 1, 0, 1, fx)
		arrive(m, other, now, 5, 8, 1, fx)
		fx.Reset()
		c := m.gone(now, m.byStream[other], gone, fx)
		if c != Inconsistent || len(fx.Items) > 0 || len(m.byStream[other].gaps) != 1 {
			t.Errorf("%+v: %v, told %+v, gaps %v; want it refused", gone, c, fx.Items, m.byStream[other].gaps)
		}
	}
}

func TestACK_OfAnotherStreamTellsThatItsFramesExist(t *testing.T) {
	m, other, now, fx := pair(t)
	third := joined(m, now, 1, fx)[0]
	tell(m, third, now, wire.ACK{Entries: []wire.ACKEntry{{Stream: other, Mark: site.Mark{Frame: 2, Next: 2}}}}, fx)
	if p := m.byStream[other]; p.high.Frame != 2 || len(p.gaps) != 1 {
		t.Errorf("%v, want frames 1 and 2 missing: somebody has them", p)
	}
}

func TestACK_EndsBelowTheFirstGap(t *testing.T) {
	m, other, now, fx := pair(t)
	arrive(m, other, now, 1, 0, 1, fx)
	arrive(m, other, now, 3, 2, 1, fx)
	m.Tick(now.Add(ackEvery), fx)
	if got := spoken[wire.ACK](t, fx); len(got) != 1 || got[0].Entries[0].Mark != (site.Mark{Frame: 1, Next: 1}) {
		t.Errorf("acknowledged %+v, want frame 1: frame 2 is missing", got)
	}
}

func TestMembers_ANewcomersRowTellsWhatWasLostOfItsBeginning(t *testing.T) {
	m, _, now, fx := pair(t)
	late := site.NewStreamID(9, 9)
	m.Members(now, []site.Member{{Site: testSite, Stream: late, State: site.MemberOpen, Mark: site.Mark{Frame: 3, Next: 5}}}, false, fx)
	if p := m.byStream[late]; p.base != (site.Mark{}) || len(p.gaps) != 1 || p.gaps[0].next != 5 {
		t.Errorf("%v, want the baseline 0 and events 0 to 4 missing", p)
	}
}

func TestMembers_AStreamWhoseRowWasLostIsMissed(t *testing.T) {
	m, other, now, fx := pair(t)
	lost := site.NewStreamID(9, 9)
	reset := wire.Reset{Old: lost, Mark: site.Mark{Frame: 3, Next: 3}}
	tell(m, other, now, reset, fx)
	tell(m, other, now, reset, fx)
	if len(fx.Items) != 1 || fx.Items[0].Stream != lost || fx.Items[0].Missed == nil || fx.Items[0].Missed.Exact || fx.Items[0].Missed.Reason != ReasonReset {
		t.Errorf("told %+v, want once that events of a stream nobody here knew may be missed", fx.Items)
	}
}

func TestMissed_IsExactAboveAGuessedBaselineOnlyOnceSomethingCame(t *testing.T) {
	m, other, now, fx := New(testConfig(site.NewStreamID(1, 1), 1)), site.NewStreamID(2, 2), time.Unix(0, 0), &Effects{}
	m.Start(now, []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen, Mark: site.Mark{Frame: 3, Next: 3}}}, fx)
	passes(m, now.Add(baselineWait), fx, func(time.Time) {})
	if !m.InStep() {
		t.Fatal("not in step, though the other is silent")
	}
	now = now.Add(baselineWait)
	arrive(m, other, now, 6, 5, 1, fx)
	arrive(m, other, now, 8, 7, 1, fx)
	fx.Reset()
	m.Tick(now.Add(m.cfg.MissedAfter), fx)
	if len(fx.Items) != 2 || fx.Items[0].Missed.Exact || fx.Items[0].Missed.First != 3 || !fx.Items[1].Missed.Exact {
		t.Errorf("told %+v, want events 3 and 4, which may be older than this instance, inexactly, and event 6 exactly", fx.Items)
	}
}

func TestPrecheck_RefusesReplaysBeforeTheirTagsAreComputed(t *testing.T) {
	m, other, now, fx := pair(t)
	live(m, other, now, 3, site.Mark{}, fx)
	arrive(m, other, now, 1, 0, 1, fx)
	for _, h := range []wire.Header{{Type: wire.TypeHeartbeat, Stream: other, Number: 3}, {Type: wire.TypeEvents, Stream: other, Number: 1}} {
		if v := m.Precheck(h); v != Duplicate {
			t.Errorf("%+v: %v, want Duplicate", h, v)
		}
		if h.Number++; m.Precheck(h) != Accepted {
			t.Errorf("%+v: %v, want it accepted", h, m.Precheck(h))
		}
	}
}

func TestWindow_BeyondItsBoundAFrameIsNotTaken(t *testing.T) {
	var w window
	w.begin(site.Mark{})
	now, number := time.Unix(0, 0), uint64(0)
	for range maxGaps {
		number += 2
		w.observe(now, number, number-1, 1)
	}
	if v := w.observe(now, number+2, number+1, 1); v != Full {
		t.Errorf("a frame behind %d gaps: %v, want Full", len(w.gaps), v)
	}
	for number += 2; number < 6*maxGaps; number += 2 { // one more gap holds all that is not taken
		w.observe(now, number+2, number+1, 1)
	}
	if len(w.gaps) > maxGaps+1 || w.high.Frame != number {
		t.Errorf("%d gaps and %d known to exist, want at most %d gaps, and %d", len(w.gaps), w.high.Frame, maxGaps+1, number)
	}
}

func TestFragments_OfEventsNeverCompleteAreBounded(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.HoldBytes, m.cfg.MaxEventBytes = 10_000, 10_000
	const size = 2000
	for i := range uint64(50) { // the first of two fragments of each
		h := wire.Header{Key: 1, Site: testSite, Stream: other, Number: 2*i + 1, Ordinal: i}
		frame := wire.FragmentFrame(h, wire.Fragment{Index: 0, Total: 2, Size: size, Chunk: make([]byte, size/2)}, 0)
		h, err := wire.ParseHeader(frame)
		if err != nil {
			t.Fatal(err)
		}
		m.Receive(now, h, frame, wire.Body(frame, 0), fx)
		if got := m.byStream[other].partBytes(); got > m.cfg.HoldBytes+m.cfg.MaxEventBytes {
			t.Fatalf("%d bytes of %d partial events", got, i+1)
		}
	}
	if len(fx.Items) == 0 || fx.Items[0].Missed == nil || fx.Items[0].Missed.First != 0 || fx.Items[0].Missed.Reason != ReasonOverflow {
		t.Errorf("told %+v, want the oldest missed for overflow first", fx.Items)
	}
}

func TestOrdered_WhatWaitsIsBounded(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.HoldBytes = 10_000
	for i := range uint64(50) {
		rec := wire.AppendRecord(nil, &wire.Event{ID: wire.ID{1}, Order: i + 2, Payload: make([]byte, 1000)})
		m.Receive(now, wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: other, Number: i + 2, Ordinal: i + 1, Count: 1}, nil, rec, fx)
		if got := m.byStream[other].waitLen; got > m.cfg.HoldBytes {
			t.Fatalf("%d bytes wait for the first event", got)
		}
	}
	if len(fx.Items) != 51 || fx.Items[0].Missed == nil || fx.Items[0].Missed.Reason != ReasonOverflow {
		t.Errorf("told %d items, want the first event missed for overflow, and the 50 that waited", len(fx.Items))
	}
}

func TestSilence_OnlyNewWordsOfTheSenderAreSignsOfLife(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.MissedAfter = time.Minute
	p := m.byStream[other]
	live(m, other, now, 7, site.Mark{}, fx)
	arrive(m, other, now, 3, 2, 1, fx)
	now = now.Add(3 * heartbeatIdle)
	if !m.silent(now, p) {
		t.Fatal("not silent though nothing came")
	}
	if live(m, other, now, 7, site.Mark{}, fx); !m.silent(now, p) {
		t.Error("a heartbeat heard before is taken for a sign of life")
	}
	if arrive(m, other, now, 1, 0, 1, fx); !m.silent(now, p) {
		t.Error("a repair, which another may have sent, is taken for a sign of life")
	}
	if live(m, other, now, 8, site.Mark{}, fx); m.silent(now, p) {
		t.Error("a new heartbeat is no sign of life")
	}
	now = now.Add(3 * heartbeatIdle)
	if arrive(m, other, now, 4, 3, 1, fx); m.silent(now, p) {
		t.Error("a new frame is no sign of life")
	}
}

func TestSilence_WhatGoesWithADeadSenderIsPeerLost(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.MissedAfter = 10 * time.Second
	arrive(m, other, now, 2, 1, 1, fx)
	fx.Reset()
	m.Tick(now.Add(m.cfg.MissedAfter), fx)
	if len(fx.Items) != 1 || fx.Items[0].Missed.Reason != ReasonPeerLost {
		t.Errorf("told %+v, want event 0 missed with its sender", fx.Items)
	}
}

func TestDigest_IsSaidNowAndAgainUnlessOthersSayIt(t *testing.T) {
	for _, heard := range []bool{false, true} {
		m, other, now, fx := pair(t)
		third := joined(m, now, 1, fx)[0]
		arrive(m, other, now, 1, 0, 1, fx)
		p, soon, late := m.byStream[other], 0, 0
		passes(m, now.Add(time.Minute), fx, func(at time.Time) {
			for _, d := range spoken[wire.Digest](t, fx) {
				for _, e := range d.Entries {
					switch after := at.Sub(now); {
					case e.Stream != other:
					case after < 3*heartbeatIdle || e.Mark != (site.Mark{Frame: 1, Next: 1}):
						t.Errorf("said %+v after %v", e, after)
					case after < 10*time.Second:
						soon++
					default:
						late++
					}
				}
			}
			if heard && !p.digestAt.IsZero() {
				tell(m, third, at, wire.Digest{Entries: []wire.StreamMark{{Stream: other, Mark: p.high}}}, fx)
			}
		})
		if ok := map[bool]bool{false: soon == digestTimes && late > 2 && late < 6, true: soon+late == 0}[heard]; !ok {
			t.Errorf("others say it: %v; said %d digests, and %d more in the rest of a minute", heard, soon, late)
		}
	}
}

// A heartbeat is when an instance looks for who is silent. In a large site the last of them
// comes ten seconds after the first.
func TestDigest_IsNotSaidByWhoWasToldOfTheSilenceBefore(t *testing.T) {
	for _, tt := range []struct {
		name  string
		mark  site.Mark // of the other's digest
		fewer bool      // it knows of fewer frames than we
	}{
		{"another says what we know", site.Mark{Frame: 3, Next: 3}, false},
		{"another knows less", site.Mark{Frame: 2, Next: 2}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, other, now, fx := pair(t)
			third := joined(m, now, 1, fx)[0]
			arrive(m, other, now, 1, 0, 2, fx)
			// The first of two fragments: the other exists too.
			f := wire.Fragment{Index: 0, Total: 2, Size: 100, Chunk: make([]byte, 50)}
			h := wire.Header{Type: wire.TypeFragment, Key: 1, Site: testSite, Stream: other, Number: 2, Ordinal: 2}
			m.Receive(now, h, nil, wire.Body(wire.FragmentFrame(h, f, 32), 32), fx)
			now = now.Add(3 * heartbeatIdle)
			m.heartbeatAt, m.heartbeatIn = now.Add(10*time.Millisecond), heartbeatIdle
			fx.Reset()
			tell(m, third, now, wire.Digest{Entries: []wire.StreamMark{{Stream: other, Mark: tt.mark}}}, fx)
			if p := m.byStream[other]; p.high.Frame != 3 {
				t.Errorf("the stream reaches to frame %d, want 3: its fragments were numbered at once", p.high.Frame)
			}
			advance(m, now, now.Add(digestAgain-time.Millisecond), fx)
			if got := spoken[wire.Digest](t, fx); len(got) > 0 != tt.fewer {
				t.Errorf("said %+v within a second", got)
			}
		})
	}
}

func TestDigest_WhoKnowsMoreThanAnotherSaysTellsIt(t *testing.T) {
	m, other, now, fx := pair(t)
	third := joined(m, now, 1, fx)[0]
	for i := range uint64(5) {
		arrive(m, other, now, i+1, i, 1, fx)
	}
	now = now.Add(10 * time.Second)
	passes(m, now, fx, func(time.Time) {}) // it was said a few times, and is not due again soon
	tell(m, third, now, wire.Digest{Entries: []wire.StreamMark{{Stream: other, Mark: site.Mark{Frame: 2, Next: 2}}}}, fx)
	said := false
	passes(m, now.Add(digestSpread), fx, func(time.Time) {
		for _, d := range spoken[wire.Digest](t, fx) {
			said = said || slices.Contains(d.Entries, wire.StreamMark{Stream: other, Mark: site.Mark{Frame: 5, Next: 5}})
		}
	})
	if !said {
		t.Errorf("said nothing within %v, though another knows less of a dead sender", digestSpread)
	}
}

func TestPeerRepair_AFewAnswerAndOthersTheNextTime(t *testing.T) {
	const members = 40
	var all []*Machine
	var rows []site.Member
	now := time.Unix(0, 0)
	for i := range uint64(members) {
		rows = append(rows, site.Member{Site: testSite, Stream: site.NewStreamID(i+1, 1), State: site.MemberOpen})
	}
	for _, r := range rows {
		m, fx := New(testConfig(r.Stream, 1)), Effects{}
		m.Start(now, rows, &fx)
		all = append(all, m)
	}
	asker, about := rows[3].Stream, rows[5].Stream
	answered := map[site.StreamID]bool{}
	for number := range uint64(members) {
		n := 0
		for _, m := range all {
			if m.cfg.Stream != asker && m.cfg.Stream != about && m.turn(m.byStream[asker], about, number) {
				n++
				answered[m.cfg.Stream] = true
			}
		}
		if want := answerers + (members-2)/16; n != want {
			t.Errorf("NAK %d: %d of %d answer, want %d", number, n, members, want)
		}
	}
	if len(answered) != members-2 {
		t.Errorf("%d of %d ever answer: a frame that only the others have is never repaired", len(answered), members-2)
	}
}

func TestPeerRepair_AnswersFromWhatWasKept(t *testing.T) {
	m, other, now, fx := pair(t)
	third := joined(m, now, 1, fx)[0]
	_, frame := arrive(m, other, now, 1, 0, 1, fx)
	arrive(m, other, now, 2, 1, 1, fx)
	nak := nakOf(other, 1, 1)
	if tell(m, third, now, nak, fx); len(fx.Repairs) != 0 {
		t.Error("repaired for a sender that was asked alone")
	}
	nak.Anyone = true
	if tell(m, third, now, nak, fx); len(fx.Repairs) != 1 || fx.Repairs[0].To != third || !bytes.Equal(fx.Repairs[0].Frame, frame) {
		t.Errorf("%+v, want the frame as it was received, for the one who asks", fx.Repairs)
	}
	fx.Reset()
	if tell(m, third, now.Add(repairHold-1), nak, fx); len(fx.Repairs) != 0 {
		t.Error("repaired again while the repair is on its way")
	}
}

func TestPeerRepair_KeepsWithinBounds(t *testing.T) {
	m, other, now, fx := pair(t)
	m.cfg.CacheBytes = 5000
	for i := range uint64(100) {
		arrive(m, other, now, i+1, i, 1, fx)
		if got := m.Repair(now).KeptBytes; got > m.cfg.CacheBytes {
			t.Fatalf("%d bytes of frames of others are kept", got)
		}
	}
	if m.Repair(now).KeptBytes < 4000 {
		t.Error("hardly anything is kept")
	}
	passes(m, now.Add(keptFor+5*time.Second), fx, func(time.Time) {})
	if got := m.Repair(now).KeptBytes; got != 0 {
		t.Errorf("%d bytes are kept for longer than %v", got, keptFor)
	}
}

func TestRenumber_WhatWaitedGoesOutUnderTheNewKey(t *testing.T) {
	m, _, now, fx := pair(t)
	next := site.NewStreamID(9, 9)
	for range 2 {
		if _, err := m.Raise(now, &wire.Event{Payload: make([]byte, 800)}, false); err != nil {
			t.Fatal(err)
		}
	}
	m.SetKey(now, 2, 32)
	m.Renumber(now, next, fx)
	frames := m.Take(now, nil)
	if len(frames) != 2 {
		t.Fatalf("%d frames, want 2", len(frames))
	}
	for i, f := range frames {
		h, err := wire.ParseHeader(f.Bytes)
		if err != nil || h.Key != 2 || h.Stream != next || h.Number != uint64(i)+1 || h.Ordinal != uint64(i) {
			t.Errorf("frame %d: %+v, %v; want key 2, the new stream, and numbers from its beginning", i, h, err)
		}
	}
}

func TestReset_IsSaidForAMinute(t *testing.T) {
	m, _, now, fx := pair(t)
	old := m.cfg.Stream
	sent(t, m, now, 1, 8, fx)
	m.Renumber(now, site.NewStreamID(9, 9), fx)
	said := len(spoken[wire.Reset](t, fx))
	fx.Reset()
	passes(m, now.Add(2*resetFor), fx, func(at time.Time) {
		for _, r := range spoken[wire.Reset](t, fx) {
			if said++; at.Sub(now) > resetFor || r.Old != old || r.Mark != (site.Mark{Frame: 1, Next: 1}) || r.Doubtful {
				t.Errorf("said %+v after %v", r, at.Sub(now))
			}
		}
	})
	if said < 30 {
		t.Errorf("said %d times in %v", said, resetFor)
	}
}

func TestReset_OfADoubtfulStreamEndsItAtOnceAndInexactly(t *testing.T) {
	m, other, now, fx := pair(t)
	arrive(m, other, now, 1, 0, 1, fx)
	arrive(m, other, now, 4, 4, 1, fx) // events 1 to 3 are missing
	next := joined(m, now, 1, fx)[0]
	tell(m, next, now, wire.Reset{Old: other, Mark: site.Mark{Frame: 9, Next: 9}, Doubtful: true}, fx)
	if len(fx.Items) != 1 || fx.Items[0].Missed == nil || fx.Items[0].Missed.Exact || fx.Items[0].Missed.Count != 3 || fx.Items[0].Missed.Reason != ReasonReset {
		t.Errorf("told %+v, want one inexact miss of 3 events for reset", fx.Items)
	}
	if v, _ := arrive(m, other, now, 2, 1, 1, fx); v != ClosedStream {
		t.Errorf("a frame of it: %v, want ClosedStream", v)
	}
}

func TestClone_IsWhoSaysWhatWeNeverSaid(t *testing.T) {
	m, _, now, fx := pair(t)
	handed := sent(t, m, now, 2, 8, fx)[1]
	header := func(frame []byte) wire.Header {
		h, err := wire.ParseHeader(frame)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if _, err := m.Raise(now, &wire.Event{}, false); err != nil {
		t.Fatal(err)
	}
	sealing := m.Take(now, nil)[0]
	half := slices.Clone(sealing.Bytes)
	half[len(half)-1] ^= 1 // its tag is being written

	h := header(handed.Bytes)
	m.Own(h, slices.Clone(handed.Bytes), fx)
	m.Own(header(half), half, fx)
	if fx.Cloned {
		t.Fatal("an echo of what was sent is taken for another process")
	}
	beyond, foreign, control := h, slices.Clone(handed.Bytes), wire.Header{Type: wire.TypeHeartbeat, Stream: h.Stream, Number: m.send.control + 1}
	beyond.Number = 99
	foreign[len(foreign)-40] ^= 1
	for what, clone := range map[string]struct {
		h     wire.Header
		frame []byte
	}{"a number never given": {beyond, handed.Bytes}, "other contents": {h, foreign}, "a control frame never said": {control, nil}} {
		m.cloned = false
		fx.Reset()
		if m.Own(clone.h, clone.frame, fx); !fx.Cloned {
			t.Errorf("%s went unnoticed", what)
		}
		if len(fx.Items) != 1 || fx.Items[0].Missed == nil || fx.Items[0].Stream != m.cfg.Stream || fx.Items[0].Missed.Exact {
			t.Errorf("%s: told %+v, want that events of the own stream may be missed", what, fx.Items)
		}
	}
	m.Renumber(now, site.NewStreamID(9, 9), fx)
	if got := spoken[wire.Reset](t, fx); len(got) != 1 || !got[0].Doubtful {
		t.Errorf("said %+v, want that the old stream is doubtful", got)
	}
}

func TestDistrust_EndsWhatMayBeForgedAndKeepsTheRest(t *testing.T) {
	m, other, now, fx := pair(t)
	kept := joined(m, now, 1, fx)[0]
	newcomer, stranger := site.NewStreamID(50, 1), site.NewStreamID(51, 1)
	arrive(m, other, now, 1, 0, 1, fx)
	arrive(m, other, now, 3, 4, 1, fx) // events 1 to 3 are missing
	arrive(m, kept, now, 2, 1, 1, fx)
	arrive(m, newcomer, now, 1, 0, 1, fx)
	arrive(m, stranger, now, 1, 0, 1, fx)
	fx.Reset()
	m.Distrust(now, func(s site.StreamID) bool { return s == kept || s == newcomer }, fx)
	if len(fx.Items) != 1 || fx.Items[0].Stream != other || fx.Items[0].Missed == nil || fx.Items[0].Missed.Exact || fx.Items[0].Missed.Count != 3 {
		t.Errorf("told %+v, want one inexact miss of 3 events of the stream that is not trusted", fx.Items)
	}
	if v, _ := arrive(m, other, now, 4, 5, 1, fx); v != ClosedStream {
		t.Errorf("a frame of a stream not trusted: %v, want ClosedStream", v)
	}
	if p := m.byStream[kept]; p == nil || len(p.gaps) != 1 {
		t.Errorf("%v, want the stream that is trusted as it was", p)
	}
	fx.Reset()
	for _, s := range []site.StreamID{newcomer, stranger} {
		m.Members(now, []site.Member{{Site: testSite, Stream: s, State: site.MemberOpen}}, true, fx)
	}
	if len(fx.Items) != 1 || fx.Items[0].Stream != newcomer {
		t.Errorf("told %+v of what was held, want the event of the stream that is trusted alone", fx.Items)
	}
}

func TestCluster_RepairsWhateverIsLost(t *testing.T) {
	for seed := range uint64(8) {
		c := newCluster(t, seed)
		c.tweak = func(cfg *Config) {
			cfg.MissedAfter, cfg.RepairDelay, cfg.SharedLoss = 10*time.Second, 2*time.Millisecond, seed%2 == 0
		}
		for range []int{3, 3, 5, 12}[seed%4] {
			c.start()
		}
		c.run(3 * time.Second)
		c.loss = []float64{0.2, 0.5}[seed/4]
		for range 300 {
			c.nodes[c.rand.IntN(len(c.nodes))].raise(1, 8, true)
			c.run(5 * time.Millisecond)
		}
		c.run(12 * time.Second)
		c.verify()
		if n := c.missed(); n > 0 {
			t.Errorf("seed %d: %d events missed at a loss of %v", seed, n, c.loss)
		}
	}
}

func TestCluster_SurvivorsRepairTheTailOfADeadSender(t *testing.T) {
	for seed := range uint64(5) {
		c := newCluster(t, seed)
		c.tweak = func(cfg *Config) { cfg.MissedAfter = 10 * time.Second }
		a, b, d := c.start(), c.start(), c.start()
		c.run(3300 * time.Millisecond) // rows are written at full seconds, and must not tell of the tail
		c.cut = func(_, to *node) bool { return to == d }
		for range 20 {
			a.raise(1, 8, true)
		}
		c.run(5 * time.Millisecond)
		a.crash()
		c.cut = func(_, _ *node) bool { return false }
		c.run(8 * time.Second)
		if len(b.told[a.stream]) != 20 || len(d.told[a.stream]) != 20 || len(d.misses) > 0 {
			t.Errorf("seed %d: told %d and %d of 20, missed %v; want all: somebody has them", seed, len(b.told[a.stream]), len(d.told[a.stream]), d.misses)
		}
		c.verify()
	}
}

func TestCluster_SurvivorsRepairForOneThatHasLeft(t *testing.T) {
	c := newCluster(t, 1)
	a, b, d := c.start(), c.start(), c.start()
	c.run(3300 * time.Millisecond)
	c.cut = func(_, to *node) bool { return to == d }
	for range 20 {
		a.raise(1, 8, false)
	}
	c.run(5 * time.Millisecond)
	a.leave()
	c.run(5 * time.Millisecond)
	c.cut = func(_, _ *node) bool { return false }
	c.run(8 * time.Second)
	if b.m.byStream[a.stream] != nil || len(d.told[a.stream]) != 20 || len(d.misses) > 0 {
		t.Errorf("told %d of 20, missed %v; want all: somebody has them", len(d.told[a.stream]), d.misses)
	}
}

func TestCluster_WithoutLossNothingIsAskedFor(t *testing.T) {
	c := newCluster(t, 1)
	for range 4 {
		c.start()
	}
	for range 100 {
		c.nodes[c.rand.IntN(4)].raise(1, 8, false)
		c.run(20 * time.Millisecond)
	}
	c.run(10 * time.Second)
	for _, n := range c.nodes {
		if r := n.m.Repair(c.now); r.Asked+r.Resent > 0 {
			t.Errorf("%v: %+v, though nothing was lost", n.stream, r)
		}
	}
}

func TestDigest_WhoKnowsMoreTellsItOfStreamsThatEndedToo(t *testing.T) {
	m, other, now, fx := pair(t)
	third := joined(m, now, 1, fx)[0]
	arrive(m, other, now, 1, 0, 1, fx)
	tell(m, other, now, wire.Bye{Mark: site.Mark{Frame: 1, Next: 1}}, fx)
	if m.byStream[other] != nil {
		t.Fatal("the stream has not ended")
	}
	fx.Reset()
	tell(m, third, now, wire.Digest{Entries: []wire.StreamMark{{Stream: other}}}, fx) // it was cut off and knows of nothing
	told := 0
	passes(m, now.Add(time.Second), fx, func(time.Time) {
		for _, d := range spoken[wire.Digest](t, fx) {
			for _, e := range d.Entries {
				if e.Stream == other && e.Mark == (site.Mark{Frame: 1, Next: 1}) {
					told++
				}
			}
		}
	})
	if told != 1 {
		t.Errorf("told %d times how far the stream came, want once", told)
	}
}

func TestBye_SaysWhereTheStreamEnds(t *testing.T) {
	m, _, now, fx := pair(t)
	sent(t, m, now, 3, 8, fx)
	m.Bye(now, fx)
	if got := spoken[wire.Bye](t, fx); len(got) != 1 || got[0].Mark != (site.Mark{Frame: 3, Next: 3}) {
		t.Errorf("said %+v, want where its three events end", got)
	}
}
