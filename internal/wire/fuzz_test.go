package wire

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

// Every target asserts the same: no panic, no more memory than a small multiple
// of the input, and what decodes comes back when it is encoded and decoded
// again. The golden vectors are the seeds.

// checkDecoded holds what came out of size bytes against them.
func checkDecoded(t *testing.T, h Header, body any, size int) {
	t.Helper()
	// The smallest entry on the wire is a range of 2 bytes, which takes 16.
	if got := footprint(reflect.ValueOf(body)); got > 8*size {
		t.Errorf("%d bytes became %d", size, got)
	}
	h.Length = uint32(HeaderLen + size)
	checkRoundTrip(t, h, body)
}

// footprint returns how many bytes the lists of a control body take, spare
// room included. Payloads and chunks alias their frame and take none.
func footprint(v reflect.Value) int {
	n := 0
	if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[Fragment]() {
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Slice {
				n += f.Cap() * int(f.Type().Elem().Size())
			}
		}
	}
	return n
}

func FuzzFrame(f *testing.F) {
	for _, v := range vectors() {
		f.Add(readHex(f, v.name))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		h, body, err := decode(frame)
		if !bytes.Equal(frame, before) {
			t.Error("decoding changed the frame")
		}
		if err == nil {
			checkDecoded(t, h, body, len(frame)-HeaderLen)
		}
	})
}

// FuzzHeader reaches what a random length field hardly ever lets through.
func FuzzHeader(f *testing.F) {
	for _, v := range vectors() {
		f.Add(readHex(f, v.name)[:HeaderLen])
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < HeaderLen || len(frame) > MaxFrameLen {
			return
		}
		frame = bytes.Clone(frame)
		copy(frame, magic)
		frame[offVersion] = Version
		binary.BigEndian.PutUint32(frame[offLength:], uint32(len(frame)))
		h, err := ParseHeader(frame)
		if err != nil {
			return
		}
		again := bytes.Clone(frame)
		clear(again[:HeaderLen])
		PutHeader(again, h)
		if !bytes.Equal(again, frame) {
			t.Errorf("written anew %x, want %x", again, frame)
		}
	})
}

func FuzzEvents(f *testing.F) {
	for _, v := range vectors() {
		if events, ok := v.body.([]Event); ok {
			f.Add(uint32(len(events)), Body(readHex(f, v.name), 0))
		}
	}
	f.Fuzz(func(t *testing.T, count uint32, body []byte) {
		events, err := readAll(body, count)
		checkInPlace(t, body, count, events, err)
		if uint64(len(events))*minRecordLen > uint64(len(body)) {
			t.Errorf("%d events out of %d bytes", len(events), len(body))
		}
		if err == nil && len(body) <= MaxFrameLen-HeaderLen {
			if len(events) != int(count) {
				t.Errorf("%d events, want %d", len(events), count)
			}
			h := testHeader()
			h.Count = count
			checkDecoded(t, h, events, len(body))
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, v := range vectors() {
		if events, ok := v.body.([]Event); ok {
			f.Add(AppendRecord(nil, &events[0]))
		}
	}
	f.Fuzz(func(t *testing.T, rec []byte) {
		e, err := ReadRecord(rec)
		if err != nil {
			return
		}
		anew := AppendRecord(nil, &e)
		var d dictionary
		if len(anew) > len(rec) || len(anew) != d.headLen(&e)+len(e.Payload) {
			t.Errorf("%x takes %d bytes anew, headLen says %d and the payload", rec, len(anew), d.headLen(&e))
		}
		if again, err := ReadRecord(anew); err != nil || !equalEvents([]Event{again}, []Event{e}) {
			t.Errorf("%x decodes to %+v, anew to %+v, %v", rec, e, again, err)
		}
	})
}

func FuzzFragment(f *testing.F) {
	for _, v := range vectors() {
		if _, ok := v.body.(Fragment); ok {
			h, _ := ParseHeader(v.frame())
			f.Add(h.Count, Body(readHex(f, v.name), 0))
		}
	}
	f.Fuzz(func(t *testing.T, count uint32, body []byte) {
		fragment, err := ReadFragment(body, count)
		if err == nil && len(body) <= MaxFrameLen-HeaderLen {
			h := testHeader()
			h.Type, h.Count = TypeFragment, count
			checkDecoded(t, h, fragment, len(body))
		}
	})
}

func FuzzControl(f *testing.F) {
	for _, v := range vectors() {
		if c, ok := v.body.(Control); ok {
			f.Add(uint8(c.Type()), Body(readHex(f, v.name), 0))
		}
	}
	f.Fuzz(func(t *testing.T, typ uint8, body []byte) {
		c, err := ReadControl(Type(typ), body)
		if err == nil && len(body) <= MaxFrameLen-HeaderLen {
			h := testHeader()
			h.Type, h.Ordinal = Type(typ), 0
			checkDecoded(t, h, c, len(body))
		}
	})
}
