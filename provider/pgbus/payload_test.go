package pgbus

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/site"
)

// packed returns what becomes of frames.
func packed(frames ...[]byte) (payloads []string, rows []int64, stored [][]byte) {
	l := &link{tag: tag{1, 2, 3}}
	payloads, rows, stored, _ = l.pack(frames)
	return payloads, rows, stored
}

func TestPack_FillsPayloadsAndStoresWhatNoneHolds(t *testing.T) {
	frame := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, n) }
	for _, tt := range []struct {
		name     string
		sizes    []int
		payloads int
		rows     int
	}{
		{"one", []int{100}, 1, 0},
		{"the largest that a payload holds", []int{inlineBytes}, 1, 0},
		{"one byte more", []int{inlineBytes + 1}, 1, 1},
		{"as many small ones as fit", slices.Repeat([]int{97}, (maxPayloadBytes-headBytes)/99), 1, 0},
		{"and one more", slices.Repeat([]int{97}, (maxPayloadBytes-headBytes)/99+1), 2, 0},
		{"two that do not fit together", []int{inlineBytes, 1}, 2, 0},
		{"small and large take turns", []int{10, 10_000, 20, 20_000, 30}, 1, 2},
		{"an empty frame", []int{0}, 1, 0},
		{"many large ones", slices.Repeat([]int{inlineBytes + 1}, 4000), 2, 4000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var frames [][]byte
			for _, n := range tt.sizes {
				frames = append(frames, frame(n))
			}
			payloads, rows, stored := packed(frames...)
			if len(payloads) != tt.payloads || len(rows) != tt.rows || len(stored) != tt.rows {
				t.Errorf("%d payloads, %d rows with %d frames; want %d and %d", len(payloads), len(rows), len(stored), tt.payloads, tt.rows)
			}
			var got [][]byte
			numbers := make(map[uint32]bool)
			for _, p := range payloads {
				if len(p) > maxPayloadChars {
					t.Errorf("a payload of %d characters", len(p))
				}
				h, ok := headOf(p)
				if !ok || h.from != (tag{1, 2, 3}) || numbers[h.number] {
					t.Fatalf("head %+v, %v; want the sender's tag and a new number", h, ok)
				}
				numbers[h.number] = true
				items, ok := itemsOf(p)
				if !ok {
					t.Fatal("the items cannot be read")
				}
				for _, i := range items {
					if i.row != 0 {
						i.frame = stored[slices.Index(rows, int64(i.row))]
					}
					got = append(got, i.frame)
				}
			}
			if !slices.EqualFunc(got, frames, bytes.Equal) {
				t.Errorf("%d frames came out of %d, or other ones", len(got), len(frames))
			}
		})
	}
}

func TestItemsOf_RefusesWhatNoInstanceSends(t *testing.T) {
	after := func(b ...byte) string {
		return base64.RawStdEncoding.EncodeToString(append(make([]byte, headBytes), b...))
	}
	for _, tt := range []struct {
		name    string
		payload string
		ok      bool
	}{
		{"nothing is a question", after(), true},
		{"a frame", after(2<<1, 'a', 'b'), true},
		{"a frame that ends early", after(3<<1, 'a', 'b'), false},
		{"a length that ends early", after(0x80), false},
		{"a length beyond all bounds", after(binary.AppendUvarint(nil, 1<<63)...), false},
		{"rows", after(1<<1|1, 2<<1|1, 9<<1|1), true},
		{"a row twice", after(5<<1|1, 5<<1|1), false},
		{"rows that descend", after(5<<1|1, 4<<1|1), false},
		{"no row has number 0", after(1), false},
		{"another alphabet", after(2<<1, 'a', 'b')[:headChars] + "_-__", false},
		{"a rest that is no whole byte", after()[:headChars] + "A", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, ok := headOf(tt.payload); !ok {
				t.Fatal("the head cannot be read")
			}
			if items, ok := itemsOf(tt.payload); ok != tt.ok {
				t.Errorf("items %+v, %v; want %v", items, ok, tt.ok)
			}
		})
	}
	for _, payload := range []string{"", "AAAA", strings.Repeat("A", headChars-1), strings.Repeat("A", maxPayloadChars+1), strings.Repeat("A", headChars-1) + "\n", strings.Repeat("é", headChars/2)} {
		if h, ok := headOf(payload); ok {
			t.Errorf("the head of %.20q is %+v; want none", payload, h)
		}
	}
}

