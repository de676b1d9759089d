package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// What instances say in sites with many members.

// large returns a machine that has followed n others for a second.
func large(n int, tweak func(*Config)) (m *Machine, all []site.StreamID, now time.Time, fx *Effects) {
	cfg := testConfig(site.NewStreamID(1, 1), 1)
	cfg.MissedAfter = time.Minute
	tweak(&cfg)
	m, now, fx = New(cfg), time.Unix(0, 0), &Effects{}
	m.Start(now, nil, fx)
	all = joined(m, now, n, fx)
	now = advance(m, now, now.Add(time.Second), fx)
	fx.Reset()
	return m, all, now, fx
}

// advance has m do what is due until end.
func advance(m *Machine, now, end time.Time, fx *Effects) time.Time {
	for at := m.Next(); !at.IsZero() && !at.After(end); at = m.Next() {
		if at.After(now) {
			now = at
		}
		m.Tick(now, fx)
	}
	return end
}

// addressed counts the control frames of one type in fx by whom they are for.
func addressed(t *testing.T, fx *Effects, kind wire.Type) (alone map[site.StreamID]int, toAll int) {
	t.Helper()
	alone = map[site.StreamID]int{}
	for _, c := range fx.Control {
		h, err := wire.ParseHeader(c.Frame)
		switch {
		case err != nil:
			t.Fatal(err)
		case h.Type != kind:
		case c.To == site.StreamID{}:
			toAll++
		default:
			alone[c.To]++
		}
	}
	return alone, toAll
}

func TestACK_GoesToEachSenderAloneWhereManyWouldHearIt(t *testing.T) {
	for _, tt := range []struct {
		name       string
		members    int
		reachesOne bool
		alone      bool
	}{
		{"many, and each can be reached", 100, true, true},
		{"many, and everybody hears everything", 100, false, false},
		{"few: one frame is as good", fewPeers, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, all, now, fx := large(tt.members, func(cfg *Config) { cfg.ReachesOne = tt.reachesOne })
			senders := all[:5]
			for _, s := range senders {
				arrive(m, s, now, 1, 0, 1, fx)
			}
			advance(m, now, now.Add(1300*time.Millisecond), fx)
			alone, toAll := addressed(t, fx, wire.TypeACK)
			if !tt.alone {
				if len(alone) != 0 || toAll != 1 {
					t.Errorf("%d ACKs for everybody and %v for single ones, want one for everybody", toAll, alone)
				}
				return
			}
			if len(alone) != len(senders) || toAll != 0 {
				t.Errorf("%d ACKs for everybody and %v for single ones, want one for each sender", toAll, alone)
			}
			for _, ack := range spoken[wire.ACK](t, fx) {
				if len(ack.Entries) != 1 {
					t.Errorf("an ACK for one sender has %d entries", len(ack.Entries))
				}
			}
		})
	}
}

// All receivers together say a hundred ACKs a second while data flows, whatever their number.
func TestACK_OfDataThatFlowsIsRareInLargeSites(t *testing.T) {
	const seconds = 60
	for _, members := range []int{20, 200, 1000} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			m, all, now, fx := large(members, func(*Config) {})
			for n := range uint64(seconds * 20) {
				arrive(m, all[0], now, n+1, n, 1, fx)
				now = advance(m, now, now.Add(time.Second/20), fx)
			}
			got, most := len(spoken[wire.ACK](t, fx)), seconds*100*4/3/members+1
			if got == 0 || got > most {
				t.Errorf("%d ACKs in %d s, want one at least and %d at most", got, seconds, most)
			}
		})
	}
}

func TestACK_FollowsSoonWhenDataHasStopped(t *testing.T) {
	m, all, now, fx := large(400, func(*Config) {})
	arrive(m, all[0], now, 1, 0, 1, fx)
	now = now.Add(2 * ackPause)
	tell(m, all[0], now, wire.Heartbeat{Mark: site.Mark{Frame: 1, Next: 1}, Low: 1}, fx)
	advance(m, now, now.Add(500*time.Millisecond), fx)
	if got := spoken[wire.ACK](t, fx); len(got) != 1 {
		t.Errorf("%d ACKs half a second after the first heartbeat without data, want one: Shutdown waits for it", len(got))
	}
}

// What an instance has to say when everybody sends is long, and everybody hears it.
func TestACK_OfManyStreamsIsSaidInPieces(t *testing.T) {
	for _, frameBytes := range []int{1200, 32 << 10} {
		t.Run(fmt.Sprint(frameBytes), func(t *testing.T) { testLongACK(t, frameBytes) })
	}
}

