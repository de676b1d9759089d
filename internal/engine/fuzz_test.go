package engine

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A holder of the secret can say anything. Whatever it says, the machine keeps
// its invariants and its bounds, tells each event at most once, and does not
// panic.
func FuzzMachine_AnyVerifiedFrames(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 5, 0, 1, 0, 2, 1, 3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		cfg := testConfig(site.NewStreamID(1, 1), 1)
		cfg.HoldFrames, cfg.HoldBytes, cfg.RingBytes = 8, 4096, 4096
		m := New(cfg)
		var fx Effects
		now := time.Unix(0, 0)
		rows := []site.Member{
			{Site: testSite, Stream: site.NewStreamID(2, 0), State: site.MemberOpen},
			{Site: testSite, Stream: site.NewStreamID(3, 0), State: site.MemberOpen},
		}
		m.Start(now, rows[:1], &fx)
		told := map[site.StreamID]map[uint64]int{}
		for len(script) >= 6 {
			op, a, b, c, d, n := script[0], uint64(script[1]), uint64(script[2]), uint64(script[3]), script[4], min(int(script[5]), len(script)-6)
			body := script[6 : 6+n]
			script = script[6+n:]
			h := wire.Header{Type: wire.Type(a), Site: testSite, Stream: site.NewStreamID(2+uint64(d)%3, 0), Number: b, Ordinal: c, Count: uint32(d >> 4)}
			switch op % 6 {
			case 0:
				now = now.Add(time.Duration(a) * 20 * time.Millisecond)
				m.Tick(now, &fx)
			case 1:
				rows[1].State, rows[1].Mark = site.MemberState(1+a%3), site.Mark{Frame: b, Next: c}
				m.Members(now, rows[1:], d&1 == 1, &fx)
			case 2:
				if _, err := m.Raise(now, &wire.Event{ID: wire.ID{d}, Payload: body}, d&1 == 1); err == nil {
					for _, fr := range m.Take(now, nil) {
						m.Handed(now, fr.Number, &fx)
					}
				}
			case 3: // a well-formed frame of events
				h.Type, h.Count = wire.TypeEvents, 1
				m.Receive(now, h, nil, wire.AppendRecord(nil, &wire.Event{ID: wire.ID{d}, Order: a, Payload: body}), &fx)
			case 4: // a well-formed fragment
				h.Type = wire.TypeFragment
				frame := wire.FragmentFrame(h, wire.Fragment{Index: int(a % 4), Total: 2 + int(a/4%4), Size: 40, Chunk: append([]byte{1}, body...)}, 0)
				if hd, err := wire.ParseHeader(frame); err == nil {
					m.Receive(now, hd, nil, wire.Body(frame, 0), &fx)
				}
			default:
				m.Receive(now, h, nil, body, &fx)
			}
			if err := m.invariant(); err != nil {
				t.Fatal(err)
			}
			if len(m.held.frames) > cfg.HoldFrames || m.held.bytes > cfg.HoldBytes || len(m.send.ring.frames) > cfg.RingFrames {
				t.Fatal("a bound is exceeded")
			}
			for _, it := range fx.Items {
				first, last := it.Ordinal, it.Ordinal+uint64(it.Events.Len())-1
				if it.Missed != nil {
					first, last = it.Missed.First, min(it.Missed.Last, it.Missed.First+1000)
				}
				for o := first; o <= last; o++ {
					if add(told, it.Stream, o); told[it.Stream][o] > 1 {
						t.Fatalf("event %d of %v was told or missed %d times", o, it.Stream, told[it.Stream][o])
					}
				}
			}
			fx.Reset()
		}
	})
}
