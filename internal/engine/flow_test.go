package engine

import (
	"errors"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// eventOf returns an event whose frame has so many bytes.
func eventOf(frame int) *wire.Event {
	return &wire.Event{Payload: make([]byte, frame-wire.HeaderLen-32-len(wire.AppendRecord(nil, &wire.Event{}))-1)}
}

// paced returns a machine with a window, and so many receivers that count.
func pacedBy(t *testing.T, n int, change func(*Config)) (m *Machine, others []site.StreamID, now time.Time, fx *Effects) {
	t.Helper()
	cfg := testConfig(site.NewStreamID(1, 1), 1)
	cfg.Window = 1 << 20
	change(&cfg)
	m, now, fx = New(cfg), time.Unix(1000, 0), &Effects{}
	m.Start(now, nil, fx)
	others = joined(m, now, n, fx)
	for _, s := range others {
		tell(m, s, now, wire.Heartbeat{}, fx)
	}
	fx.Reset()
	return m, others, now, fx
}

// grants has a receiver acknowledge through a frame of ours, each of which holds one event,
// and lend a credit.
func grants(m *Machine, s site.StreamID, now time.Time, through, credit uint64, fx *Effects) {
	tell(m, s, now, wire.ACK{Entries: []wire.ACKEntry{{Stream: m.cfg.Stream, Mark: site.Mark{Frame: through, Next: through}, Credit: credit}}}, fx)
}

// raise raises n events, each of which fills a frame of 1,000 bytes, and returns how many are
// taken.
func raiseAndTake(t *testing.T, m *Machine, now time.Time, n int) int {
	t.Helper()
	for range n {
		if _, err := m.Raise(now, eventOf(1000), false); err != nil {
			t.Fatalf("Raise: %v", err)
		}
	}
	return len(m.Take(now, nil))
}

// within returns how many frames of 1,000 bytes a credit lets on their way, when one of 1,200 must still fit.
func within(credit int) int { return (credit-1200-FrameCharge)/(1000+FrameCharge) + 1 }

func TestFlow_NoMoreIsOnItsWayThanTheSmallestCredit(t *testing.T) {
	m, others, now, fx := pacedBy(t, 3, func(*Config) {})
	for i, s := range others {
		grants(m, s, now, 0, uint64(300_000+i), fx)
	}
	grants(m, others[1], now, 0, 200_000, fx)
	if got, want := raiseAndTake(t, m, now, 500), within(200_000); got != want {
		t.Fatalf("%d frames taken, %d fit into a credit of 200,000 bytes", got, want)
	}
	if !m.Shut() || !m.Pending() || m.Drained(now) {
		t.Errorf("shut %v, pending %v, drained %v; want true, true, false", m.Shut(), m.Pending(), m.Drained(now))
	}
	if got := m.Mark(); got.Frame != uint64(within(200_000)) {
		t.Errorf("mark %v, beyond what was taken", got)
	}

	fx.Reset()
	grants(m, others[0], now, 50, 300_000, fx)
	grants(m, others[2], now, 50, 300_000, fx)
	if fx.Send {
		t.Error("the ACKs of others opened the window")
	}
	grants(m, others[1], now, 50, 200_000, fx)
	if !fx.Send {
		t.Error("the ACK that opened the window woke nobody")
	}
	if got := len(m.Take(now, nil)); got != 50 {
		t.Errorf("%d frames taken after 50 were acknowledged", got)
	}
	grants(m, others[1], now, 50, 400_000, fx) // the same mark
	if got, want := len(m.Take(now, nil)), within(300_000)-within(200_000); got != want {
		t.Errorf("%d frames taken after the credit grew, want %d", got, want)
	}
}

func TestFlow_WithoutACreditOfLateLittleIsOnItsWay(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(*Config) {})
	if got, want := raiseAndTake(t, m, now, 200), within(firstCredit); got != want {
		t.Errorf("%d frames taken for who has told no credit, want %d", got, want)
	}
	grants(m, others[0], now, uint64(within(firstCredit)), 1<<20, fx)
	taken := within(firstCredit) + len(m.Take(now, nil))
	if taken != 200 {
		t.Fatalf("%d frames taken within a credit of 1 MiB", taken)
	}
	grants(m, others[0], now, 200, 1<<20, fx)
	now = now.Add(creditFor)
	if got, want := raiseAndTake(t, m, now, 200), within(firstCredit); got != want {
		t.Errorf("%d frames taken a second after the credit was told, want %d", got, want)
	}
}