func testLongACK(t *testing.T, frameBytes int) {
	const members, seconds = 200, 60
	m, all, now, fx := large(members, func(cfg *Config) { cfg.FrameBytes = frameBytes })
	for n := range uint64(seconds) {
		for _, s := range all {
			arrive(m, s, now, n+1, n, 1, fx)
		}
		now = now.Add(2 * ackPause)
		for _, s := range all {
			tell(m, s, now, wire.Heartbeat{Mark: site.Mark{Frame: n + 1, Next: n + 1}, Low: n + 1}, fx)
		}
		now = advance(m, now, now.Add(time.Second-2*ackPause), fx)
	}
	got := 0
	for _, ack := range spoken[wire.ACK](t, fx) {
		got += len(ack.Append(nil))
	}
	named := map[site.StreamID]int{}
	for _, ack := range spoken[wire.ACK](t, fx) {
		if len(ack.Entries) > ackShort {
			t.Fatalf("an ACK has %d entries, want %d at most", len(ack.Entries), ackShort)
		}
		for _, e := range ack.Entries {
			named[e.Stream]++
		}
	}
	low, high := seconds, 0
	for _, s := range all {
		low, high = min(low, named[s]), max(high, named[s])
	}
	if low == 0 || high > low+2 {
		t.Errorf("some streams are acknowledged %d times and some %d times, want all as often", low, high)
	}
	// Entries are shorter than they may be.
	if most := seconds * 1000 << 10 / members; got < most/6 || got > most {
		t.Errorf("%d bytes of ACKs in %d s, want at most %d, so that all together say a thousand KiB a second, and not much less", got, seconds, most)
	}
}

func TestACK_IsNotSaidAgainWhenTheSenderHasHeardIt(t *testing.T) {
	for _, tt := range []struct {
		name string
		low  uint64 // of the sender's heartbeat
		want int
	}{
		{"it keeps nothing: everybody has acknowledged", 0, 0},
		{"it keeps the frame: it may not have heard us", 3, 1},
		{"it keeps later ones only", 4, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, other, now, fx := pair(t)
			for n := range uint64(3) {
				arrive(m, other, now, n+1, n, 1, fx)
			}
			now = advance(m, now, now.Add(time.Second), fx)
			if got := spoken[wire.ACK](t, fx); len(got) != 1 {
				t.Fatalf("%d ACKs of three frames that came at once, want one", len(got))
			}
			fx.Reset()
			tell(m, other, now, wire.Heartbeat{Mark: site.Mark{Frame: 3, Next: 3}, Low: tt.low}, fx)
			advance(m, now, now.Add(time.Second), fx)
			if got := spoken[wire.ACK](t, fx); len(got) != tt.want {
				t.Errorf("%d ACKs after the heartbeat, want %d", len(got), tt.want)
			}
		})
	}
}

func TestACK_IsSaidAtOnceForAQuarterOfTheRingsFrames(t *testing.T) {
	m, all, now, fx := large(1000, func(cfg *Config) { cfg.RingFrames = 64 })
	for n := range uint64(17) {
		arrive(m, all[0], now, n+1, n, 1, fx)
	}
	if got := spoken[wire.ACK](t, fx); len(got) != 1 || got[0].Entries[0].Mark.Frame != 17 {
		t.Errorf("said %+v after 17 frames with a ring of 64", got)
	}
}

func TestHello_NamesAFewAtFirstAndNotMany(t *testing.T) {
	for members, named := range map[int]int{fewPeers: fewPeers, fewPeers + 1: 0} {
		m, now := New(testConfig(site.NewStreamID(1, 1), 1)), time.Unix(0, 0)
		var fx Effects
		var rows []site.Member
		for i := range members {
			rows = append(rows, site.Member{Site: testSite, Stream: site.NewStreamID(2+uint64(i), 0), State: site.MemberOpen})
		}
		m.Start(now, rows, &fx)
		if got := spoken[wire.Hello](t, &fx); len(got) != 1 || len(got[0].Streams) != named {
			t.Errorf("to %d members it says %+v, want one HELLO that names %d", members, got, named)
		}
	}
}

