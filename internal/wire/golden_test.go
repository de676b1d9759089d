package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The files below testdata/v1 are frames of wire version 1 without their trailers. They are
// what other implementations are held against, so they are never edited: the flag
// writes those that are missing and leaves the others as they are. A change
// that would need another file is a new wire version.
var add = flag.Bool("add", false, "write golden vectors that are missing")

const goldenDir = "testdata/v1"

// A vector is a frame and what it means. If our encoder does not write the
// body this way, raw holds it.
type vector struct {
	name string
	head Header
	body any // []Event, Fragment or Control
	raw  []byte
}

func (v vector) frame() []byte {
	if v.raw == nil {
		return encode(v.head, v.body)
	}
	frame := append(make([]byte, HeaderLen), v.raw...)
	PutHeader(frame, v.head)
	return frame
}

// encode returns a frame without a trailer that holds body.
func encode(h Header, body any) []byte {
	switch body := body.(type) {
	case []Event:
		var b Builder
		b.Reset(MaxFrameLen, 0)
		for i := range body {
			if !b.Append(&body[i]) {
				panic("the events do not fit into one frame")
			}
		}
		return b.Finish(h)
	case Fragment:
		return FragmentFrame(h, body, 0)
	case Control:
		return ControlFrame(h, body, 0)
	}
	panic(fmt.Sprintf("no body: %T", body))
}

// decode is the other direction.
func decode(frame []byte) (Header, any, error) {
	h, err := ParseHeader(frame)
	if err != nil {
		return Header{}, nil, err
	}
	body, err := decodeBody(h, Body(frame, 0))
	return h, body, err
}

func decodeBody(h Header, body []byte) (any, error) {
	switch h.Type {
	case TypeEvents:
		return whole(readAll(body, h.Count))
	case TypeFragment:
		return whole(ReadFragment(body, h.Count))
	default:
		return whole(ReadControl(h.Type, body))
	}
}

