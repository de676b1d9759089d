package wire

import (
	"bytes"
	"fmt"
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

func TestType_HasANameAndASide(t *testing.T) {
	names := map[string]Type{}
	for i := range 256 {
		typ := Type(i)
		if other, twice := names[typ.String()]; twice {
			t.Errorf("types %d and %d are both called %q", other, typ, typ)
		}
		names[typ.String()] = typ
		if typ.known() && typ.Control() != (typ >= 16) {
			t.Errorf("%v: Control() = %v", typ, typ.Control())
		}
	}
	if names["nak"] != TypeNAK || names["type-26"] != 26 || names["type-0"] != 0 {
		t.Errorf("names are %v", names)
	}
}

func TestBody_IsNilWhenNothingCanBeThere(t *testing.T) {
	frame := make([]byte, HeaderLen+10)
	for trailer, want := range map[int]int{0: 10, 9: 1, 10: 0} {
		if b := Body(frame, trailer); b == nil || len(b) != want || cap(b) != want {
			t.Errorf("trailer %d: %d bytes of %d, want %d", trailer, len(b), cap(b), want)
		}
	}
	for _, trailer := range []int{-1, 11, 1000} {
		if b := Body(frame, trailer); b != nil {
			t.Errorf("trailer %d: %d bytes, want nil", trailer, len(b))
		}
	}
}
