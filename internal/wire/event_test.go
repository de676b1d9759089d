package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

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
	if got := frameLen(&want, testTrailer); got <= limit {
		t.Fatalf("frameLen = %d, want above %d", got, limit)
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

func TestBuilder_FillsAFrameToItsLimitAndNoFurther(t *testing.T) {
	e := Event{ID: ID{1}, Raiser: ID{2}, Order: 300, Payload: make([]byte, 100)}
	limit := frameLen(&e, testTrailer)
	var b Builder
	b.Reset(limit-1, testTrailer)
	if b.Append(&e) {
		t.Errorf("an event that needs %d bytes fits into %d", limit, limit-1)
	}
	if b.Count() != 0 || b.Len() != HeaderLen+testTrailer {
		t.Errorf("after a refusal: %d events, %d bytes", b.Count(), b.Len())
	}

	// The IDs of the refused event must not count as introduced.
	b.Reset(limit+1, testTrailer)
	small := Event{ID: ID{9}, Raiser: ID{9}}
	if !b.Append(&small) || b.Append(&e) || b.Count() != 1 {
		t.Fatalf("%d events", b.Count())
	}
	e.Payload = nil
	if !b.Append(&e) {
		t.Fatal("an event without a payload does not fit")
	}
	frame := b.Finish(testHeader())
	got, err := readAll(Body(frame, testTrailer), 2)
	if err != nil || !equalEvents(got, []Event{small, e}) {
		t.Errorf("got %v, %v", got, err)
	}

	b.Reset(limit, testTrailer)
	e.Payload = make([]byte, 100)
	if !b.Append(&e) || b.Len() != limit {
		t.Errorf("%d bytes, want %d", b.Len(), limit)
	}
	if b.Append(&Event{}) {
		t.Error("a full frame takes another event")
	}
}

func TestBuilder_AFullFrameIsNotBuiltOver(t *testing.T) {
	var b Builder
	b.Reset(1200, testTrailer)
	fill := func(with byte) {
		for b.Append(&Event{ID: ID{1}, Raiser: ID{2}, Payload: bytes.Repeat([]byte{with}, 40)}) {
		}
	}
	fill('a')
	first := b.Finish(testHeader())
	before := bytes.Clone(first)
	fill('b')
	b.Finish(testHeader())
	if !bytes.Equal(first, before) {
		t.Error("the second frame was written over the first")
	}

	fill('c')
	b.Reset(1200, testTrailer) // forgets them
	for b.Len() < 1000 {
		b.Append(&Event{ID: ID{1}, Raiser: ID{2}, Payload: make([]byte, 20)})
	}
	frame := b.Finish(testHeader())
	if trailer := frame[len(frame)-testTrailer:]; !bytes.Equal(trailer, make([]byte, testTrailer)) {
		t.Errorf("the trailer is %q, want zeros", trailer)
	}
}

func TestBuilder_FramesStayAsTheyWere(t *testing.T) {
	var b Builder
	b.Reset(1200, testTrailer)
	events := testEvents(5)
	for i := range events {
		b.Append(&events[i])
	}
	first := b.Finish(testHeader())
	before := bytes.Clone(first)
	if b.Count() != 0 || b.Len() != HeaderLen+testTrailer {
		t.Errorf("after Finish: %d events, %d bytes", b.Count(), b.Len())
	}
	for i := range events {
		clear(events[i].Payload)
		b.Append(&events[i])
	}
	second := b.Finish(testHeader())
	if !bytes.Equal(first, before) {
		t.Error("the second frame was written over the first")
	}
	if len(first) != cap(first) {
		t.Errorf("a frame of %d bytes keeps %d alive", len(first), cap(first))
	}
	if got, err := readAll(Body(second, testTrailer), 5); err != nil || !equalEvents(got, events) {
		t.Errorf("the second frame holds %v, %v", got, err)
	}
}

func TestBuilder_TakesNothingBeforeReset(t *testing.T) {
	var b Builder
	if b.Append(&Event{}) {
		t.Error("the zero Builder took an event")
	}
	b.Reset(MaxFrameLen+1000, 0)
	if b.Append(&Event{Payload: make([]byte, MaxFrameLen)}) {
		t.Error("an event above the largest frame was taken")
	}
}

func TestBuilder_ResetForgetsWhatWasAppended(t *testing.T) {
	events := testEvents(3)
	var b Builder
	b.Reset(1200, testTrailer)
	b.Append(&events[0])
	b.Reset(1200, testTrailer)
	b.Append(&events[0])
	if b.Count() != 1 {
		t.Errorf("%d events, want 1", b.Count())
	}
	got, err := readAll(Body(b.Finish(testHeader()), testTrailer), 1)
	if err != nil || !equalEvents(got, events[:1]) {
		t.Errorf("got %v, %v, want %v", got, err, events[:1])
	}
}

func TestEventReader_PayloadsCannotGrowIntoTheFrame(t *testing.T) {
	frame := build(t, MaxFrameLen, testEvents(3))
	events, err := readAll(Body(frame, testTrailer), 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if len(e.Payload) != cap(e.Payload) {
			t.Errorf("event %d: appending to the payload would write over the next event", i)
		}
	}
}

func TestBuilder_WritesAnIDOnceUntilTheDictionaryIsFull(t *testing.T) {
	grows := func(b *Builder, e Event) int {
		before := b.Len()
		if !b.Append(&e) {
			t.Fatal("the event does not fit")
		}
		return b.Len() - before
	}
	var b Builder
	b.Reset(MaxFrameLen, 0)
	for i := range MaxDictionary {
		e := Event{ID: ID{byte(i + 1)}, Raiser: ID{byte(i + 1)}}
		if first, again := grows(&b, e), grows(&b, e); first != 20 || again != 4 {
			t.Fatalf("event %d takes %d bytes, then %d, want 20 and 4", i, first, again)
		}
	}
	e := Event{ID: ID{0xff}, Raiser: ID{1}}
	if first, again := grows(&b, e), grows(&b, e); first != 20 || again != 20 {
		t.Errorf("beyond the dictionary an event takes %d bytes, then %d, want 20", first, again)
	}
}

func TestBuilder_TakesWhatFitsAndNothingElse(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	id := func() ID { return ID{byte(random.IntN(100))} } // more than a dictionary holds
	for range 2000 {
		limit := HeaderLen + testTrailer + random.IntN(3000)
		var b Builder
		b.Reset(limit, testTrailer)
		for {
			e := Event{ID: id(), Raiser: id(), Order: random.Uint64N(1 << random.IntN(40)), Payload: make([]byte, random.IntN(200))}
			d := b.dict
			fits := b.Len()+len(d.appendRecord(nil, &e)) <= limit
			memory := cap(b.frame)
			if took := b.Append(&e); took != fits {
				t.Fatalf("an event of %d bytes in a frame of %d of %d: taken %v, want %v", len(e.Payload), b.Len(), limit, took, fits)
			}
			if memory > 0 && cap(b.frame) != memory {
				t.Fatalf("the memory for a frame of %d bytes went from %d to %d", limit, memory, cap(b.frame))
			}
			if !fits {
				break
			}
		}
		if b.Count() == 0 {
			continue
		}
		for range 2 { // a full frame, and in the memory of a full one a small one
			length := b.Len()
			frame := b.Finish(testHeader())
			if _, err := ParseHeader(frame); err != nil || len(frame) != length || cap(frame) != length || length > limit {
				t.Fatalf("a frame of %d bytes, %d of memory, limit %d: %v", len(frame), cap(frame), limit, err)
			}
			if trailer := frame[length-testTrailer:]; !bytes.Equal(trailer, make([]byte, testTrailer)) {
				t.Fatalf("the trailer is %x, want zeros", trailer)
			}
			for i := range frame {
				frame[i] = 0xff // nothing of it may show in the next one
			}
			if !b.Append(&Event{ID: ID{1}, Raiser: ID{2}}) {
				break
			}
		}
	}
}

func TestEventReader_RefusesWhatBreaksTheLayout(t *testing.T) {
	a := append([]byte{0}, make([]byte, 16)...)
	rec := func(tail ...byte) []byte { return join(a, []byte{1}, tail) } // one ID for event and raiser
	big := []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40}              // 2^48
	full := append(make([]byte, 0), manyBody(MaxDictionary+1)...)
	for _, tt := range []struct {
		name  string
		body  []byte
		count uint32
		want  error
	}{
		{"good: nothing but IDs", rec(0, 0), 1, nil},
		{"no event announced", nil, 0, errCount},
		{"no event there", nil, 1, errShort},
		{"one event more announced", rec(0, 0), 2, errShort},
		{"one event less announced", join(rec(0, 0), []byte{1, 1, 0, 0}), 1, errTrailing},
		{"reference before any ID", []byte{1, 1, 0, 0}, 1, errReference},
		{"reference to the next ID", join(a, []byte{2, 0, 0}), 1, errReference},
		{"good: the last ID of a full dictionary", join(full, []byte{MaxDictionary, 1, 0, 0}), MaxDictionary + 2, nil},
		{"reference beyond a full dictionary", join(full, []byte{MaxDictionary + 1, 1, 0, 0}), MaxDictionary + 2, errReference},
		{"largest reference", join(a, bytes.Repeat([]byte{0xff}, 9), []byte{1}), 1, errVarint},
		{"reference in two bytes", join(a, []byte{0x81, 0, 0, 0}), 1, errVarint},
		{"length of eleven bytes", rec(bytes.Repeat([]byte{0x80}, 11)...), 1, errVarint},
		{"ID cut short", a[:16], 1, errShort},
		{"extensions longer than the body", rec(1), 1, errShort},
		{"payload longer than the body", rec(0, 2, 'x'), 1, errShort},
		{"payload of 2^48 bytes", join(rec(0), big), 1, errVarint},
		{"good: order 1", rec(3, 1, 1, 1, 0), 1, nil},
		{"order 0", rec(3, 1, 1, 0, 0), 1, errOrder},
		{"order without a value", rec(2, 1, 0, 0), 1, errOrder},
		{"order with a byte behind it", rec(4, 1, 2, 1, 0, 0), 1, errOrder},
		{"order 2^48", join(rec(9, 1, 7), big, []byte{0}), 1, errOrder},
		{"extension type 0", rec(2, 0, 0, 0), 1, errExtension},
		{"extension twice", rec(6, 1, 1, 1, 1, 1, 1, 0), 1, errExtension},
		{"unknown extension twice", rec(4, 9, 0, 9, 0, 0), 1, errExtension},
		{"extensions descending", rec(5, 2, 0, 1, 1, 1, 0), 1, errExtension},
		{"extension longer than its area", rec(2, 9, 1, 0), 1, errShort},
		{"extension without a length", rec(1, 9, 0), 1, errShort},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readAll(tt.body, tt.count)
			if err != tt.want {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("%v is not %v", err, ErrMalformed)
			}
		})
	}
}