func TestFlow_WhoStatesNoLimitHasNone(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(*Config) {})
	grants(m, others[0], now, 0, 0, fx)
	if got := raiseAndTake(t, m, now, 2000); got != 2000 {
		t.Errorf("%d frames of 2,000 taken", got)
	}
	if got := raiseAndTake(t, m, now.Add(2*creditFor), 2000); got != 2000 {
		t.Errorf("%d frames of 2,000 taken two seconds later", got)
	}
}

func TestFlow_ATransportWithoutAWindowIsNotPaced(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.Window = 0 })
	grants(m, others[0], now, 0, 10_000, fx)
	if got := raiseAndTake(t, m, now, 2000); got != 2000 || m.Shut() {
		t.Errorf("%d frames of 2,000 taken", got)
	}
	for i := range uint64(100) {
		arrive(m, others[0], now, i+1, i, 1, fx)
	}
	m.Tick(now.Add(time.Second), fx)
	for _, a := range spoken[wire.ACK](t, fx) {
		if a.Entries[0].Credit != 0 {
			t.Errorf("told a credit of %d bytes", a.Entries[0].Credit)
		}
	}
	m.SetWindow(1 << 20) // the provider got a buffer that it must tell of
	grants(m, others[0], now, 2000, 10_000, fx)
	if got, want := raiseAndTake(t, m, now, 100), within(10_000); got != want {
		t.Errorf("%d frames taken since there is a window, want %d", got, want)
	}
}

// A credit below one frame must not stop the stream for ever.
func TestFlow_OneFrameIsAlwaysOnItsWay(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.Window = 100 })
	if got := raiseAndTake(t, m, now, 10); got != 1 {
		t.Fatalf("%d frames taken, want 1", got)
	}
	grants(m, others[0], now, 1, 100, fx)
	if got := len(m.Take(now, nil)); got != 1 || !fx.Send {
		t.Errorf("%d frames taken after the first was acknowledged, woken: %v; want 1, true", got, fx.Send)
	}
}

// A newcomer's baseline must not lie between the fragments of an event, and a new stream cannot
// go on with them.
func TestFlow_TheFragmentsOfAnEventStayTogether(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(*Config) {})
	grants(m, others[0], now, 0, 100_000, fx)
	raise := func(payload int) {
		if _, err := m.Raise(now, &wire.Event{Payload: make([]byte, payload)}, false); err != nil {
			t.Fatal(err)
		}
	}
	raise(30_000)
	raise(30_000)
	first := m.Take(now, nil)
	if n := len(first); n < 26 || n > 32 || first[n-1].Count != 1 {
		t.Fatalf("%d frames taken, the last with %d events; want one event of two", n, first[n-1].Count)
	}
	grants(m, others[0], now, 5, 100_000, fx)
	if got := m.Take(now, nil); len(got) != 0 {
		t.Errorf("%d frames taken though the event does not fit", len(got))
	}
	hear := func(frames []*Frame) {
		last := frames[len(frames)-1].mark()
		tell(m, others[0], now, wire.ACK{Entries: []wire.ACKEntry{{Stream: m.cfg.Stream, Mark: last, Credit: 100_000}}}, fx)
	}
	hear(first)
	second := m.Take(now, nil)
	if len(second) != len(first) {
		t.Errorf("%d frames taken when there is room, want %d", len(second), len(first))
	}
	raise(500_000) // more than the credit
	if got := m.Take(now, nil); len(got) != 0 {
		t.Errorf("%d frames of an event larger than the credit taken, while others are on their way", len(got))
	}
	hear(second)
	if got := m.Take(now, nil); len(got) < 400 || m.Shut() {
		t.Errorf("%d frames of an event larger than the credit taken, while nothing is on its way", len(got))
	}
}