// whole keeps what was decoded only if all of it could be.
func whole[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// id returns the ID that counts up from first.
func id(first byte) (id ID) {
	for i := range id {
		id[i] = first + byte(i)
	}
	return id
}

func vectors() []vector {
	data := testHeader()
	control := testHeader()
	control.Number, control.Ordinal = 7, 0
	with := func(h Header, t Type, count uint32) Header {
		h.Type, h.Count = t, count
		return h
	}
	fragment := func(index, total, size int, chunk string) Fragment {
		return Fragment{Index: index, Total: total, Size: size, Chunk: []byte(chunk)}
	}
	edge := data
	edge.Number, edge.Ordinal, edge.Clock = MaxNumber, MaxNumber-1, -1

	page, link, raiser := id(0x10), id(0x40), id(0xa0)
	all := []vector{
		{name: "events-one", head: data, body: []Event{{ID: page, Raiser: raiser, Payload: []byte(`{"page":17}`)}}},
		{name: "events-dictionary", head: data, body: []Event{
			{ID: page, Raiser: raiser, Payload: []byte("a")},
			{ID: link, Raiser: raiser, Payload: []byte("b")},
			{ID: page, Raiser: raiser, Payload: nil},
			{ID: raiser, Raiser: link, Payload: []byte("d")},
		}},
		{name: "events-ordered", head: data, body: []Event{
			{ID: page, Raiser: page, Order: 1, Payload: []byte("first")},
			{ID: page, Raiser: page, Order: 128, Payload: []byte("second")},
			{ID: page, Raiser: page, Order: MaxNumber, Payload: []byte("last")},
		}},
		{name: "events-zero-ids", head: data, body: []Event{{}}},
		{name: "events-largest-numbers", head: edge, body: []Event{{ID: page, Raiser: raiser, Payload: []byte("x")}}},
		{name: "events-full-dictionary", head: data, body: manyIDs(MaxDictionary + 2)},
		{
			name: "events-with-reserved-extensions", head: with(data, TypeEvents, 2),
			body: []Event{
				{ID: page, Raiser: page, Order: 5, Payload: []byte("p")},
				{ID: page, Raiser: page, Payload: []byte("q")},
			},
			raw: join([]byte{0}, page[:], []byte{1, 9, 1, 1, 5, 2, 0, 200, 1, 1, 0xee, 1, 'p'}, []byte{1, 1, 3, 5, 1, 0xff, 1, 'q'}),
		},
		{
			name: "events-with-an-id-introduced-twice", head: with(data, TypeEvents, 2),
			body: []Event{{ID: page, Raiser: page, Payload: []byte{}}, {ID: page, Raiser: page, Payload: []byte{}}},
			raw:  join([]byte{0}, page[:], []byte{0}, page[:], []byte{0, 0}, []byte{2, 1, 0, 0}),
		},
		{name: "fragment-first", head: data, body: fragment(0, 3, 300, "the first chunk")},
		{name: "fragment-last", head: data, body: fragment(2, 3, 300, "the last chunk")},
		{name: "fragment-most", head: data, body: fragment(MaxFragments-1, MaxFragments, MaxRecordLen, "x")},
	}
	for name, c := range controls() {
		all = append(all, vector{name: name, head: control, body: c})
	}
	for name, c := range map[string]Control{
		"heartbeat-with-extensions": controls()["heartbeat"], "nak-with-extensions": controls()["nak"],
		"gone-with-extensions": controls()["gone"], "hello-with-extensions": controls()["hello"],
		"state-with-extensions": controls()["state"], "ack-with-extensions": controls()["ack"],
		"bye-with-extensions": controls()["bye"], "reset-with-extensions": controls()["reset"],
		"digest-with-extensions": controls()["digest"], "witness-with-extensions": controls()["witness"],
	} {
		all = append(all, vector{
			name: name, head: with(control, c.Type(), 0), body: c,
			raw: append(c.Append(nil), 1, 2, 0xaa, 0xbb, 9, 0, 200, 1, 1, 0xcc),
		})
	}
	return all
}

// manyIDs returns events, twice, that each have an ID of their own.
func manyIDs(n int) []Event {
	var events []Event
	for i := range 2 * n {
		e := Event{ID: ID{1, byte(i % n)}, Raiser: ID{1, byte(i % n)}}
		events = append(events, e)
	}
	return events
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestGolden_FilesDecodeAndComeBackByteByByte(t *testing.T) {
	present := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.hex"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		present[strings.TrimSuffix(filepath.Base(f), ".hex")] = true
	}
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			want := v.frame()
			if *add && !present[v.name] {
				writeHex(t, v.name, want)
			}
			delete(present, v.name)
			golden := readHex(t, v.name)
			if !bytes.Equal(want, golden) {
				t.Errorf("encoded  %x\nthe file %x", want, golden)
			}
			h, body, err := decode(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !equalBodies(body, v.body) {
				t.Errorf("decoded %+v\nwant    %+v", body, v.body)
			}
			again := v.head
			again.Type, again.Count, again.Length = h.Type, h.Count, uint32(len(golden))
			if h != again {
				t.Errorf("header %+v\nwant   %+v", h, again)
			}
		})
	}
	for name := range present {
		t.Errorf("%s/%s.hex is held against nothing", goldenDir, name)
	}
}

// equalBodies compares what two frames mean: an empty payload is a nil one.
func equalBodies(a, b any) bool {
	if a, ok := a.([]Event); ok {
		b, ok := b.([]Event)
		return ok && equalEvents(a, b)
	}
	return reflect.DeepEqual(a, b)
}