// manyBody returns the records of n events that introduce an ID each.
func manyBody(n int) []byte {
	var body []byte
	for i := range n {
		e := Event{ID: ID{byte(i)}, Raiser: ID{byte(i)}}
		rec := AppendRecord(nil, &e)
		rec[17] = byte(min(i+1, MaxDictionary)) // in a record of its own the raiser is 1
		body = append(body, rec...)
	}
	return body
}

func TestEventReader_KeepsItsError(t *testing.T) {
	frame := build(t, MaxFrameLen, testEvents(2))
	body := append(bytes.Clone(Body(frame, testTrailer)), 0)
	r := ReadEvents(body, 2)
	var e Event
	for i := range 2 {
		if ok, err := r.Next(&e); !ok || err != nil {
			t.Fatalf("event %d: %v, %v", i, ok, err)
		}
	}
	for range 2 {
		if ok, err := r.Next(&e); ok || err != errTrailing {
			t.Errorf("after the last event: %v, %v, want false, %v", ok, err, errTrailing)
		}
	}
	r = ReadEvents(body[:len(body)-1], 2)
	for range 2 {
		r.Next(&e)
	}
	for range 2 {
		if ok, err := r.Next(&e); ok || err != nil {
			t.Errorf("at the end: %v, %v, want false, nil", ok, err)
		}
	}
}

