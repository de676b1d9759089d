package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/carillon-go/carillon/site"
)

const testTrailer = 32

func testHeader() Header {
	return Header{
		Type: TypeEvents, Key: 3, Site: site.ID{0: 0x51, 15: 1}, Stream: site.NewStreamID(7, 0xc0ffee),
		Number: 42, Ordinal: 100, Clock: 1_700_000_000_123_456,
	}
}

// testEvents returns n different events that share a few IDs.
func testEvents(n int) []Event {
	events := make([]Event, n)
	for i := range events {
		events[i] = Event{ID: ID{1, byte(i % 3)}, Raiser: ID{2, byte(i % 2)}, Payload: fmt.Appendf(nil, "payload %d", i)}
		if i%2 == 1 {
			events[i].Order = uint64(i) << (i % 40)
		}
	}
	return events
}

func build(t testing.TB, limit int, events []Event) []byte {
	t.Helper()
	var b Builder
	b.Reset(limit, testTrailer)
	for i := range events {
		if !b.Append(&events[i]) {
			t.Fatalf("event %d does not fit into %d bytes", i, limit)
		}
	}
	return b.Finish(testHeader())
}

func readAll(body []byte, count uint32) ([]Event, error) {
	var events []Event
	r := ReadEvents(body, count)
	for {
		var e Event
		ok, err := r.Next(&e)
		if !ok {
			return events, err
		}
		events = append(events, e)
	}
}

func equalEvents(a, b []Event) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || a[i].Raiser != b[i].Raiser || a[i].Order != b[i].Order || !bytes.Equal(a[i].Payload, b[i].Payload) {
			return false
		}
	}
	return true
}

func TestHeader_ComesBackAsWritten(t *testing.T) {
	want := testHeader()
	want.Count, want.Length = 2, HeaderLen+20
	frame := make([]byte, want.Length)
	PutHeader(frame, want)
	got, err := ParseHeader(frame)
	if err != nil || got != want {
		t.Fatalf("ParseHeader = %+v, %v, want %+v", got, err, want)
	}
}