func TestFlow_RaiseWaitsWhenWhatIsKeptBackIsTooMuch(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.UnsentBytes = 50_000 })
	var err error
	raised := 0
	for ; err == nil && raised < 1000; raised++ {
		if _, err = m.Raise(now, eventOf(1000), false); err == nil {
			frames := m.Take(now, nil)
			if len(frames) > 0 {
				m.Handed(now, frames[len(frames)-1].Number, fx)
			}
		}
	}
	if want := within(firstCredit) + 49; !errors.Is(err, ErrFull) || raised < want || raised > want+3 {
		t.Fatalf("event %d: %v; want ErrFull after about %d", raised, err, want)
	}
	fx.Reset()
	grants(m, others[0], now, 20, firstCredit, fx)
	frames := m.Take(now, nil)
	m.Handed(now, frames[len(frames)-1].Number, fx)
	if _, err := m.Raise(now, eventOf(1000), false); err != nil || !fx.Space {
		t.Errorf("Raise after an ACK: %v", err)
	}
}

func TestFlow_AReceiverThatHoldsUpForTooLongStopsCounting(t *testing.T) {
	m, others, now, fx := pacedBy(t, 2, func(*Config) {})
	for _, s := range others {
		grants(m, s, now, 0, 200_000, fx)
	}
	n := raiseAndTake(t, m, now, 400)
	passes(m, now.Add(100*time.Millisecond), fx, func(time.Time) {})
	now = now.Add(100 * time.Millisecond)
	grants(m, others[0], now, uint64(n), 400_000, fx)
	fx.Reset()
	if got := m.Next(); got.After(now.Add(stallProgress)) {
		t.Errorf("Tick is wanted at %v only", got)
	}
	woken := false
	note := func(time.Time) { woken = woken || fx.Send }
	passes(m, now.Add(stallProgress-101*time.Millisecond), fx, note)
	if woken || m.byStream[others[1]].evicted != 0 {
		t.Fatalf("given up before %v without progress", stallProgress)
	}
	passes(m, now.Add(stallProgress), fx, note)
	if p := m.byStream[others[1]]; !woken || p.counts || p.evicted != 1 {
		t.Fatalf("woken %v, %v; want a receiver that does not count, and that the others go on", woken, p)
	}
	now = now.Add(stallProgress)
	grants(m, others[0], now, uint64(n), 400_000, fx)
	n += len(m.Take(now, nil))
	grants(m, others[1], now, uint64(n-150), 200_000, fx)
	if m.byStream[others[1]].counts {
		t.Error("counts again, with more on its way than its credit")
	}
	grants(m, others[1], now, uint64(n-10), 200_000, fx)
	if !m.byStream[others[1]].counts {
		t.Error("does not count again when it has caught up")
	}
}

func TestFlow_OneWhoLeavesHoldsUpNobody(t *testing.T) {
	m, others, now, fx := pacedBy(t, 2, func(*Config) {})
	grants(m, others[0], now, 0, 1<<20, fx)
	n := raiseAndTake(t, m, now, 200)
	grants(m, others[0], now, uint64(n), 1<<20, fx)
	fx.Reset()
	tell(m, others[1], now, wire.Bye{}, fx)
	if got := len(m.Take(now, nil)); !fx.Send || got != 200-n {
		t.Errorf("woken %v, %d more taken of %d", fx.Send, got, 200-n)
	}
}

