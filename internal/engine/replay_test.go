package engine

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

func TestReplayWindow_HearsEveryNumberOnce(t *testing.T) {
	for seed := range uint64(200) { // against a set that forgets nothing
		r := rand.New(rand.NewPCG(seed, 0))
		var w replayWindow
		heard, high, at := map[uint64]bool{}, uint64(0), uint64(1)
		for range 2000 {
			switch r.IntN(20) {
			case 0:
				at += uint64(r.IntN(3000))
			case 1:
				at += 64
			default:
				at++
			}
			n := at - min(at-1, uint64(r.IntN(1100)))
			isNew := !heard[n] && (n > high || high-n < replayNumbers)
			if w.heard(n) == isNew || w.hear(n) != isNew || !w.heard(n) {
				t.Fatalf("seed %d: number %d, the highest being %d: want new = %v", seed, n, high, isNew)
			}
			heard[n] = true
			high = max(high, n)
		}
	}
}

// Whoever has captured control frames can send them again, and their tags are
// right. Each is answered once at the most, whatever it asks for.
func TestReplay_OfControlFramesIsAnsweredByNobody(t *testing.T) {
	self, other := site.NewStreamID(1, 1), site.NewStreamID(2, 2)
	m := New(testConfig(self, 1))
	var fx Effects
	now := time.Unix(0, 0)
	m.Start(now, nil, &fx)
	m.Members(now, []site.Member{{Site: testSite, Stream: other, State: site.MemberOpen}}, true, &fx)
	for range 20 {
		if _, err := m.Raise(now, &wire.Event{ID: wire.ID{1}, Payload: []byte("x")}, false); err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Take(now, nil) {
			m.Handed(now, f.Number, &fx)
		}
	}
	captured := []wire.Control{
		wire.Hello{Nonce: wire.ID{9}},
		wire.NAK{Stream: self, Ranges: []wire.Range{{First: 1, Last: 3}}},
		wire.NAK{Stream: self, Anyone: true, Ranges: []wire.Range{{First: 2, Last: 2}}},
		wire.Digest{Entries: []wire.StreamMark{{Stream: self, Mark: site.Mark{Frame: 1, Next: 1}}}},
		wire.Witness{To: self, Mine: wire.ID{7}},
	}
	// said is everything but what comes by the clock.
	said := func() (n int) {
		for range 200 {
			now = now.Add(10 * time.Millisecond)
			m.Tick(now, &fx)
		}
		for _, c := range fx.Control {
			if typ := wire.FrameType(c.Frame); typ != wire.TypeHeartbeat && typ != wire.TypeACK && typ != wire.TypeDigest {
				n++
			}
		}
		n += len(fx.Repairs) + len(fx.Strangers)
		fx.Reset()
		return n
	}
	hear := func() {
		for i, c := range captured {
			h := wire.Header{Type: c.Type(), Site: testSite, Stream: other, Number: uint64(100 + i)}
			if m.Precheck(h) == Accepted {
				m.Receive(now, h, nil, c.Append(nil), &fx)
			}
			m.Receive(now, h, nil, c.Append(nil), &fx) // that it was not there yet when it was looked for changes nothing
		}
	}
	hear()
	if n := said(); n == 0 {
		t.Error("nothing was answered the first time, so this test shows nothing")
	}
	for range 100 {
		hear()
	}
	if n := said(); n > 0 {
		t.Errorf("%d frames answer what was replayed", n)
	}
}