// Whoever was heard and has not answered may have been asked too much at once. It is asked
// again with everybody, and only those of whom nothing is known are named, in frames
// that somebody hears who may know of them.
func TestHello_NamesThoseOfWhomNothingWasHeard(t *testing.T) {
	const members, heard = 500, 300 // of those who do not answer, more than a frame can name
	m, now := New(testConfig(site.NewStreamID(1, 1), 1)), time.Unix(0, 0)
	var fx Effects
	var rows []site.Member
	for i := range members {
		rows = append(rows, site.Member{Site: testSite, Stream: site.NewStreamID(2+uint64(i), 0), State: site.MemberOpen})
	}
	m.Start(now, rows, &fx)
	for _, r := range rows[:heard] {
		tell(m, r.Stream, now, wire.Heartbeat{}, &fx)
	}
	for _, r := range rows[:witnesses] {
		tell(m, r.Stream, now, wire.State{Nonces: []wire.ID{m.join.nonce}}, &fx)
	}
	fx.Reset()
	advance(m, now, now.Add(310*time.Millisecond), &fx)
	named, toAll := map[site.StreamID]int{}, 0
	for _, h := range spoken[wire.Hello](t, &fx) {
		if len(h.Streams) == 0 {
			toAll++
		}
		for _, s := range h.Streams {
			named[s]++
		}
	}
	if toAll != 1 {
		t.Errorf("%d HELLOs name nobody, want one", toAll)
	}
	wrong := 0
	for i, r := range rows {
		got := named[r.Stream]
		if i < witnesses && got < 2 || i >= witnesses && i < heard && got != 0 || i >= heard && got != 1 {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d are named wrongly; want those once of whom nothing was heard, and in each frame those who have answered", wrong, members)
	}
}

func TestState_GoesToEachWhoAsksWhereManyWouldHearIt(t *testing.T) {
	const askers = 150
	for _, reachesOne := range []bool{true, false} {
		t.Run(fmt.Sprint(reachesOne), func(t *testing.T) {
			m, all, now, fx := large(400, func(cfg *Config) { cfg.ReachesOne = reachesOne })
			for i, s := range all[:askers] {
				tell(m, s, now, wire.Hello{Nonce: wire.ID{byte(i), 1}}, fx)
			}
			atOnce := 0
			for end := now.Add(300 * time.Millisecond); !m.Next().After(end); {
				before := len(fx.Control)
				m.Tick(m.Next(), fx)
				atOnce = max(atOnce, len(fx.Control)-before)
			}
			alone, toAll := addressed(t, fx, wire.TypeState)
			nonces := 0
			for _, s := range spoken[wire.State](t, fx) {
				nonces += len(s.Nonces)
			}
			if !reachesOne {
				if len(alone) != 0 || toAll != 1 || nonces != m.nonceRoom() {
					t.Errorf("%d STATEs for single ones and %d for all, with %d answers; want one for all, and full", len(alone), toAll, nonces)
				}
				return
			}
			if len(alone) != askers || toAll != 0 || nonces != askers {
				t.Errorf("%d STATEs for single ones and %d for all, with %d answers; want one for each of %d", len(alone), toAll, nonces, askers)
			}
			if atOnce > stateBurst+1 {
				t.Errorf("%d frames at once, want %d at most", atOnce, stateBurst)
			}
		})
	}
}

// Each answer is for one instance, so whoever asks all the time must not get one each time.
func TestState_IsSaidOnceToOneThatAsksManyTimes(t *testing.T) {
	m, all, now, fx := large(400, func(cfg *Config) { cfg.ReachesOne = true })
	for i := range 100 {
		tell(m, all[0], now, wire.Hello{Nonce: wire.ID{byte(i), 1}}, fx)
	}
	advance(m, now, now.Add(300*time.Millisecond), fx)
	if got := spoken[wire.State](t, fx); len(got) != 1 || len(got[0].Nonces) != 1 || got[0].Nonces[0] != (wire.ID{99, 1}) {
		t.Errorf("said %+v, want one answer, to the last", got)
	}
}

func TestState_TellsOnlyWhoAskedOfWhomItAsked(t *testing.T) {
	m, all, now, fx := large(20, func(cfg *Config) { cfg.ReachesOne = true })
	a, b, dead := all[0], all[1], all[2]
	arrive(m, dead, now, 1, 0, 1, fx)
	fx.Reset()
	tell(m, a, now, wire.Hello{Nonce: wire.ID{1}}, fx)
	tell(m, a, now, wire.Hello{Nonce: wire.ID{1}, Streams: []site.StreamID{dead, m.cfg.Stream}}, fx)
	tell(m, b, now, wire.Hello{Nonce: wire.ID{2}}, fx)
	advance(m, now, now.Add(40*time.Millisecond), fx)
	states := spoken[wire.State](t, fx)
	if len(states) != 2 {
		t.Fatalf("said %+v, want an answer to each of two", states)
	}
	want := wire.StreamMark{Stream: dead, Mark: site.Mark{Frame: 1, Next: 1}}
	if got := states[0].Others; len(got) != 1 || got[0] != want {
		t.Errorf("the one who named a stream is told %+v, want %+v", got, want)
	}
	if got := states[1].Others; len(got) != 0 {
		t.Errorf("the one who named none is told %+v", got)
	}
}
