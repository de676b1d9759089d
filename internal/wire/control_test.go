package wire

import (
	"errors"
	"reflect"
	"runtime"
	"testing"

	"github.com/carillon-go/carillon/site"
)

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
		"nak-anyone":      NAK{Stream: a, Anyone: true, Ranges: []Range{{7, 7}}},
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
		"reset-doubtful":  Reset{Old: a, Mark: mark, Doubtful: true},
		"digest":          Digest{Entries: []StreamMark{{b, mark}}},
		"digest-empty":    Digest{},
		"witness":         Witness{To: a, Mine: ID{1}, Yours: ID{2}, Seen: true},
		"witness-asks":    Witness{To: a, Mine: ID{1}},
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

func TestReadControl_RefusesWhatBreaksTheLayout(t *testing.T) {
	id := make([]byte, idLen)
	most := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f} // MaxNumber
	big := []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40}  // MaxNumber + 1
	n1025, none := []byte{0x81, 0x08}, []byte{0}
	for _, tt := range []struct {
		name string
		typ  Type
		body []byte
		want error
	}{
		{"heartbeat empty", TypeHeartbeat, nil, errShort},
		{"heartbeat without low", TypeHeartbeat, []byte{1, 1}, errShort},
		{"heartbeat frame 2^48", TypeHeartbeat, join(big, []byte{1, 1}), errVarint},
		{"heartbeat next 2^48", TypeHeartbeat, join([]byte{1}, big, []byte{1}), errVarint},
		{"heartbeat low 2^48", TypeHeartbeat, join([]byte{1, 1}, big), errVarint},
		{"heartbeat in a longer form", TypeHeartbeat, []byte{0x81, 0, 1, 1}, errVarint},
		{"good: extensions", TypeHeartbeat, []byte{1, 1, 1, 1, 0, 2, 1, 'x'}, nil},
		{"extension type 0", TypeHeartbeat, []byte{1, 1, 1, 0, 0}, errExtension},
		{"extension twice", TypeHeartbeat, []byte{1, 1, 1, 5, 0, 5, 0}, errExtension},
		{"extensions descending", TypeHeartbeat, []byte{1, 1, 1, 5, 0, 4, 0}, errExtension},
		{"extension cut short", TypeHeartbeat, []byte{1, 1, 1, 5, 2, 0}, errShort},
		{"extension without a length", TypeHeartbeat, []byte{1, 1, 1, 5}, errShort},

		{"nak for nothing", TypeNAK, join(id, none, []byte{0}), errListLen},
		{"nak from 0", TypeNAK, join(id, none, []byte{1, 0, 0}), errRange},
		{"nak touching is disjoint", TypeNAK, join(id, none, []byte{2, 1, 1, 3, 0}), nil},
		{"nak overlapping", TypeNAK, join(id, none, []byte{2, 1, 1, 2, 0}), errRange},
		{"nak descending", TypeNAK, join(id, none, []byte{2, 5, 0, 3, 0}), errRange},
		{"nak to the last number", TypeNAK, join(id, none, []byte{1, 1}, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f}), nil},
		{"nak beyond the last number", TypeNAK, join(id, none, []byte{1, 1}, most), errRange},
		{"nak with 256 ranges", TypeNAK, nakBody(256), nil},
		{"nak with 257 ranges", TypeNAK, nakBody(257), errListLen},
		{"nak list longer than the body", TypeNAK, join(id, none, []byte{3, 1, 0, 3, 0}), errListLen},
		{"nak with another flag", TypeNAK, join(id, []byte{2, 1, 1, 0}), errFlag},
		{"nak list of 2^48", TypeNAK, join(id, none, big), errVarint},

		{"gone from frame 0", TypeGone, []byte{0, 1, 0, 0, 0, 0}, errRange},
		{"gone with ordinals reversed", TypeGone, []byte{1, 0, 2, 1, 0, 0}, errRange},
		{"gone with an event 0 times", TypeGone, join([]byte{1, 0, 2, 3, 1}, id, []byte{0, 0}), errCount},
		{"gone without the flag", TypeGone, []byte{1, 0, 2, 3, 0}, errShort},
		{"gone with another flag", TypeGone, []byte{1, 0, 2, 3, 0, 2}, errFlag},
		{"gone with 1025 events", TypeGone, join([]byte{1, 0, 2, 3}, n1025, make([]byte, 17*1025+1)), errListLen},
		{"gone with more events than bytes", TypeGone, []byte{1, 0, 2, 3, 1, 0}, errListLen},

		{"hello without a nonce", TypeHello, id[:15], errShort},
		{"hello to 1024", TypeHello, join(id, []byte{0x80, 0x08}, make([]byte, 16*1024)), nil},
		{"hello to 1025", TypeHello, join(id, n1025, make([]byte, 16*1025)), errListLen},
		{"hello to more than there are", TypeHello, join(id, []byte{2}, id), errListLen},

		{"state without others", TypeState, []byte{1, 1, 0}, errShort},
		{"state with 1025 nonces", TypeState, join([]byte{1, 1}, n1025, make([]byte, 16*1025+1)), errListLen},
		{"state with 1025 others", TypeState, join([]byte{1, 1, 0}, n1025, make([]byte, 18*1025)), errListLen},
		{"state with more others than bytes", TypeState, join([]byte{1, 1, 0, 1}, id, []byte{1}), errListLen},

		{"ack empty body", TypeACK, nil, errShort},
		{"ack with 1024 entries", TypeACK, join([]byte{0x80, 0x08}, make([]byte, 19*1024)), nil},
		{"ack with 1025 entries", TypeACK, join(n1025, make([]byte, 19*1025)), errListLen},
		{"ack with a credit of 2^48", TypeACK, join([]byte{1}, id, []byte{1, 1}, big), errVarint},

		{"bye without next", TypeBye, []byte{1}, errShort},
		{"reset without a mark", TypeReset, id, errShort},
		{"reset without the flag", TypeReset, join(id, []byte{1, 1}), errShort},
		{"reset with another flag", TypeReset, join(id, []byte{1, 1, 2}), errFlag},
		{"witness cut short", TypeWitness, join(id, id, id[:15]), errShort},
		{"witness that saw nothing it could have seen", TypeWitness, join(id, id, id, []byte{1}), errFlag},
		{"digest with 1025 entries", TypeDigest, join(n1025, make([]byte, 18*1025)), errListLen},

		{"events are no control frame", TypeEvents, []byte{1, 1}, ErrType},
		{"type above the last", TypeWitness + 1, []byte{1, 1}, ErrType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ReadControl(tt.typ, tt.body)
			if err != tt.want {
				t.Errorf("%+v, %v, want %v", c, err, tt.want)
			}
			if (c == nil) == (err == nil) {
				t.Errorf("%+v with %v", c, err)
			}
			if tt.want != nil && tt.want != ErrType && !errors.Is(err, ErrMalformed) {
				t.Errorf("%v is not %v", err, ErrMalformed)
			}
		})
	}
}

