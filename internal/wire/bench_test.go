package wire

import (
	"fmt"
	"testing"
)

func TestHotPaths_AllocateNothing(t *testing.T) {
	const n = 100
	events := testEvents(n)
	frame := build(t, MaxFrameLen, events)
	body := Body(frame, testTrailer)

	var b Builder
	b.Reset(MaxFrameLen, testTrailer)
	fill := func() {
		for i := range events {
			if !b.Append(&events[i]) {
				t.Fatal("the event does not fit")
			}
		}
	}
	fill() // reserves the room
	for _, tt := range []struct {
		name string
		want float64
		f    func()
	}{
		{"append", 0, func() { b.Reset(MaxFrameLen, testTrailer); fill() }},
		{"append and finish", 1, func() { fill(); b.Finish(testHeader()) }},
		{"read", 0, func() {
			r := ReadEvents(body, n)
			var e Event
			for {
				if ok, err := r.Next(&e); err != nil {
					t.Fatal(err)
				} else if !ok {
					return
				}
			}
		}},
		{"parse the header", 0, func() {
			if _, err := ParseHeader(frame); err != nil {
				t.Fatal(err)
			}
		}},
		{"refuse a header", 0, func() {
			if _, err := ParseHeader(frame[1:]); err == nil {
				t.Fatal("no error")
			}
		}},
		{"refuse a body", 0, func() {
			if _, err := ReadRecord(body); err == nil {
				t.Fatal("no error")
			}
		}},
	} {
		b.Reset(MaxFrameLen, testTrailer)
		if got := testing.AllocsPerRun(100, tt.f); got != tt.want {
			t.Errorf("%s: %v allocations, want %v", tt.name, got, tt.want)
		}
	}
}

// sizes are payloads in bytes, and how many of them a frame of 32 KiB holds.
var sizes = []struct{ payload, batch int }{{128, 32 << 10 / (128 + 5)}, {1 << 10, 32 << 10 / (1<<10 + 6)}}

func BenchmarkBuilder(b *testing.B) {
	for _, s := range sizes {
		b.Run(fmt.Sprintf("payload=%d/events=%d", s.payload, s.batch), func(b *testing.B) {
			e := Event{ID: ID{1}, Raiser: ID{2}, Payload: make([]byte, s.payload)}
			var builder Builder
			builder.Reset(MaxFrameLen, testTrailer)
			h := testHeader()
			b.SetBytes(int64(s.payload * s.batch))
			b.ReportAllocs()
			for b.Loop() {
				for range s.batch {
					builder.Append(&e)
				}
				builder.Finish(h)
			}
		})
	}
}

func BenchmarkEventReader(b *testing.B) {
	for _, s := range sizes {
		b.Run(fmt.Sprintf("payload=%d/events=%d", s.payload, s.batch), func(b *testing.B) {
			events := make([]Event, s.batch)
			for i := range events {
				events[i] = Event{ID: ID{1}, Raiser: ID{2}, Payload: make([]byte, s.payload)}
			}
			body := Body(build(b, MaxFrameLen, events), testTrailer)
			b.SetBytes(int64(s.payload * s.batch))
			b.ReportAllocs()
			for b.Loop() {
				r := ReadEvents(body, uint32(s.batch))
				var e Event
				for ok := true; ok; {
					ok, _ = r.Next(&e)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	var build Builder
	build.Reset(32<<10, 0)
	n := 0
	for build.Append(&Event{ID: ID{1}, Raiser: ID{2}, Payload: make([]byte, 128)}) {
		n++
	}
	body := Body(build.Finish(testHeader()), 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Decode(body, uint32(n)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
}