func TestCutAfterRows_BoundsWhatIsReadAtOnce(t *testing.T) {
	var items []item
	for i := range 5 {
		items = append(items, item{row: uint64(i + 1)}, item{frame: []byte{byte(i)}})
	}
	for _, tt := range []struct{ rows, want int }{{1, 1}, {2, 3}, {5, 9}, {6, 10}} {
		some, rest := cutAfterRows(items, tt.rows)
		if len(some) != tt.want || len(some)+len(rest) != len(items) {
			t.Errorf("cut after %d rows: %d and %d items, want %d first and all %d", tt.rows, len(some), len(rest), tt.want, len(items))
		}
	}
}

// Whatever a stranger notifies, what comes out is no larger than what went in.
func FuzzItemsOf(f *testing.F) {
	for _, frames := range [][][]byte{{}, {[]byte("a")}, {[]byte("a"), bytes.Repeat([]byte("b"), 6000), {}}, {bytes.Repeat([]byte("c"), 3000), bytes.Repeat([]byte("d"), 3000)}} {
		payloads, _, _ := packed(frames...)
		for _, p := range payloads {
			f.Add(p)
		}
	}
	f.Add("")
	f.Add(strings.Repeat("/", 100))
	f.Fuzz(func(t *testing.T, payload string) {
		h, ok := headOf(payload)
		if !ok {
			return
		}
		items, ok := itemsOf(payload)
		if !ok {
			return
		}
		// Written again it says the same.
		w := payloadWriter{next: func() head { return h }}
		w.begin()
		size, last := 0, uint64(0)
		for _, i := range items {
			size += len(i.frame)
			switch {
			case i.row == 0:
				if cap(i.frame) != len(i.frame) {
					t.Error("who appends to a frame writes into the next one")
				}
				w.frame(i.frame)
			case i.row <= last:
				t.Errorf("row %d after row %d", i.row, last)
			default:
				last = i.row
				w.row(i.row)
			}
		}
		if size > len(payload) {
			t.Errorf("%d bytes of frames in a payload of %d", size, len(payload))
		}
		w.flush()
		var again []item
		for _, p := range w.payloads {
			if g, ok := headOf(p); !ok || g != h {
				t.Errorf("the head %+v was written as %+v", h, g)
			}
			some, ok := itemsOf(p)
			if !ok {
				t.Error("what was written cannot be read")
			}
			again = append(again, some...)
		}
		if !slices.EqualFunc(items, again, func(a, b item) bool { return a.row == b.row && bytes.Equal(a.frame, b.frame) }) {
			t.Error("items are not what they were written as")
		}
	})
}

func TestChannel_NamesAreShortEnoughAndNeverCut(t *testing.T) {
	a, b := site.ID([]byte("carillon testing")), site.ID([]byte("carillon testinh"))
	seen := make(map[string]bool)
	for _, prefix := range []string{"carillon", strings.Repeat("p", 100), strings.Repeat("p", 101)} {
		s := settings{prefix: prefix}
		for _, of := range []site.ID{a, b} {
			for _, name := range []string{s.toAll(of), s.toOne(of, site.NewStreamID(1, 1)), s.toOne(of, site.NewStreamID(1, 2)), s.toOne(of, site.NewStreamID(1<<62, 1))} {
				if len(name) > maxNameBytes {
					t.Errorf("channel %q has %d bytes", name, len(name))
				}
				if seen[name] {
					t.Errorf("channel %q stands for two", name)
				}
				seen[name] = true
			}
		}
	}
	if got, want := (&settings{prefix: "carillon"}).toAll(a), "carillon:"+a.String()+":all"; got != want {
		t.Errorf("the channel of all is %q, want %q, which fits", got, want)
	}
}