// nakBody asks for n frames, every second one.
func nakBody(n int) []byte {
	nak := NAK{Ranges: make([]Range, n)}
	for i := range nak.Ranges {
		f := uint64(2*i + 1)
		nak.Ranges[i] = Range{f, f}
	}
	return nak.Append(nil)
}

func TestMaxLens_AreWhatEntriesTakeAtMost(t *testing.T) {
	most := site.Mark{Frame: MaxNumber, Next: MaxNumber}
	grows := func(without, with Control) int { return len(with.Append(nil)) - len(without.Append(nil)) }
	for _, tt := range []struct {
		name      string
		got, want int
	}{
		{"mark", len(Bye{Mark: most}.Append(nil)), MaxMarkLen},
		{"range", grows(NAK{}, NAK{Ranges: []Range{{MaxNumber, 2*MaxNumber - 1}}}), MaxRangeLen},
		{"stream and mark", grows(Digest{}, Digest{Entries: []StreamMark{{Mark: most}}}), MaxStreamMarkLen},
		{"ack", grows(ACK{}, ACK{Entries: []ACKEntry{{Mark: most, Credit: MaxNumber}}}), MaxACKEntryLen},
		{"event and count", grows(Gone{}, Gone{Events: []EventCount{{Count: MaxNumber}}}), MaxEventCountLen},
	} {
		if tt.got != tt.want {
			t.Errorf("%s takes %d bytes, want %d", tt.name, tt.got, tt.want)
		}
	}
}

func TestReadControl_AllocatesNoMoreThanASmallMultiple(t *testing.T) {
	// A list length alone must not make the decoder allocate for it.
	for _, typ := range []Type{TypeNAK, TypeGone, TypeHello, TypeState, TypeACK, TypeDigest} {
		body := make([]byte, 40)
		for i := range body {
			body[i] = 0x7f
		}
		const runs = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			if c, err := ReadControl(typ, body); err == nil {
				t.Errorf("%v: %+v", typ, c)
			}
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 512 {
			t.Errorf("%v: %d bytes allocated for %d", typ, n, len(body))
		}
	}
}