// writeHex writes a golden file, a header field a line, and then 32 bytes a line.
func writeHex(t *testing.T, name string, frame []byte) {
	t.Helper()
	var w strings.Builder
	fmt.Fprintf(&w, "# %s: wire version %d, without a trailer\n", name, Version)
	for _, f := range []struct {
		name    string
		at, end int
	}{
		{"magic", offMagic, offVersion}, {"version", offVersion, offType}, {"type", offType, offFlags},
		{"flags", offFlags, offLength}, {"length", offLength, offKey}, {"key ID", offKey, offSite},
		{"site ID", offSite, offStream}, {"stream ID", offStream, offNumber}, {"number", offNumber, offOrdinal},
		{"ordinal", offOrdinal, offCount}, {"event count", offCount, offClock}, {"clock", offClock, HeaderLen},
	} {
		fmt.Fprintf(&w, "%-32x # %s\n", frame[f.at:f.end], f.name)
	}
	for body := frame[HeaderLen:]; len(body) > 0; {
		n := min(32, len(body))
		fmt.Fprintf(&w, "%x\n", body[:n])
		body = body[n:]
	}
	if err := os.MkdirAll(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(goldenPath(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(w.String()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func goldenPath(name string) string { return filepath.Join(goldenDir, name+".hex") }

// readHex reads a golden file: hexadecimal digits, and comments from # to the
// end of the line.
func readHex(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(goldenPath(name))
	if errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v; write it with go test -run=Golden -add", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.TrimSpace(line))
	}
	frame, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", goldenPath(name), err)
	}
	return frame
}

func TestDecode_RefusesEveryTruncation(t *testing.T) {
	for _, v := range vectors() {
		frame := v.frame()
		for n := range frame {
			if _, err := ParseHeader(frame[:n]); !errors.Is(err, ErrLength) {
				t.Errorf("%s cut to %d bytes: error %v, want %v", v.name, n, err, ErrLength)
			}
		}
		h, _, err := decode(frame)
		if err != nil {
			t.Fatal(err)
		}
		body := Body(frame, 0)
		for n := range body {
			if whole, ok := meaningful(v, n); ok {
				body, err := decodeBody(h, body[:n])
				if err != nil || !whole(body) {
					t.Errorf("%s: a body of %d bytes: %+v, %v", v.name, n, body, err)
				}
				continue
			}
			if _, err := decodeBody(h, body[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: a body of %d bytes: error %v, want %v", v.name, n, err, ErrMalformed)
			}
		}
	}
}

// meaningful says whether the first n bytes of v's body mean something by
// themselves, and what: a shorter chunk, or fewer extensions.
func meaningful(v vector, n int) (func(any) bool, bool) {
	switch b := v.body.(type) {
	case Fragment:
		head := len(v.frame()) - HeaderLen - len(b.Chunk)
		return func(got any) bool {
			b.Chunk = b.Chunk[:n-head]
			return reflect.DeepEqual(got, b)
		}, n > head
	case Control:
		plain := len(b.Append(nil))
		for _, ext := range []int{0, 4, 6} {
			if n == plain+ext {
				return func(got any) bool { return reflect.DeepEqual(got, b) }, true
			}
		}
	}
	return nil, false
}

func TestDecode_SurvivesEveryAlteredByte(t *testing.T) {
	for _, v := range vectors() {
		original := v.frame()
		frame := bytes.Clone(original)
		masks := []byte{1, 0x80, 0xff}
		if len(frame) > 1000 {
			masks = masks[:1] // the race detector makes the others take seconds
		}
		for i := range frame {
			for _, x := range masks {
				frame[i] ^= x
				if h, body, err := decode(frame); err == nil {
					checkRoundTrip(t, h, body)
				}
				frame[i] = original[i]
			}
		}
	}
}

// checkRoundTrip fails the test unless body, encoded anew, decodes to the same.
func checkRoundTrip(t *testing.T, h Header, body any) {
	t.Helper()
	frame := encode(h, body)
	if len(frame) > int(h.Length) {
		t.Errorf("%+v takes %d bytes anew, it took %d", body, len(frame), h.Length)
	}
	h2, body2, err := decode(frame)
	h2.Length = h.Length // extensions may be gone
	if err != nil || h2 != h || !equalBodies(body2, body) {
		t.Errorf("encoded anew and decoded: %+v %+v, %v\nwant %+v %+v", h2, body2, err, h, body)
	}
}
