package seal

import (
	"fmt"
	"testing"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

func TestHotPaths_AllocateNothing(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		key := testKey(t, 1, suite)
		s, o := newSealer(t, key), newOpener(ringOf(key))
		frame := sealed(t, s, key, 1, make([]byte, 100))
		open := func() {
			if _, err := o.Open(testSite, key.ID, testStream, frame); err != nil {
				t.Fatal(err)
			}
		}
		body := 0.0
		if suite == site.SuiteAES256GCM {
			body = 1 // the plaintext has memory of its own
		}
		open()
		if n := testing.AllocsPerRun(100, open); n != body {
			t.Errorf("Open: %v allocations, want %v", n, body)
		}
		if n := testing.AllocsPerRun(100, func() { s.Seal(frame) }); n != 0 {
			t.Errorf("Seal: %v allocations", n)
		}
		frame[len(frame)-1] ^= 1
		if n := testing.AllocsPerRun(100, func() { errorOf(o.Open(testSite, key.ID, testStream, frame)) }); n != body {
			t.Errorf("Open of a forged frame: %v allocations, want %v", n, body)
		}
		if n := testing.AllocsPerRun(100, func() { errorOf(o.Open(testSite, 99, testStream, frame)) }); n != 0 {
			t.Errorf("Open with an unknown key: %v allocations", n)
		}
	})
}

// benchmarks runs f for each suite and for frames of one event and of as many
// as 32 KiB hold.
func benchmarks(b *testing.B, f func(b *testing.B, s *Sealer, o *Opener, key site.Key, frame []byte)) {
	for _, suite := range []struct {
		name string
		id   site.Suite
	}{{"ghash", site.SuiteGHASHHMAC}, {"hmac", site.SuiteHMACSHA256}, {"gcm", site.SuiteAES256GCM}} {
		for _, size := range []struct {
			name            string
			payload, events int
		}{
			{"event=128B", 128, 1}, {"event=1KiB", 1 << 10, 1},
			{"batch=32KiB/of=128B", 128, 32 << 10 / (128 + 5)}, {"batch=32KiB/of=1KiB", 1 << 10, 32 << 10 / (1<<10 + 6)},
		} {
			b.Run(fmt.Sprintf("%s/%s", suite.name, size.name), func(b *testing.B) {
				key := testKey(b, 1, suite.id)
				s := newSealer(b, key)
				var builder wire.Builder
				builder.Reset(wire.MaxFrameLen, s.Trailer())
				for range size.events {
					builder.Append(&wire.Event{ID: wire.ID{1}, Raiser: wire.ID{2}, Payload: make([]byte, size.payload)})
				}
				frame := builder.Finish(wire.Header{Key: key.ID, Site: testSite, Stream: testStream, Number: 1})
				s.Seal(frame)
				b.SetBytes(int64(len(frame)))
				b.ReportAllocs()
				f(b, s, newOpener(ringOf(key)), key, frame)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size.events), "ns/event")
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	benchmarks(b, func(b *testing.B, s *Sealer, _ *Opener, _ site.Key, frame []byte) {
		for b.Loop() {
			s.Seal(frame)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	benchmarks(b, func(b *testing.B, _ *Sealer, o *Opener, key site.Key, frame []byte) {
		for b.Loop() {
			if _, err := o.Open(testSite, key.ID, testStream, frame); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpenForged is what a stranger can make an instance do per frame: the
// stream is unknown, so its key is derived first, in vain.
func BenchmarkOpenForged(b *testing.B) {
	benchmarks(b, func(b *testing.B, _ *Sealer, o *Opener, key site.Key, frame []byte) {
		frame[len(frame)-1] ^= 1
		for b.Loop() {
			if _, err := o.Open(testSite, key.ID, testStream, frame); err == nil {
				b.Fatal("a forged frame was opened")
			}
		}
	})
}