// acks returns how many frames of 1,000 bytes it takes until they are acknowledged at
// once, and the credit told then.
func ackedAfter(t *testing.T, m *Machine, s site.StreamID, now time.Time, from uint64, fx *Effects) (frames, credit int) {
	t.Helper()
	for n := uint64(0); n < 10_000; n++ {
		fx.Reset()
		h := wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: s, Number: from + n, Ordinal: from + n - 1, Count: 1}
		body := wire.AppendRecord(nil, &wire.Event{})
		if v := m.Receive(now, h, make([]byte, 1000), body, fx); v != Accepted {
			t.Fatalf("frame %d: %v", h.Number, v)
		}
		for _, a := range spoken[wire.ACK](t, fx) {
			for _, e := range a.Entries {
				if e.Stream == s {
					return int(n) + 1, int(e.Credit)
				}
			}
		}
	}
	t.Fatal("nothing is acknowledged")
	return 0, 0
}

func TestFlow_AQuarterOfTheCreditIsAcknowledgedAtOnce(t *testing.T) {
	m, others, now, fx := pacedBy(t, 2, func(*Config) {})
	quarter := func(credit int) int { return (credit/ackPart + 2279) / 2280 }
	n, credit := ackedAfter(t, m, others[0], now, 1, fx)
	if n != quarter(firstCredit) || credit != 1<<20 {
		t.Errorf("the first ACK came after %d frames with a credit of %d; want %d, %d", n, credit, quarter(firstCredit), 1<<20)
	}
	from := uint64(n) + 1
	if n, _ = ackedAfter(t, m, others[0], now, from, fx); n != quarter(1<<20) {
		t.Errorf("the second ACK came after %d frames, want %d", n, quarter(1<<20))
	}
	from += uint64(n)
	now = now.Add(creditFor) // the sender goes by firstCredit again
	if n, _ = ackedAfter(t, m, others[0], now, from, fx); n != quarter(firstCredit) {
		t.Errorf("the first ACK after a second came after %d frames, want %d", n, quarter(firstCredit))
	}
}

func TestFlow_StreamsThatAreActiveShareTheBuffer(t *testing.T) {
	m, others, now, fx := pacedBy(t, 4, func(*Config) {})
	n, _ := ackedAfter(t, m, others[0], now, 1, fx)
	if _, credit := ackedAfter(t, m, others[1], now, 1, fx); credit != 1<<19 {
		t.Errorf("the second of two streams is lent %d bytes, want %d", credit, 1<<19)
	}
	more, credit := ackedAfter(t, m, others[0], now, uint64(n)+1, fx)
	if credit != 1<<19 {
		t.Errorf("the first of two streams is lent %d bytes, want %d", credit, 1<<19)
	}
	now = now.Add(creditFor)
	if _, credit := ackedAfter(t, m, others[0], now, uint64(n+more)+1, fx); credit != 1<<20 {
		t.Errorf("a second after the other was heard last the first is lent %d bytes, want %d", credit, 1<<20)
	}
}

// What arrived behind a gap cannot be acknowledged, but it is in no buffer any more:
// one lost frame must not stop the stream until it is repaired.
func TestFlow_AGapStopsNothing(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(*Config) {})
	n, _ := ackedAfter(t, m, others[0], now, 1, fx)
	frames, credit := ackedAfter(t, m, others[0], now, uint64(n)+4, fx) // three are missing
	if want := 1<<20 + frames*2280; credit < want-frames*30 || credit > want+frames*30 {
		t.Errorf("the credit is %d with %d frames beyond a gap, want about %d", credit, frames, want)
	}
	if _, credit = ackedAfter(t, m, others[0], now, uint64(n+frames)+4, fx); credit < 1<<20+frames*2000 {
		t.Errorf("the credit is %d with some more", credit)
	}
}