func TestReadRecord_RefusesWhatIsNotOneRecord(t *testing.T) {
	rec := AppendRecord(nil, &Event{ID: ID{1}, Raiser: ID{2}, Payload: []byte("x")})
	for name, bad := range map[string][]byte{"nothing": nil, "short": rec[:len(rec)-1], "long": append(bytes.Clone(rec), 0), "two": join(rec, rec)} {
		if e, err := ReadRecord(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, e, err)
		}
	}
}

func TestReadFragment_RefusesWhatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name  string
		body  []byte
		count uint32
		want  error
	}{
		{"good: the smallest", []byte{0, 2, 2, 'x'}, 0, nil},
		{"good: the last", []byte{1, 2, 2, 'x'}, 1, nil},
		{"empty", nil, 0, errShort},
		{"no chunk", []byte{0, 2, 2}, 0, errFragment},
		{"alone", []byte{0, 1, 2, 'x'}, 0, errFragment},
		{"of none", []byte{0, 0, 2, 'x'}, 0, errFragment},
		{"index beyond the last", []byte{2, 2, 2, 'x'}, 1, errFragment},
		{"more fragments than bytes", []byte{0, 3, 2, 'x'}, 0, errFragment},
		{"chunk that leaves nothing to the other", []byte{0, 2, 2, 'x', 'y'}, 0, errFragment},
		{"first one with an event", []byte{0, 2, 2, 'x'}, 1, errCount},
		{"last one without", []byte{1, 2, 2, 'x'}, 0, errCount},
		{"last one with two", []byte{1, 2, 2, 'x'}, 2, errCount},
		{"first one with two", []byte{0, 2, 2, 'x'}, 2, errCount},
		{"good: as many as can be", []byte{0, 0x80, 0x80, 4, 0x80, 0x80, 4, 'x'}, 0, nil},
		{"one too many", []byte{0, 0x81, 0x80, 4, 0x81, 0x80, 4, 'x'}, 0, errVarint},
		{"index too large", []byte{0x80, 0x80, 4, 0x80, 0x80, 4, 0x80, 0x80, 4, 'x'}, 0, errVarint},
		{"good: the largest record", []byte{0, 2, 0x80, 0x80, 0x80, 0x20, 'x'}, 0, nil},
		{"record too large", []byte{0, 2, 0x81, 0x80, 0x80, 0x20, 'x'}, 0, errVarint},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if f, err := ReadFragment(tt.body, tt.count); err != tt.want {
				t.Errorf("%+v, %v, want %v", f, err, tt.want)
			}
		})
	}
}

