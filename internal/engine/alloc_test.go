package engine

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// batch returns the body of a frame of n events.
func batch(tb testing.TB, n int) []byte {
	var b wire.Builder
	b.Reset(64<<10, 32)
	for i := range n {
		if !b.Append(&wire.Event{ID: wire.ID{byte(i % 4)}, Raiser: wire.ID{9}, Payload: make([]byte, 128)}) {
			tb.Fatal("the batch does not fit")
		}
	}
	return wire.Body(b.Finish(wire.Header{Type: wire.TypeEvents, Key: 1, Site: testSite, Stream: site.NewStreamID(2, 2), Number: 1}), 32)
}

// follow returns a machine that follows one stream, and that stream.
func follow() (*Machine, site.StreamID, *Effects) {
	m, other, fx := New(testConfig(site.NewStreamID(1, 1), 1)), site.NewStreamID(2, 2), &Effects{}
	m.Start(time.Unix(0, 0), nil, fx)
	m.Members(time.Unix(0, 0), []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen}}, false, fx)
	fx.Reset()
	return m, other, fx
}

func TestReceive_AllocatesOncePerFrame(t *testing.T) {
	m, other, fx := follow()
	m.cfg.RingBytes = 1 << 40 // no ACK for a quarter of the ring
	body, now := batch(t, 200), time.Unix(0, 0)
	h := wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: other, Count: 200}
	got := testing.AllocsPerRun(100, func() {
		h.Number++
		fx.Reset()
		if v := m.Receive(now, h, nil, body, fx); v != Accepted || len(fx.Items) != 1 || fx.Items[0].Events.Len() != 200 {
			t.Fatalf("%v, %+v", v, fx.Items)
		}
		h.Ordinal += 200
	})
	if got != 1 {
		t.Errorf("%v allocations for a frame of 200 events, want 1, which says where they are", got)
	}
}

func TestRaise_AllocatesPerFrameNotPerEvent(t *testing.T) {
	m, _, fx := follow()
	m.cfg.FrameBytes = 32 << 10
	ev, now := wire.Event{ID: wire.ID{1}, Raiser: wire.ID{2}, Payload: make([]byte, 128)}, time.Unix(0, 0)
	var frames []*Frame
	got := testing.AllocsPerRun(100, func() {
		for range 150 { // less than a frame
			if _, err := m.Raise(now, &ev, false); err != nil {
				t.Fatal(err)
			}
		}
		frames = m.Take(now, frames[:0])
		m.Handed(now, frames[len(frames)-1].Number, fx)
	})
	if got > 15 {
		t.Errorf("%v allocations for 150 events in one frame, want a few for the frame and none per event", got)
	}
}

func BenchmarkReceive_Frame200Events(b *testing.B) {
	m, other, fx := follow()
	m.cfg.RingBytes = 1 << 40
	body, now := batch(b, 200), time.Unix(0, 0)
	h := wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: other, Count: 200}
	for b.Loop() {
		h.Number++
		fx.Reset()
		m.Receive(now, h, nil, body, fx)
		h.Ordinal += 200
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/200, "ns/event")
}

func BenchmarkRaise(b *testing.B) {
	m, _, fx := follow()
	m.cfg.FrameBytes = 32 << 10
	ev, now := wire.Event{ID: wire.ID{1}, Raiser: wire.ID{2}, Payload: make([]byte, 128)}, time.Unix(0, 0)
	var frames []*Frame
	n := 0
	for b.Loop() {
		if _, err := m.Raise(now, &ev, false); err != nil {
			b.Fatal(err)
		}
		if n++; n%200 == 0 {
			frames = m.Take(now, frames[:0])
			m.Handed(now, frames[len(frames)-1].Number, fx)
		}
	}
}

// BenchmarkReceive_Members is a heartbeat, and the look for what is due next that follows
// each frame, in sites of many sizes.
func BenchmarkReceive_Members(b *testing.B) {
	for _, members := range []int{3, 30, 300, 3000} {
		b.Run(strconv.Itoa(members), func(b *testing.B) {
			m, other, fx := follow()
			now := time.Unix(0, 0)
			for i := range members {
				row := site.Member{Site: testSite, Stream: site.NewStreamID(100, uint64(i)), State: site.MemberOpen, Joined: now.Add(time.Hour)}
				m.Members(now, []site.Member{row}, false, fx)
			}
			body := wire.Body(wire.ControlFrame(wire.Header{Type: wire.TypeHeartbeat, Key: 1, Site: testSite, Stream: other, Number: 1}, wire.Heartbeat{}, 32), 32)
			h := wire.Header{Type: wire.TypeHeartbeat, Site: testSite, Stream: other}
			for b.Loop() {
				h.Number++
				fx.Reset()
				m.Receive(now, h, nil, body, fx)
				m.Next()
			}
		})
	}
}

// What a frame costs must not depend on how many others there are, so only those are
// looked at of which something is missing.
func TestTick_LooksAfterThoseOfWhomSomethingIsMissing(t *testing.T) {
	m, other, fx := follow()
	now := time.Unix(0, 0)
	for i := range 10 {
		row := site.Member{Site: testSite, Stream: site.NewStreamID(100, uint64(i)), State: site.MemberOpen, Joined: now.Add(time.Hour)}
		m.Members(now, []site.Member{row}, false, fx)
	}
	if len(m.gappy) != 0 {
		t.Fatalf("%d of %d are looked after and miss nothing", len(m.gappy), len(m.peers))
	}
	p := m.byStream[other]
	m.exists(now, p, site.Mark{Frame: p.high.Frame + 2, Next: p.high.Next + 2}, fx)
	if !slices.Equal(m.gappy, []*peer{p}) {
		t.Fatalf("%v are looked after, want the one with a gap", m.gappy)
	}
	for !m.Next().IsZero() && len(m.gappy) > 0 && now.Before(time.Unix(60, 0)) {
		now = m.Next()
		m.Tick(now, fx)
	}
	if len(m.gappy) != 0 || p.missed != 2 {
		t.Errorf("after %v, %d are looked after and %d events missed, want none and 2", now.Sub(time.Unix(0, 0)), len(m.gappy), p.missed)
	}
}