func TestFlow_APublisherLendsItsBufferToo(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.Role = site.RolePublish })
	if _, credit := ackedAfter(t, m, others[0], now, 1, fx); credit != 1<<20 {
		t.Errorf("a credit of %d, want %d", credit, 1<<20)
	}
}

func TestCluster_FullSpeedFitsIntoEveryBuffer(t *testing.T) {
	for _, senders := range []int{1, 3} {
		c := newCluster(t, uint64(senders))
		c.tweak = func(cfg *Config) { cfg.Window, cfg.UnsentBytes, cfg.RepairDelay = 1<<20, 256<<10, 20*time.Millisecond }
		for range 5 {
			c.start()
		}
		c.run(3 * time.Second)
		c.delay = 4 * time.Millisecond // a round trip in which a sender could raise many times its window
		end := c.now.Add(500 * time.Millisecond)
		for c.now.Before(end) {
			for _, n := range c.nodes[:senders] {
				for raised := -1; raised != len(n.raised); {
					raised = len(n.raised)
					n.raise(1, 800, false)
				}
			}
			c.run(100 * time.Microsecond)
		}
		c.run(10 * time.Second)
		c.verify()
		if got := c.missed(); got > 0 {
			t.Errorf("%d senders: %d events missed", senders, got)
		}
		if len(c.nodes[0].raised) < 5000/senders {
			t.Errorf("%d senders: the first has raised %d events in half a second", senders, len(c.nodes[0].raised))
		}
		for _, n := range c.nodes {
			// What the second and the third begin with comes on top until the first has heard of them.
			if limit := 1<<20 + (senders-1)*2*firstCredit; n.most > limit {
				t.Errorf("%d senders: %d bytes were on their way to one, whose buffer has %d", senders, n.most, 1<<20)
			}
			if n.m.resent > 0 {
				t.Errorf("%d senders: %d frames sent again", senders, n.m.resent)
			}
			for _, p := range n.m.Peers() {
				if p.Evictions > 0 {
					t.Errorf("%d senders: %v stopped counting", senders, p.Stream)
				}
			}
		}
	}
}

func TestFlow_SubscribersWithoutRoomLetNothingBeAcknowledged(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.Window = 0 })
	m.SetRoom(now, 200_000, fx)
	next := uint64(0)
	hear := func(frames int) {
		for range frames {
			arrive(m, others[0], now, next+1, next, 1, fx)
			next++
		}
	}
	hear(1)
	now = now.Add(ackEvery)
	m.Tick(now, fx)
	if acks := spoken[wire.ACK](t, fx); len(acks) != 1 || acks[0].Entries[0].Credit != 200_000 {
		t.Fatalf("said %+v, want one ACK that lends the room of 200,000", acks)
	}

	fx.Reset()
	m.SetRoom(now, m.chargeMost()-1, fx)
	hear(100)
	now = now.Add(time.Second)
	m.Tick(now, fx)
	if acks := spoken[wire.ACK](t, fx); len(acks) != 0 || m.Next().Before(now) {
		t.Fatalf("said %+v without room for a frame; next %v after now", acks, m.Next().Sub(now))
	}

	fx.Reset()
	m.SetRoom(now, m.chargeMost(), fx)
	if acks := spoken[wire.ACK](t, fx); len(acks) != 1 || acks[0].Entries[0].Mark.Frame != next {
		t.Errorf("said %+v when there was room, want at once an ACK through frame %d", acks, next)
	}
}

func TestFlow_TheRoomOfSubscribersAndTheBufferBothBound(t *testing.T) {
	for _, tt := range []struct{ window, room, want int }{{300_000, 200_000, 200_000}, {200_000, 300_000, 200_000}, {0, 0, 1}, {0, 5000, 5000}} {
		m, _, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.Window = tt.window })
		m.SetRoom(now, tt.room, fx)
		if got := m.share(now); got != tt.want {
			t.Errorf("a buffer of %d and room for %d: %d are lent, want %d", tt.window, tt.room, got, tt.want)
		}
	}
}