func TestChunkLen_LeavesRoomForTheLargestFragment(t *testing.T) {
	const limit = 1200
	f := Fragment{Index: MaxFragments - 1, Total: MaxFragments, Size: MaxRecordLen, Chunk: make([]byte, ChunkLen(limit, testTrailer))}
	if got := len(FragmentFrame(testHeader(), f, testTrailer)); got != limit {
		t.Errorf("the frame takes %d bytes, want %d", got, limit)
	}
	if n := ChunkLen(HeaderLen+testTrailer, testTrailer); n > 0 {
		t.Errorf("%d bytes of chunk fit into a frame without a body", n)
	}
}

// checkInPlace checks that Decode says what an EventReader says.
func checkInPlace(t *testing.T, body []byte, count uint32, want []Event, wantErr error) {
	t.Helper()
	got, ordered, err := Decode(body, count)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("Decode: %v, an EventReader: %v", err, wantErr)
	}
	if err != nil {
		return
	}
	if got.Len() != len(want) || ordered != slices.ContainsFunc(want, func(e Event) bool { return e.Order != 0 }) {
		t.Errorf("Decode: %d events, ordered %v, want those of %+v", got.Len(), ordered, want)
	}
	for _, got := range []Events{got, got.Clone()} {
		for i, w := range want {
			if e := (Event{ID: got.ID(i), Raiser: got.Raiser(i), Order: w.Order, Payload: got.Payload(i)}); !equalEvents([]Event{e}, []Event{w}) {
				t.Errorf("event %d: %+v, want %+v", i, e, w)
			}
			if p := got.Payload(i); cap(p) != len(p) {
				t.Errorf("event %d: its payload can grow into what follows", i)
			}
			if end := got.Run(i); got.ID(end-1) != w.ID {
				t.Errorf("event %d: its run ends at %d, after another event", i, end)
			}
		}
		if one := got.Slice(got.Len()-1, got.Len()); one.Len() != 1 || one.ID(0) != want[len(want)-1].ID || one.Clone().PayloadBytes() != len(want[len(want)-1].Payload) {
			t.Errorf("the last event alone: %+v, want %+v", one, want[len(want)-1])
		}
	}
}

func TestEvents_CloneHoldsNothingElse(t *testing.T) {
	var b Builder
	b.Reset(32<<10, 0)
	for i := range 100 {
		b.Append(&Event{ID: ID{byte(1 + i%2)}, Raiser: ID{9}, Payload: make([]byte, 100)})
	}
	events, _, err := Decode(Body(b.Finish(testHeader()), 0), 100)
	if err != nil {
		t.Fatal(err)
	}
	if c := events.Slice(50, 52).Clone(); c.BodyBytes() != 2*100+3*16 || c.PayloadBytes() != 200 {
		t.Errorf("a clone of two events has %d bytes, %d of them payload; want their payloads, two IDs and one raiser", c.BodyBytes(), c.PayloadBytes())
	}
	if n := testing.AllocsPerRun(10, func() { Decode(Body(b.Finish(testHeader()), 0), 0) }); n > 3 {
		t.Errorf("%v allocations", n)
	}
}

// frameLen returns the length of a frame that holds only e.
func frameLen(e *Event, trailer int) int { return HeaderLen + len(AppendRecord(nil, e)) + trailer }