func TestParseHeader_RefusesWhatBreaksALimit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(f []byte) []byte
		want   error
	}{
		{"empty", func(f []byte) []byte { return nil }, ErrLength},
		{"one byte short of a header", func(f []byte) []byte { return f[:HeaderLen-1] }, ErrLength},
		{"length comes before magic", func(f []byte) []byte { f[0]++; return f[:HeaderLen-1] }, ErrLength},
		{"above the largest frame", func(f []byte) []byte { return append(f, make([]byte, MaxFrameLen)...) }, ErrLength},
		{"magic", func(f []byte) []byte { f[3]++; return f }, ErrMagic},
		{"magic comes before version", func(f []byte) []byte { f[3]++; f[4]++; return f }, ErrMagic},
		{"version", func(f []byte) []byte { f[4] = 2; return f }, ErrVersion},
		{"version comes before the length field", func(f []byte) []byte { f[4] = 2; f[11]++; return f }, ErrVersion},
		{"length field one more", func(f []byte) []byte { f[11]++; return f }, ErrLength},
		{"length field one less", func(f []byte) []byte { f[11]--; return f }, ErrLength},
		{"type 0", func(f []byte) []byte { f[5] = 0; return f }, ErrType},
		{"type between events and control", func(f []byte) []byte { f[5] = 15; return f }, ErrType},
		{"type above the last", func(f []byte) []byte { f[5] = 25; return f }, ErrType},
		{"flag", func(f []byte) []byte { f[7] = 1; return f }, errFlags},
		{"key 0", func(f []byte) []byte { clear(f[12:16]); return f }, errZeroID},
		{"site 0", func(f []byte) []byte { clear(f[16:32]); return f }, errZeroID},
		{"stream 0", func(f []byte) []byte { clear(f[32:48]); return f }, errZeroID},
		{"number 0", func(f []byte) []byte { clear(f[48:56]); return f }, errNumber},
		{"number 2^48", func(f []byte) []byte { binary.BigEndian.PutUint64(f[48:], 1<<48); return f }, errNumber},
		{"ordinal 2^48", func(f []byte) []byte { binary.BigEndian.PutUint64(f[56:], 1<<48); return f }, errOrdinal},
		{"ordinal whose last event reaches 2^48", func(f []byte) []byte { binary.BigEndian.PutUint64(f[56:], 1<<48-2); return f }, errOrdinal},
		{"ordinal that wraps", func(f []byte) []byte { binary.BigEndian.PutUint64(f[56:], 1<<64-2); return f }, errOrdinal},
		{"events without an event", func(f []byte) []byte { clear(f[64:68]); return f }, errCount},
		{"more events than bytes", func(f []byte) []byte { f[67] = 6; return f }, errCount},
		{"fragment with two events", func(f []byte) []byte { f[5] = 2; return f }, errCount},
		{"control frame with events", func(f []byte) []byte { f[5] = 16; clear(f[56:64]); return f }, errCount},
		{"control frame with an ordinal", func(f []byte) []byte { f[5] = 16; clear(f[64:68]); return f }, errOrdinal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := testHeader()
			h.Count = 2
			frame := make([]byte, HeaderLen+20)
			PutHeader(frame, h)
			if _, err := ParseHeader(tt.change(frame)); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestParseHeader_AcceptsTheLimitsThemselves(t *testing.T) {
	h := testHeader()
	h.Number, h.Ordinal, h.Count, h.Clock = MaxNumber, MaxNumber-5, 5, -1
	frame := make([]byte, HeaderLen+20)
	PutHeader(frame, h)
	if _, err := ParseHeader(frame); err != nil {
		t.Error(err)
	}
	frame = make([]byte, MaxFrameLen)
	PutHeader(frame, h)
	if _, err := ParseHeader(frame); err != nil {
		t.Error(err)
	}
}

func TestBuilder_EventsComeBack(t *testing.T) {
	for _, n := range []int{1, 2, 3, 200} {
		want := testEvents(n)
		frame := build(t, MaxFrameLen, want)
		h, err := ParseHeader(frame)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(Body(frame, testTrailer), h.Count)
		if err != nil || !equalEvents(got, want) {
			t.Errorf("%d events: got %v, %v, want %v", n, got, err, want)
		}
		if trailer := frame[len(frame)-testTrailer:]; !bytes.Equal(trailer, make([]byte, testTrailer)) {
			t.Errorf("%d events: the trailer is %x, want zeros", n, trailer)
		}
	}
}

func TestFragmentFrame_PartsMakeTheRecord(t *testing.T) {
	want := Event{ID: ID{1}, Raiser: ID{2}, Order: 9, Payload: bytes.Repeat([]byte("abc"), 2000)}
	const limit = 1200
	if got := EventFrameLen(&want, testTrailer); got <= limit {
		t.Fatalf("EventFrameLen = %d, want above %d", got, limit)
	}
	rec := AppendRecord(nil, &want)
	chunk := ChunkLen(limit, testTrailer)
	total := (len(rec) + chunk - 1) / chunk
	var whole []byte
	for i := range total {
		part := rec[i*chunk : min((i+1)*chunk, len(rec))]
		frame := FragmentFrame(testHeader(), Fragment{Index: i, Total: total, Size: len(rec), Chunk: part}, testTrailer)
		if len(frame) > limit {
			t.Errorf("fragment %d has %d bytes, want at most %d", i, len(frame), limit)
		}
		h, err := ParseHeader(frame)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ReadFragment(Body(frame, testTrailer), h.Count)
		if err != nil {
			t.Fatal(err)
		}
		if f.Index != i || f.Total != total || f.Size != len(rec) || (h.Count == 1) != (i == total-1) {
			t.Errorf("fragment %d came back as %+v with count %d", i, f, h.Count)
		}
		whole = append(whole, f.Chunk...)
	}
	got, err := ReadRecord(whole)
	if err != nil || !equalEvents([]Event{got}, []Event{want}) {
		t.Errorf("ReadRecord = %v, %v, want %v", got, err, want)
	}
}

// controls returns one body of every type, and the edges of some.
func controls() map[string]Control {
	mark := site.Mark{Frame: 300, Next: 70_000}
	most := site.Mark{Frame: MaxNumber, Next: MaxNumber}
	a, b := site.NewStreamID(1, 2), site.NewStreamID(3, 4)
	return map[string]Control{
		"heartbeat":       Heartbeat{Mark: mark, Low: 17},
		"heartbeat-zero":  Heartbeat{},
		"heartbeat-most":  Heartbeat{Mark: most, Low: MaxNumber},
		"nak":             NAK{Stream: a, Ranges: []Range{{1, 1}, {2, 2}, {5, 900}}},
		"nak-most":        NAK{Stream: a, Ranges: []Range{{1, MaxNumber}}},
		"gone":            Gone{Frames: Range{5, 9}, FirstOrdinal: 10, NextOrdinal: 13, Events: []EventCount{{ID{1}, 2}, {ID{2}, 1}}, Complete: true},
		"gone-unknown":    Gone{Frames: Range{5, 9}, FirstOrdinal: 10, NextOrdinal: 10},
		"hello":           Hello{Nonce: ID{9}, Streams: []site.StreamID{a, b}},
		"hello-everybody": Hello{Nonce: ID{9}},
		"state":           State{Mark: mark, Nonces: []ID{{7}, {8}}, Others: []StreamMark{{a, mark}, {b, most}}},
		"state-empty":     State{},
		"ack":             ACK{Entries: []ACKEntry{{a, mark, 1 << 20}, {b, most, MaxNumber}}},
		"ack-empty":       ACK{},
		"bye":             Bye{Mark: mark},
		"reset":           Reset{Old: a, Mark: mark},
		"digest":          Digest{Entries: []StreamMark{{b, mark}}},
		"digest-empty":    Digest{},
	}
}

func TestControl_ComesBackAsSent(t *testing.T) {
	for name, want := range controls() {
		frame := ControlFrame(testHeader(), want, testTrailer)
		h, err := ParseHeader(frame)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := ReadControl(h.Type, Body(frame, testTrailer))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}
