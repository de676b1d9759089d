package engine

import (
	"runtime"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// What docs/limits.md promises of the machine: whoever holds the secret can say anything,
// as often as it likes, and makes it take no more memory than this and say no more than this.

// A hostile is a member that says what it likes to a machine.
type hostile struct {
	m       *Machine
	fx      Effects
	now     time.Time
	stream  site.StreamID
	control uint64 // last number of its control frames

	in, out uint64 // bytes that it said, and that the machine answered
	asked   int    // reads of the member table
	items   int
	missed  uint64
}

func newHostile(change func(*Config)) *hostile {
	cfg := testConfig(site.NewStreamID(1, 1), 1)
	cfg.HoldBytes, cfg.MissedAfter = 8<<20, 10*time.Second // the defaults of package carillon
	if change != nil {
		change(&cfg)
	}
	h := &hostile{m: New(cfg), now: time.Unix(0, 0), stream: site.NewStreamID(2, 2)}
	h.m.Start(h.now, nil, &h.fx)
	h.m.Members(h.now, []site.Member{{Site: testSite, Stream: h.stream, State: site.MemberOpen}}, true, &h.fx)
	h.collect()
	return h
}

// collect takes the effects, as package carillon does.
func (h *hostile) collect() {
	for _, c := range h.fx.Control {
		h.out += uint64(len(c.Frame))
	}
	for _, c := range h.fx.Repairs {
		h.out += uint64(len(c.Frame))
	}
	for _, it := range h.fx.Items {
		h.items++
		if it.Missed != nil {
			h.missed += it.Missed.Count
		}
	}
	if h.fx.AskMembers {
		h.asked++
		h.fx.AskMembers = false
		h.m.Members(h.now, nil, true, &h.fx)
	}
	h.fx.Reset()
}

// hear gives the machine a frame in memory of its own, as a transport does.
func (h *hostile) hear(hd wire.Header, frame []byte) Verdict {
	hd.Site = testSite
	h.in += uint64(len(frame))
	v := h.m.Receive(h.now, hd, frame, wire.Body(frame, h.m.cfg.TrailerBytes), &h.fx)
	h.collect()
	return v
}

func (h *hostile) say(c wire.Control) {
	h.control++
	hd := wire.Header{Type: c.Type(), Stream: h.stream, Number: h.control}
	h.hear(hd, wire.ControlFrame(hd, c, h.m.cfg.TrailerBytes))
}

func (h *hostile) pass(d time.Duration) {
	for end := h.now.Add(d); h.now.Before(end); {
		h.now = h.now.Add(10 * time.Millisecond)
		h.m.Tick(h.now, &h.fx)
		h.collect()
	}
}

// raise has the machine send n frames.
func (h *hostile) raise(t *testing.T, n, payload int) {
	t.Helper()
	for range n {
		if _, err := h.m.Raise(h.now, &wire.Event{ID: wire.ID{1}, Payload: make([]byte, payload)}, false); err != nil {
			t.Fatal(err)
		}
		for _, f := range h.m.Take(h.now, nil) {
			f.Bytes = append([]byte(nil), f.Bytes...)
			h.m.Handed(h.now, f.Number, &h.fx)
		}
		h.collect()
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// grows returns by how much the heap is larger after do than before.
func (h *hostile) grows(do func()) uint64 {
	before := liveHeap()
	do()
	after := liveHeap()
	runtime.KeepAlive(h)
	return after - min(before, after)
}

func TestBounds_AFrameFarAheadIsOneGap(t *testing.T) {
	h := newHostile(nil)
	grown := h.grows(func() {
		hd := wire.Header{Type: wire.TypeEvents, Stream: h.stream, Number: 1 << 47, Ordinal: 1 << 46, Count: 1}
		var b wire.Builder
		b.Reset(1200, 32)
		b.Append(&wire.Event{ID: wire.ID{1}})
		if v := h.hear(hd, b.Finish(hd)); v != Accepted {
			t.Errorf("verdict %v", v)
		}
		h.pass(30 * time.Second)
	})
	if grown > 64<<10 {
		t.Errorf("%d bytes are held for it", grown)
	}
	if h.missed != 1<<46 || h.items > 4 {
		t.Errorf("%d events are missed in %d items, want 2^46 in a few", h.missed, h.items)
	}
	if h.out > 64<<10 {
		t.Errorf("%d bytes were said in 30 s", h.out)
	}
}

func TestBounds_AMillionStreamsAreHeldByOne(t *testing.T) {
	h := newHostile(nil)
	const n = 1_000_000
	step := n
	if testing.Short() {
		step = n / 10
	}
	var b wire.Builder
	b.Reset(1200, 32)
	grown := h.grows(func() {
		for i := range step {
			hd := wire.Header{Type: wire.TypeEvents, Stream: site.NewStreamID(9, uint64(i)), Number: 1, Count: 1}
			b.Append(&wire.Event{ID: wire.ID{1}, Payload: make([]byte, 200)})
			h.hear(hd, b.Finish(hd))
			h.now = h.now.Add(10 * time.Microsecond) // 100,000 a second
			if i%1000 == 0 {
				h.m.Tick(h.now, &h.fx)
				h.collect()
			}
		}
	})
	if most := uint64(h.m.cfg.HoldBytes + 256<<10); grown > most {
		t.Errorf("%d bytes are held for %d streams, at most %d may be", grown, step, most)
	}
	if n := len(h.m.peers); n != 1 {
		t.Errorf("%d peers", n)
	}
	if seconds := step/100_000 + 1; h.asked > askBurst+5*seconds+1 {
		t.Errorf("the member table was read %d times in %d s", h.asked, seconds)
	}
	if h.items != 0 {
		t.Errorf("%d items are told", h.items)
	}
	if h.out > h.in/100 {
		t.Errorf("%d bytes answer %d", h.out, h.in)
	}
}

// Every fragment announces the largest event there is and brings a byte of it.
func TestBounds_FragmentBombs(t *testing.T) {
	const size = 1 << 20
	for _, tt := range []struct {
		name  string
		frame func(i uint64) (number, ordinal uint64, f wire.Fragment)
	}{
		{"first fragments, side by side", func(i uint64) (uint64, uint64, wire.Fragment) {
			return 1 + i*2, i, wire.Fragment{Index: 0, Total: 2, Size: size}
		}},
		{"first fragments that overlap", func(i uint64) (uint64, uint64, wire.Fragment) {
			return 1 + i, i, wire.Fragment{Index: 0, Total: wire.MaxFragments, Size: size}
		}},
		{"one event in 65,536 bytes", func(i uint64) (uint64, uint64, wire.Fragment) {
			return 1 + i + i/65535, i / 65535, wire.Fragment{Index: int(i % 65535), Total: wire.MaxFragments, Size: size}
		}},
		{"the largest size on the wire", func(i uint64) (uint64, uint64, wire.Fragment) {
			return 1 + i, i, wire.Fragment{Index: 0, Total: wire.MaxFragments, Size: wire.MaxRecordLen}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHostile(func(cfg *Config) { cfg.CacheBytes = 0 }) // it has a bound of its own
			frames := 300_000
			if testing.Short() {
				frames /= 10
			}
			grown := h.grows(func() {
				for i := range uint64(frames) {
					number, ordinal, f := tt.frame(i)
					f.Chunk = []byte{1}
					hd := wire.Header{Type: wire.TypeFragment, Stream: h.stream, Number: number, Ordinal: ordinal}
					h.hear(hd, wire.FragmentFrame(hd, f, h.m.cfg.TrailerBytes))
					h.now = h.now.Add(10 * time.Microsecond)
				}
			})
			// Twice what may wait, which is room for what each fragment takes beside its bytes.
			if most := 2 * uint64(h.m.cfg.HoldBytes+h.m.cfg.MaxEventBytes); grown > most {
				t.Errorf("%d bytes are held after %d fragments, at most %d may be", grown, frames, most)
			}
			if n := len(h.m.byStream[h.stream].parts); n > 2*maxGaps+1 {
				t.Errorf("%d events are under way", n)
			}
			if h.out > h.in/4 {
				t.Errorf("%d bytes answer %d", h.out, h.in)
			}
		})
	}
}

// What others keep for repair, and what waits for its order, has its bounds whatever comes.
func TestBounds_OrderedEventsAndTheCache(t *testing.T) {
	h := newHostile(func(cfg *Config) { cfg.CacheBytes = 4 << 20 })
	frames := 200_000
	if testing.Short() {
		frames /= 10
	}
	var b wire.Builder
	b.Reset(1200, 32)
	grown := h.grows(func() {
		for i := range uint64(frames) {
			hd := wire.Header{Type: wire.TypeEvents, Stream: h.stream, Number: 1 + i, Ordinal: i, Count: 1}
			b.Append(&wire.Event{ID: wire.ID{1, byte(i), byte(i >> 8), byte(i >> 16)}, Order: 1 + i%5, Payload: make([]byte, 20)})
			h.hear(hd, b.Finish(hd))
			h.now = h.now.Add(10 * time.Microsecond)
		}
	})
	// A map entry of an Ordered event takes up to 100 bytes; a frame of the cache 100 beside its own.
	if most := uint64(2*h.m.cfg.CacheBytes + 100*maxOrders + 1<<20); grown > most {
		t.Errorf("%d bytes are held after %d frames, at most %d may be", grown, frames, most)
	}
}

func TestBounds_EveryThirdFrameMissingForEver(t *testing.T) {
	h := newHostile(func(cfg *Config) { cfg.CacheBytes = 0 })
	frames := uint64(200_000)
	if testing.Short() {
		frames /= 10
	}
	var b wire.Builder
	b.Reset(1200, 32)
	grown := h.grows(func() {
		for i := range frames {
			if i%3 == 1 {
				continue
			}
			hd := wire.Header{Type: wire.TypeEvents, Stream: h.stream, Number: 1 + i, Ordinal: i, Count: 1}
			b.Append(&wire.Event{ID: wire.ID{1}, Payload: make([]byte, 200)})
			h.hear(hd, b.Finish(hd))
			h.now = h.now.Add(100 * time.Microsecond)
			if i%100 == 0 {
				h.m.Tick(h.now, &h.fx)
				h.collect()
			}
		}
	})
	p := h.m.byStream[h.stream]
	if len(p.gaps) > maxGaps+1 { // the last holds all that is not taken
		t.Errorf("%d gaps are open", len(p.gaps))
	}
	if most := uint64(1 << 20); grown > most {
		t.Errorf("%d bytes are held, at most %d may be", grown, most)
	}
	if h.out > h.in {
		t.Errorf("%d bytes answer %d", h.out, h.in)
	}
}

// Whatever is asked, again and again, with numbers that are always new: the answers stay below
// what a second may cost.
func TestBounds_AnswersPerSecond(t *testing.T) {
	big := func(n int) []wire.Range {
		ranges := make([]wire.Range, n)
		for i := range ranges {
			ranges[i] = wire.Range{First: uint64(1 + 2*i), Last: uint64(1 + 2*i)}
		}
		return ranges
	}
	marks := func(n int) []wire.StreamMark {
		l := make([]wire.StreamMark, n)
		for i := range l {
			l[i] = wire.StreamMark{Stream: site.NewStreamID(3, uint64(i)), Mark: site.Mark{Frame: 1 << 47, Next: 1 << 47}}
		}
		return l
	}
	for _, tt := range []struct {
		name string
		c    func(h *hostile, i int) wire.Control
		out  uint64 // bytes a second, besides heartbeats and what is asked for once
	}{
		{"NAK for everything there ever was", func(h *hostile, i int) wire.Control {
			return wire.NAK{Stream: h.m.cfg.Stream, Ranges: []wire.Range{{First: 1, Last: wire.MaxNumber}}}
		}, 4 << 20},
		{"NAK for 256 frames, from anyone", func(h *hostile, i int) wire.Control {
			return wire.NAK{Stream: h.m.cfg.Stream, Anyone: true, Ranges: big(256)}
		}, 4 << 20},
		{"NAK for another's stream", func(h *hostile, i int) wire.Control {
			return wire.NAK{Stream: site.NewStreamID(3, 0), Anyone: true, Ranges: big(256)}
		}, 4 << 20},
		{"HELLO", func(h *hostile, i int) wire.Control {
			return wire.Hello{Nonce: wire.ID{byte(i), byte(i >> 8), byte(i >> 16), 1}}
		}, 4 << 20},
		{"STATE of 1,024 others", func(h *hostile, i int) wire.Control {
			return wire.State{Mark: site.Mark{Frame: 1 << 47, Next: 1 << 46}, Others: marks(1024)}
		}, 64 << 10},
		{"DIGEST of 1,024 others", func(h *hostile, i int) wire.Control { return wire.Digest{Entries: marks(1024)} }, 64 << 10},
		{"GONE of everything", func(h *hostile, i int) wire.Control {
			return wire.Gone{Frames: wire.Range{First: 1, Last: wire.MaxNumber}, NextOrdinal: wire.MaxNumber}
		}, 64 << 10},
		{"ACK of 1,024 others", func(h *hostile, i int) wire.Control {
			entries := make([]wire.ACKEntry, 1024)
			for j, e := range marks(1024) {
				entries[j] = wire.ACKEntry{Stream: e.Stream, Mark: e.Mark}
			}
			return wire.ACK{Entries: entries}
		}, 64 << 10},
		{"HEARTBEAT that reaches further each time", func(h *hostile, i int) wire.Control {
			return wire.Heartbeat{Mark: site.Mark{Frame: uint64(i+1) << 20, Next: uint64(i+1) << 18}}
		}, 256 << 10},
		{"WITNESS", func(h *hostile, i int) wire.Control {
			return wire.Witness{To: h.m.cfg.Stream, Mine: wire.ID{byte(i)}}
		}, 64 << 10},
		{"RESET of streams that nobody knows", func(h *hostile, i int) wire.Control {
			return wire.Reset{Old: site.NewStreamID(4, uint64(i)), Mark: site.Mark{Frame: 5, Next: 5}}
		}, 64 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHostile(func(cfg *Config) { cfg.RingFrames, cfg.RingBytes = 2048, 1<<20 })
			h.raise(t, 6000, 500) // most of them are dropped from the ring: their receiver acknowledges nothing
			const seconds = 3
			perSecond := 5000
			if len(tt.c(h, 0).Append(nil)) > 4096 {
				perSecond = 500 // 10 MB/s
			}
			h.in, h.out = 0, 0
			grown := h.grows(func() {
				for i := range seconds * perSecond {
					h.say(tt.c(h, i))
					if i%(perSecond/100) == 0 {
						h.pass(10 * time.Millisecond)
					}
				}
			})
			t.Logf("%d bytes a second in, %d out; the heap grew by %d", h.in/seconds, h.out/seconds, grown)
			if got := h.out / seconds; got > tt.out {
				t.Errorf("%d bytes a second are said, at most %d may be", got, tt.out)
			}
			if grown > 12<<20 {
				t.Errorf("%d bytes are held", grown)
			}
		})
	}
}
