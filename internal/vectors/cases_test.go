package vectors

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/internal/plain"
)

// A cases collects vectors as they are to be. What is accepted has no outcome yet.
type cases struct {
	list []Vector
}

func (c *cases) add(v Vector) { c.list = append(c.list, v) }

// frame adds a frame for receivers that know the sites, and why it is refused, or "".
func (c *cases) frame(name, rule, refused string, b []byte, sites ...Site) {
	c.add(Vector{Name: name, Kind: "frame", Rule: rule, Sites: sites, Frame: b, Refused: refused})
}

// plainly adds a frame under the suite that does not encrypt.
func (c *cases) plainly(name, rule, refused string, f frame) {
	c.frame(name, rule, refused, f.hmac(), siteOf(hmacKey()))
}

// both adds a frame under each of the first two suites.
func (c *cases) both(name, rule, refused string, f frame) {
	c.frame("hmac "+name, rule, refused, f.hmac(), siteOf(hmacKey()))
	c.frame("gcm "+name, rule, refused, f.gcm(), siteOf(gcmKey()))
}

// allCases returns every vector in the order of the list.
func allCases(t *testing.T) []Vector {
	var c cases
	c.golden(t)
	c.headers()
	c.events()
	c.fragments()
	c.controls()
	c.tags()
	c.keys()
	c.derivations()
	c.proofs()
	c.handshakes()
	c.hashed(t)
	return c.list
}

// golden seals what internal/wire keeps without trailers.
func (c *cases) golden(t *testing.T) {
	unsealed(t, func(name string, f frame) { c.both(name, "the bodies of every type, sealed", "", f) })
}

// unsealed calls fn with what internal/wire keeps.
func unsealed(t *testing.T, fn func(name string, f frame)) {
	files, err := filepath.Glob("../wire/testdata/v1/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden frames, %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var digits strings.Builder
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.TrimSpace(line))
		}
		b := unhex(digits.String())
		be := binary.BigEndian
		f := frame{
			magic: "CRLN", version: 1, kind: b[5], key: hmacKeyID, site: [16]byte(b[16:]), stream: [16]byte(b[32:]),
			number: be.Uint64(b[48:]), ordinal: be.Uint64(b[56:]), count: be.Uint32(b[64:]), clock: int64(be.Uint64(b[68:])),
			body: b[headerLen:],
		}
		fn(strings.TrimSuffix(filepath.Base(name), ".hex"), f)
	}
}

// one is a frame of one event, as in the worked example.
func one() frame { return event(record(intro(page), intro(raiser), `{"page":17}`)) }

func (c *cases) headers() {
	set := func(name, rule, refused string, change func(*frame)) {
		c.plainly("header: "+name, rule, refused, one().but(change))
	}
	cut := func(name string, n int) {
		c.frame("length: "+name, "a frame has 76 to 1,048,576 bytes, and those that its length field states", "length", one().hmac()[:n], siteOf(hmacKey()))
	}
	c.frame("length: empty", "a frame has 76 to 1,048,576 bytes", "length", Hex{}, siteOf(hmacKey()))
	cut("one byte", 1)
	cut("a byte less than a header", headerLen-1)
	cut("a header alone", headerLen)
	cut("a byte less than the frame", len(one().hmac())-1)
	c.frame("length: a byte after the frame", "a datagram or message holds one frame and nothing else", "length", append(one().hmac(), 0), siteOf(hmacKey()))
	c.frame("length: two frames", "a datagram or message holds one frame and nothing else", "length", append(one().hmac(), one().hmac()...), siteOf(hmacKey()))
	set("length field one more", "the length field is that of the whole frame", "length", func(f *frame) { f.length = 1 })
	set("length field one less", "the length field is that of the whole frame", "length", func(f *frame) { f.length = -1 })
	set("length field without the trailer", "the length field is that of the whole frame", "length", func(f *frame) { f.length = -hmacLen })
	for _, n := range []int{largestLen, largestLen + 1} {
		name, refused := "length: the largest frame", ""
		if n > largestLen {
			name, refused = "length: one byte above the largest frame", "length"
		}
		value := n - headerLen - hmacLen - len(mark(1, 1)) - 1 - 3
		head := join(mark(1, 1), raw(9), u(uint64(value))) // an extension that nobody knows
		b := control(22, head, zeros(value)).hmac()
		at := headerLen + len(head)
		v := Vector{Name: name, Kind: "frame", Rule: "a frame has at most 1,048,576 bytes", Sites: []Site{siteOf(hmacKey())}, Refused: refused}
		v.Frame, v.Zeros = append(b[:at:at], b[at+value:]...), &Zeros{at, value}
		c.add(v)
	}
	set("magic", "the magic is CRLN", "magic", func(f *frame) { f.magic = "CRLM" })
	set("magic in lower case", "the magic is CRLN", "magic", func(f *frame) { f.magic = "crln" })
	set("magic of a connection", "CRLT begins handshakes, not frames", "magic", func(f *frame) { f.magic = "CRLT" })
	set("version 0", "this is wire version 1", "version", func(f *frame) { f.version = 0 })
	set("version 2", "this is wire version 1", "version", func(f *frame) { f.version = 2 })
	set("version 255", "this is wire version 1", "version", func(f *frame) { f.version = 255 })
	for _, kind := range []byte{0, 3, 15, 26, 127, 128, 255} {
		set(fmt.Sprintf("type %d", kind), "any other type is dropped", "type", func(f *frame) { f.kind = kind })
	}
	set("lowest flag", "version 1 defines no flag", "header", func(f *frame) { f.flags = 1 })
	set("highest flag", "version 1 defines no flag", "header", func(f *frame) { f.flags = 1 << 15 })
	set("key 0", "a key ID is 1 or more", "header", func(f *frame) { f.key = 0 })
	set("site 0", "the site ID is not all zero", "header", func(f *frame) { f.site = [16]byte{} })
	set("stream 0", "the stream ID is not all zero", "header", func(f *frame) { f.stream = [16]byte{} })
	set("number 0", "frame numbers are 1 to 2^48 - 1", "header", func(f *frame) { f.number = 0 })
	set("number 1", "frame numbers are 1 to 2^48 - 1", "", func(f *frame) { f.number = 1 })
	set("number 2^48 - 1", "frame numbers are 1 to 2^48 - 1", "", func(f *frame) { f.number = 1<<48 - 1 })
	set("number 2^48", "frame numbers are 1 to 2^48 - 1", "header", func(f *frame) { f.number = 1 << 48 })
	set("number 2^64 - 1", "frame numbers are 1 to 2^48 - 1", "header", func(f *frame) { f.number = math.MaxUint64 })
	set("ordinal 0", "the first event has ordinal 0", "", func(f *frame) { f.ordinal = 0 })
	set("ordinal 2^48 - 2", "ordinal + event count is below 2^48", "", func(f *frame) { f.ordinal = 1<<48 - 2 })
	set("ordinal 2^48 - 1", "ordinal + event count is below 2^48", "header", func(f *frame) { f.ordinal = 1<<48 - 1 })
	set("ordinal 2^48", "ordinal + event count is below 2^48", "header", func(f *frame) { f.ordinal = 1 << 48 })
	set("ordinal that wraps", "ordinal + event count is below 2^48, without overflow", "header", func(f *frame) { f.ordinal = math.MaxUint64 })
	set("clock before 1970", "the clock may be anything", "", func(f *frame) { f.clock = -1 })
	set("smallest clock", "the clock may be anything", "", func(f *frame) { f.clock = math.MinInt64 })
	set("largest clock", "the clock may be anything", "", func(f *frame) { f.clock = math.MaxInt64 })
	set("events without one", "EVENTS count 1 or more", "header", func(f *frame) { f.count = 0 })
	// 4 × 20 = 80 bytes behind the header: just as many as 20 events need at the least.
	full := events(20, raw(0), id(page), raw(1, 0, 0), repeat(28, func(int) []byte { return raw(1) }))
	c.plainly("header: as many events as bytes allow", "4 × event count is at most length − 76, which the trailer counts into; the body has fewer", "body", full)
	c.plainly("header: an event more than bytes allow", "4 × event count is at most length − 76", "header", full.but(func(f *frame) { f.count = 21 }))
	set("2^32 - 1 events", "4 × event count is at most length − 76, without overflow", "header", func(f *frame) { f.count = math.MaxUint32 })
	c.plainly("header: fragment with two events", "FRAGMENT counts 0 or 1", "header", fragment(2, raw(0, 2, 9), []byte("chunk")))
	c.plainly("header: control frame with an event", "control frames count 0", "header", control(22, mark(1, 1)).but(func(f *frame) { f.count = 1 }))
	c.plainly("header: control frame with an ordinal", "control frames have ordinal 0", "header", control(22, mark(1, 1)).but(func(f *frame) { f.ordinal = 1 }))
	c.plainly("header: events in a frame of its own kind only", "the type says what the body is: this is a BYE of one mark", "", control(22, mark(1, 1)))
}

func (c *cases) events() {
	ok := func(name, rule string, f frame) { c.plainly("events: "+name, rule, "", f) }
	bad := func(name, rule string, f frame) { c.plainly("events: "+name, rule, "body", f) }
	known := record(intro(page), intro(raiser), "a")

	ok("two records", "as many records as the header counts", events(2, known, record(raw(1), raw(2), "b")))
	bad("no body", "as many records as the header counts", event())
	bad("a record too few", "as many records as the header counts", events(2, known))
	bad("a record too many", "nothing comes after the last record", event(known, record(raw(1), raw(2), "b")))
	bad("a byte after the last record", "nothing comes after the last record", event(known, raw(0)))
	bad("first ID cut short", "a body ends after a field", event(raw(0), id(page)[:15]))
	bad("no raiser", "a body ends after a field", event(intro(page)))
	bad("no extension length", "a body ends after a field", event(intro(page), raw(1)))
	bad("no payload length", "a body ends after a field", event(intro(page), raw(1, 0)))
	bad("payload cut short", "a body ends after a field", event(intro(page), raw(1, 0, 3), []byte("ab")))
	bad("payload of 2^48 - 1 bytes", "a length is held against what is left", event(intro(page), raw(1, 0), most))
	bad("payload length 2^48", "every uvarint is below 2^48", event(intro(page), raw(1, 0), tooBig))
	bad("payload length of ten bytes", "every uvarint is below 2^48", event(intro(page), raw(1, 0), u(math.MaxUint64)))
	bad("payload length that overflows", "a uvarint has at most 64 bits", event(intro(page), raw(1, 0), raw(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)))
	bad("payload length without an end", "a body ends after a field", event(intro(page), raw(1, 0), raw(0x80)))
	bad("payload length in a longer form", "only the shortest form is valid", event(intro(page), raw(1, 0), long, []byte("a")))
	bad("payload length 0 in a longer form", "only the shortest form is valid", event(intro(page), raw(1, 0), raw(0x80, 0)))
	bad("extension length in a longer form", "only the shortest form is valid", event(intro(page), raw(1, 0x80, 0, 0)))
	bad("reference in a longer form", "only the shortest form is valid", event(intro(page), long, raw(0, 0)))
	bad("introduction in a longer form", "only the shortest form is valid", event(raw(0x80, 0), id(page), raw(1, 0, 0)))

	ok("raiser is the event", "an idref refers to what the same record introduced", event(record(intro(page), raw(1), "a")))
	ok("ID introduced twice takes two places", "an ID may be introduced twice", events(2, record(intro(page), intro(page), "a"), record(raw(2), raw(1), "b")))
	bad("reference before any introduction", "a reference is to what was introduced before", event(record(raw(1), intro(page), "a")))
	bad("reference one too far", "a reference is to what was introduced before", event(record(intro(page), raw(2), "a")))
	bad("reference 2^48", "every uvarint is below 2^48", event(record(intro(page), tooBig, "a")))
	bad("reference to the record behind", "a reference is to what was introduced before", events(2, record(intro(page), raw(2), "a"), record(intro(link), raw(1), "b")))
	many := func(last byte) frame { // 66 IDs are introduced; 64 of them can be referred to
		return events(34, repeat(33, func(i int) []byte {
			return join(raw(0), numbered(2*i), raw(0), numbered(2*i+1), raw(0, 0))
		}), record(raw(last), raw(1), "z"))
	}
	ok("reference to the 64th ID", "the dictionary holds the first 64 IDs", many(64))
	bad("reference to the 65th ID", "the dictionary holds the first 64 IDs", many(65))
	bad("reference to the 66th ID", "the dictionary holds the first 64 IDs", many(66))
	bad("reference 255 in two bytes", "the dictionary holds the first 64 IDs", event(record(intro(page), u(255), "a")))

	ok("order 1", "extension 1 is the order", event(extended(raw(1, 1, 1), "a")))
	ok("order 2^48 - 1", "the order is below 2^48", event(extended(join(raw(1, 7), most), "a")))
	bad("order 0", "the order is 1 or more", event(extended(raw(1, 1, 0), "a")))
	bad("order 2^48", "the order is below 2^48", event(extended(join(raw(1, 7), tooBig), "a")))
	bad("order empty", "the order is a uvarint", event(extended(raw(1, 0), "a")))
	bad("order with a byte behind it", "nothing comes after the order", event(extended(raw(1, 2, 5, 0), "a")))
	bad("order in a longer form", "only the shortest form is valid", event(extended(raw(1, 2, 0x81, 0), "a")))
	ok("reserved and unknown extensions", "a reader skips types that it does not know", event(extended(join(raw(2, 1, 0xee, 3, 0, 4, 2, 1, 2, 5, 0, 6, 1, 9), u(300), raw(1, 7)), "a")))
	ok("order beside unknown extensions", "a reader skips types that it does not know", event(extended(join(raw(1, 1, 77, 9, 1, 0xff)), "a")))
	bad("extension type 0", "extension types are 1 or more", event(extended(raw(0, 1, 1), "a")))
	bad("extension twice", "no extension comes twice", event(extended(raw(9, 0, 9, 0), "a")))
	bad("extensions descending", "extension types ascend", event(extended(raw(9, 0, 8, 0), "a")))
	bad("order behind another", "extension types ascend", event(extended(raw(2, 0, 1, 1, 1), "a")))
	bad("extension longer than its area", "the area ends with an extension", event(extended(raw(9, 5, 1), "aaaaaaaaaaaa")))
	bad("extension without a length", "the area ends with an extension", event(extended(raw(9), "a")))
	bad("extension type in a longer form", "only the shortest form is valid", event(extended(raw(0x89, 0, 0), "a")))
	bad("extension length in a longer form, in the area", "only the shortest form is valid", event(extended(raw(9, 0x80, 0), "a")))
	bad("extension type 2^48", "every uvarint is below 2^48", event(extended(join(tooBig, raw(0)), "a")))
	bad("extension area longer than the body", "a body ends after a field", event(intro(page), raw(1, 100, 9, 0)))
}

func (c *cases) fragments() {
	ok := func(name, rule string, f frame) { c.plainly("fragment: "+name, rule, "", f) }
	bad := func(name, rule string, f frame) { c.plainly("fragment: "+name, rule, "body", f) }
	chunk := []byte("chunk")
	const first, last = 0, 1

	ok("first of two", "index, total, size, chunk", fragment(first, raw(0, 2, 9), chunk))
	ok("last of two", "the last counts the event", fragment(last, raw(1, 2, 9), chunk))
	ok("last of the most", "at most 65,536 fragments and 67,108,864 bytes", fragment(last, u(65535), u(65536), u(1<<26), chunk))
	ok("chunk leaves one byte for the other", "a chunk leaves a byte for each of the others", fragment(first, raw(0, 2, 6), chunk))
	bad("chunk leaves nothing", "a chunk leaves a byte for each of the others", fragment(first, raw(0, 2, 5), chunk))
	bad("chunk leaves less than a byte each", "a chunk leaves a byte for each of the others", fragment(first, raw(0, 4, 7), chunk))
	bad("chunk larger than all", "a chunk leaves a byte for each of the others", fragment(first, raw(0, 2, 4), chunk))
	bad("no chunk", "a chunk has a byte at the least", fragment(first, raw(0, 2, 9)))
	bad("total 0", "total is 2 or more", fragment(last, raw(0, 0, 9), chunk))
	bad("total 1", "total is 2 or more", fragment(last, raw(0, 1, 9), chunk))
	bad("total 65,537", "total is at most 65,536", fragment(first, raw(0), u(65537), u(1<<26), chunk))
	bad("index is total", "index is below total", fragment(first, raw(2, 2, 9), chunk))
	bad("index 65,536", "index is below total", fragment(first, u(65536), u(65536), u(1<<26), chunk))
	bad("size above the limit", "size is at most 67,108,864", fragment(first, raw(0, 2), u(1<<26+1), chunk))
	bad("size 2^64 - 1", "size is at most 67,108,864", fragment(first, raw(0, 2), u(math.MaxUint64), chunk))
	bad("size 0", "size is total at the least", fragment(first, raw(0, 2, 0), chunk))
	bad("first counts an event", "the event count is 1 in the last only", fragment(last, raw(0, 2, 9), chunk))
	bad("last counts none", "the event count is 1 in the last", fragment(first, raw(1, 2, 9), chunk))
	bad("empty body", "a body ends after a field", fragment(first))
	bad("no total", "a body ends after a field", fragment(first, raw(0)))
	bad("no size", "a body ends after a field", fragment(first, raw(0, 2)))
	bad("index in a longer form", "only the shortest form is valid", fragment(first, raw(0x80, 0, 2, 9), chunk))
	bad("total in a longer form", "only the shortest form is valid", fragment(first, raw(0, 0x82, 0, 9), chunk))
	bad("size in a longer form", "only the shortest form is valid", fragment(first, raw(0, 2, 0x89, 0), chunk))

	whole := record(intro(page), raw(1), "a payload that fits into no frame")
	c.records("in three unequal chunks", "chunks need not be equally long", "", whole, 1, 20)
	c.records("with an ID of its own for the raiser", "a record has a dictionary of its own", "", record(intro(page), intro(raiser), "payload"), 17, 18)
	c.records("two records", "the chunks are one record and nothing after it", "body", join(whole, record(raw(1), raw(1), "b")), 10, 30)
	c.records("a byte behind the record", "the chunks are one record and nothing after it", "body", append(whole, 0), 10, 30)
	c.records("cut short", "the chunks are one record", "body", whole[:len(whole)-1], 10, 30)
	c.records("that refers to another frame's ID", "a record has a dictionary of its own", "body", record(raw(1), raw(1), "payload"), 2, 5)
}

// records adds the fragments of a record, cut at two places.
func (c *cases) records(name, rule, refused string, rec []byte, a, b int) {
	v := Vector{Name: "record: " + name, Kind: "record", Rule: rule, Sites: []Site{siteOf(hmacKey())}, Refused: refused}
	for i, chunk := range [][]byte{rec[:a], rec[a:b], rec[b:]} {
		f := fragment(uint32(i/2), raw(byte(i), 3), u(uint64(len(rec))), chunk)
		f.number += uint64(i)
		v.Frames = append(v.Frames, f.hmac())
	}
	c.add(v)
}

func (c *cases) controls() {
	ok := func(name, rule string, kind byte, body ...[]byte) { c.plainly(name, rule, "", control(kind, body...)) }
	bad := func(name, rule string, kind byte, body ...[]byte) {
		c.plainly(name, rule, "body", control(kind, body...))
	}
	const heartbeat, nak, gone, hello, state, ack, bye, reset, digest, witness = 16, 17, 18, 19, 20, 21, 22, 23, 24, 25
	const ends, limits, shortest, below = "a body ends after a field", "a list has at most as many entries as its type allows", "only the shortest form is valid", "every uvarint is below 2^48"
	short := map[byte][]byte{ // a whole body of every type
		heartbeat: mark(1, 1), nak: join(id(peer), raw(0, 1, 1)), gone: raw(1, 0, 2, 3, 0), hello: id(peer), state: raw(1, 1, 0), ack: nil,
		bye: raw(1), reset: join(id(peer), raw(1, 1)), digest: nil, witness: join(id(peer), id(page), id(link)),
	}
	for kind := byte(heartbeat); kind <= witness; kind++ {
		bad(fmt.Sprintf("control %d without its last field", kind), ends, kind, short[kind])
	}
	bad("heartbeat: frame 2^48", below, heartbeat, tooBig, raw(1, 1))
	bad("heartbeat: next 2^48", below, heartbeat, raw(1), tooBig, raw(1))
	bad("heartbeat: low 2^48", below, heartbeat, raw(1, 1), tooBig)
	bad("heartbeat: frame in a longer form", shortest, heartbeat, long, raw(1, 1))
	ok("heartbeat: unknown extensions", "an extension area fills the rest of a control body", heartbeat, raw(1, 1, 1, 1, 0, 2, 1, 'x'))
	bad("heartbeat: extension type 0", "extension types are 1 or more", heartbeat, raw(1, 1, 1, 0, 0))
	bad("heartbeat: extension twice", "no extension comes twice", heartbeat, raw(1, 1, 1, 5, 0, 5, 0))
	bad("heartbeat: extensions descending", "extension types ascend", heartbeat, raw(1, 1, 1, 5, 0, 4, 0))
	bad("heartbeat: extension cut short", "the area ends with an extension", heartbeat, raw(1, 1, 1, 5, 2, 0))
	bad("heartbeat: extension without a length", "the area ends with an extension", heartbeat, raw(1, 1, 1, 5))

	ranges := func(n int) []byte {
		return join(u(uint64(n)), repeat(n, func(i int) []byte { return join(u(uint64(2*i+1)), raw(0)) }))
	}
	ok("nak: touching ranges", "touching ranges are valid", nak, id(peer), raw(0, 2, 1, 1, 3, 0))
	ok("nak: up to the last number", "first + more is below 2^48", nak, id(peer), raw(0, 1, 1), u(1<<48-2))
	ok("nak: 256 ranges", limits, nak, id(peer), raw(1), ranges(256))
	bad("nak: 257 ranges", limits, nak, id(peer), raw(1), ranges(257))
	bad("nak: no range", "a NAK has 1 range or more", nak, id(peer), raw(0, 0))
	bad("nak: frame 0", "ranges begin with 1 or more", nak, id(peer), raw(0, 1, 0, 0))
	bad("nak: overlapping", "ranges are disjoint", nak, id(peer), raw(0, 2, 1, 1, 2, 0))
	bad("nak: twice the same", "ranges are disjoint", nak, id(peer), raw(0, 2, 1, 0, 1, 0))
	bad("nak: descending", "ranges ascend", nak, id(peer), raw(0, 2, 5, 0, 3, 0))
	bad("nak: beyond the last number", "first + more is below 2^48", nak, id(peer), raw(0, 1, 1), most)
	bad("nak: beyond the last number from it", "first + more is below 2^48", nak, id(peer), raw(0, 1), most, raw(1))
	bad("nak: first 2^48", below, nak, id(peer), raw(0, 1), tooBig, raw(0))
	bad("nak: another flag", "a flag is 0 or 1", nak, id(peer), raw(2, 1, 1, 0))
	bad("nak: more ranges than bytes", ends, nak, id(peer), raw(0, 3, 1, 0, 3, 0))
	bad("nak: 2^48 ranges", limits, nak, id(peer), raw(0), tooBig)
	bad("nak: more of it in a longer form", shortest, nak, id(peer), raw(0, 1, 1, 0x80, 0))

	ok("gone: no event known", "the list may be empty", gone, raw(5, 4, 10, 10, 0, 0))
	bad("gone: frame 0", "ranges begin with 1 or more", gone, raw(0, 1, 0, 0, 0, 0))
	bad("gone: ordinals reversed", "next is not below first", gone, raw(1, 0, 2, 1, 0, 0))
	bad("gone: beyond the last number", "first + more is below 2^48", gone, raw(2), most, raw(0, 0, 0, 0))
	bad("gone: an event 0 times", "a count is 1 or more", gone, raw(1, 0, 2, 3, 1), id(page), raw(0, 0))
	bad("gone: another flag", "a flag is 0 or 1", gone, raw(1, 0, 2, 3, 0, 2))
	bad("gone: 1,025 entries", limits, gone, raw(1, 0, 2), u(5000), u(1025), repeat(1025, func(i int) []byte { return join(numbered(i), raw(1)) }), raw(1))
	bad("gone: more entries than bytes", ends, gone, raw(1, 0, 2, 3, 1, 0))
	bad("gone: ordinal 2^48", below, gone, raw(1, 0), tooBig, tooBig, raw(0, 0))

	ok("hello: 1,024 streams", limits, hello, id(page), u(1024), repeat(1024, numbered))
	bad("hello: 1,025 streams", limits, hello, id(page), u(1025), repeat(1025, numbered))
	bad("hello: nonce cut short", ends, hello, id(page)[:15])
	bad("hello: more streams than there are", ends, hello, id(page), raw(2), id(peer))

	entry := func(tail ...byte) func(int) []byte { return func(i int) []byte { return join(numbered(i), tail) } }
	bad("state: 1,025 nonces", limits, state, mark(1, 1), u(1025), repeat(1025, numbered), raw(0))
	bad("state: 1,025 others", limits, state, mark(1, 1), raw(0), u(1025), repeat(1025, entry(1, 1)))
	bad("state: more others than bytes", ends, state, mark(1, 1), raw(0, 1), id(peer), raw(1))
	bad("state: mark of another 2^48", below, state, mark(1, 1), raw(0, 1), id(peer), tooBig, raw(1))
	bad("ack: 1,025 entries", limits, ack, u(1025), repeat(1025, entry(1, 1, 0)))
	bad("ack: credit 2^48", below, ack, raw(1), id(peer), raw(1, 1), tooBig)
	bad("ack: more entries than bytes", ends, ack, raw(2), id(peer), raw(1, 1, 0))
	ok("digest: 1,024 entries", limits, digest, u(1024), repeat(1024, entry(1, 1)))
	bad("digest: 1,025 entries", limits, digest, u(1025), repeat(1025, entry(1, 1)))
	bad("digest: length in a longer form", shortest, digest, raw(0x80, 0))
	bad("bye: next 2^48", below, bye, raw(1), tooBig)
	bad("bye: a byte behind", "the area ends with an extension", bye, mark(1, 1), raw(1))
	bad("reset: another flag", "a flag is 0 or 1", reset, id(peer), mark(1, 1), raw(2))
	ok("witness: a question", "a question answers nothing", witness, id(peer), id(page), zeros(16), raw(0))
	ok("witness: an answer that saw nothing", "0 if the sender did not read it", witness, id(peer), id(page), id(link), raw(0))
	bad("witness: a question that saw", "1 is malformed in a question", witness, id(peer), id(page), zeros(16), raw(1))
	bad("witness: another flag", "a flag is 0 or 1", witness, id(peer), id(page), id(link), raw(0xff))
}

// altered changes b, and returns it.
func altered(b []byte, at int, mask byte) []byte {
	b[at] ^= mask
	return b
}

// tags adds frames that somebody altered or sealed in another way.
func (c *cases) tags() {
	h, g := siteOf(hmacKey()), siteOf(gcmKey())
	for _, field := range []struct {
		name string
		at   int
		mask byte
	}{
		{"stream's epoch", 39, 1}, {"stream's random half", 47, 0x80}, {"number", 55, 1}, {"clock", 75, 1},
	} {
		c.frame("hmac tag: altered "+field.name, "the tag covers the header", "tag", altered(one().hmac(), field.at, field.mask), h)
		c.frame("gcm tag: altered "+field.name, "the header is associated data", "tag", altered(one().gcm(), field.at, field.mask), g)
	}
	retyped := func(b []byte) []byte { b[5] = 22; return b } // a HEARTBEAT's body read as a BYE's
	c.frame("hmac tag: altered type", "the tag covers the header", "tag", retyped(control(16, raw(1, 1, 1)).hmac()), h)
	c.frame("gcm tag: altered type", "the header is associated data", "tag", retyped(control(16, raw(1, 1, 1)).gcm()), g)
	c.frame("hmac tag: altered ordinal", "the tag covers the header", "tag", altered(one().hmac(), 63, 1), h)
	c.frame("gcm tag: altered ordinal", "the header is associated data", "tag", altered(one().gcm(), 63, 1), g)
	two := events(2, record(intro(page), raw(1), "a"), record(raw(1), raw(1), "b"))
	c.frame("hmac tag: altered event count", "the tag covers the header", "tag", altered(two.hmac(), 67, 3), h)
	c.frame("hmac tag: altered first byte of the body", "the tag covers the body", "tag", altered(one().hmac(), headerLen, 1), h)
	end := len(one().hmac())
	c.frame("hmac tag: altered last byte of the body", "the tag covers the body", "tag", altered(one().hmac(), end-hmacLen-1, 0x80), h)
	c.frame("hmac tag: altered first byte", "all bytes of the tag count", "tag", altered(one().hmac(), end-hmacLen, 0x80), h)
	c.frame("hmac tag: altered byte 16", "all bytes of the tag count: none is left out", "tag", altered(one().hmac(), end-16, 1), h)
	c.frame("hmac tag: altered last byte", "all bytes of the tag count", "tag", altered(one().hmac(), end-1, 1), h)
	c.frame("hmac tag: zeros", "the tag is compared", "tag", append(one().hmac()[:end-hmacLen], zeros(hmacLen)...), h)
	swapped := one().hmac()
	c.frame("hmac tag: of another frame", "a tag belongs to one frame", "tag", append(swapped[:end-hmacLen], event(record(intro(page), intro(raiser), `{"page":18}`)).hmac()[end-hmacLen:]...), h)

	// Sealed in another way than the document says.
	key := under(hmacKey(), ourSite, stream)
	body := append(one().header(hmacLen), one().body...)
	wrong := func(name, rule string, tag []byte) {
		c.frame("hmac tag: "+name, rule, "tag", append(body[:len(body):len(body)], tag...), h)
	}
	wrong("without the context", "the context string comes first", sum(key, body))
	wrong("context without its zero byte", "the context string ends with a zero byte", sum(key, []byte("carillon frame v1"), body))
	wrong("context of proofs", "frames and proofs have different contexts", sum(key, []byte("carillon proof v1\x00"), body))
	wrong("without the header", "the tag covers the header", sum(key, frameContext, one().body))
	wrong("the secret itself as the key", "a secret is used for nothing but deriving keys", sum(testSecret(""), frameContext, body))
	derived := func(name, rule string, k Key, site, stream [16]byte) {
		wrong(name, rule, sum(under(k, site, stream), frameContext, body))
	}
	derived("key of another stream", "a key belongs to one stream", hmacKey(), ourSite, peer)
	derived("key of stream zero", "a key belongs to one stream", hmacKey(), ourSite, [16]byte{})
	derived("key of another site", "the info names the site", hmacKey(), otherSite, stream)
	derived("key of another version", "the info names the version", with(hmacKey(), func(k *Key) { k.Version = 2 }), ourSite, stream)
	derived("key of another suite", "the info names the suite", with(hmacKey(), func(k *Key) { k.Suite = gcmSuite }), ourSite, stream)
	derived("key of another key ID", "the info names the key", with(hmacKey(), func(k *Key) { k.ID = 4 }), ourSite, stream)
	derived("key of another secret", "only holders of the secret seal", with(hmacKey(), func(k *Key) { k.TestSecret = testSecret("of somebody else") }), ourSite, stream)
	p := plain.Key{ID: hmacKeyID, Suite: hmacSuite, Version: 1, Secret: testSecret("")}
	_, proofKey := plain.Derive(&p, ourSite, "proof", stream[:])
	wrong("key for proofs", "no two uses share a key", sum(proofKey, frameContext, body))

	short := one().but(func(f *frame) { f.length = -16 }).header(hmacLen)
	short = append(short, one().body...)
	c.frame("hmac tag: half of it", "the tag has 32 bytes", "tag", append(short, sum(key, frameContext, short)[:16]...), h)
	bare := control(22).but(func(f *frame) { f.length = -hmacLen }).header(hmacLen)
	c.frame("hmac tag: no trailer at all", "a frame has a header and a trailer at the least", "tag", bare, h)
	c.frame("gcm tag: no trailer at all", "a frame has a header and a trailer at the least", "tag",
		control(22).but(func(f *frame) { f.length, f.key = -gcmLen, gcmKeyID }).header(gcmLen), g)

	// AES-256-GCM.
	e := one()
	e.key = gcmKeyID
	gkey := under(gcmKey(), ourSite, stream)
	end = len(e.gcm())
	change := func(name, rule string, at int, mask byte) {
		c.frame("gcm tag: "+name, rule, "tag", altered(e.gcm(), at, mask), g)
	}
	change("altered first byte of the ciphertext", "the tag covers the ciphertext", headerLen, 1)
	change("altered last byte of the ciphertext", "the tag covers the ciphertext", end-gcmLen-1, 1)
	change("altered first byte", "all bytes of the tag count", end-gcmLen, 1)
	change("altered last byte", "all bytes of the tag count", end-7, 0x80)
	change("altered first byte carried", "altering carried alters the nonce", end-6, 1)
	change("altered top bit carried", "altering carried alters the nonce", end-6, 0x80)
	change("altered last byte carried", "altering carried alters the nonce", end-1, 1)
	carriedFirst := append([]byte(nil), e.gcm()...)
	copy(carriedFirst[end-gcmLen:], join(e.gcm()[end-6:], e.gcm()[end-gcmLen:end-6]))
	c.frame("gcm tag: carried before the tag", "the trailer is the tag, then carried", "tag", carriedFirst, g)
	sealed := func(name, rule string, b []byte) { c.frame("gcm tag: "+name, rule, "tag", b, g) }
	n := e.nonce()
	sealed("nonce in the other order", "the nonce begins with the number", otherOrder(e, gkey))
	sealed("nonce from the upper half of the number", "the nonce has the lower 48 bits of the number", sealedWith(e, gkey, join(binary.BigEndian.AppendUint64(nil, e.number)[:6], n[6:])))
	sealed("nonce little endian", "the number in the nonce is big endian", sealedWith(e, gkey, join(binary.LittleEndian.AppendUint64(nil, e.number)[:6], n[6:])))
	sealed("no associated data", "the header is associated data", e.gcmWith(gkey, n, nil))
	sealed("context as associated data", "the header alone is associated data", e.gcmWith(gkey, n, join(frameContext, e.header(gcmLen))))
	sealed("key of another stream", "a key belongs to one stream", e.gcmWith(under(gcmKey(), ourSite, peer), n, e.header(gcmLen)))
	sealed("key of suite 1", "the info names the suite", e.gcmWith(under(with(gcmKey(), func(k *Key) { k.Suite = hmacSuite }), ourSite, stream), n, e.header(gcmLen)))
	sealed("body in the clear", "the body is replaced by its ciphertext", join(e.header(gcmLen), e.body, e.gcm()[end-gcmLen:]))
	c.frame("gcm: carried of a control frame in an event frame", "a receiver takes carried as it is", "", sealedWith(e, gkey, join(n[:6], raw(n[6]|0x80), n[7:])), g)
	c.frame("gcm: carried all zero", "a receiver takes carried as it is", "", sealedWith(e, gkey, join(n[:6], zeros(6))), g)
	c.frame("gcm: malformed body", "what is sealed may still be malformed", "body", event(raw(0), id(page)[:15]).gcm(), g)

	c.frame("suite: HMAC under a key of suite 2", "the suite is that of the key", "tag", one().but(func(f *frame) { f.key = gcmKeyID }).hmacWith(gkey), g)
	c.frame("suite: GCM under a key of suite 1", "the suite is that of the key", "tag", func() []byte {
		f := one()
		return f.gcmWith(key, f.nonce(), f.header(gcmLen))
	}(), h)
}

// otherOrder seals f with the two halves of its nonce exchanged, and carries the right one.
func otherOrder(f frame, key []byte) []byte {
	n := f.nonce()
	b := f.gcmWith(key, join(n[6:], n[:6]), f.header(gcmLen))
	return append(b[:len(b)-6], n[6:]...)
}

// sealedWith seals f under suite 2 with the nonce given, and carries its last six bytes.
func sealedWith(f frame, key, nonce []byte) []byte { return f.gcmWith(key, nonce, f.header(gcmLen)) }

// keys adds frames that are sealed well, and what the receiver makes of the key.
func (c *cases) keys() {
	state := func(s string) Site { return siteOf(with(hmacKey(), func(k *Key) { k.State = s })) }
	c.frame("key: pending", "pending keys open frames", "", one().hmac(), state("pending"))
	c.frame("key: active", "active keys open frames", "", one().hmac(), state("active"))
	c.frame("key: retiring", "retiring keys open frames", "", one().hmac(), state("retiring"))
	c.frame("key: revoked", "revoked keys do not", "revoked", one().hmac(), state("revoked"))
	c.frame("key: compromised", "compromised keys do not", "revoked", one().hmac(), state("compromised"))
	c.frame("key: revoked, and the tag is wrong", "what is revoked is refused before a tag is computed", "revoked", append(one().hmac()[:headerLen], zeros(len(one().hmac())-headerLen)...), state("revoked"))
	c.frame("key: of no ring", "the key ID is one of the site's", "key", one().hmac(), siteOf(with(hmacKey(), func(k *Key) { k.ID = 5 })))
	c.frame("key: largest ID", "key IDs have 32 bits", "", one().but(func(f *frame) { f.key = math.MaxUint32 }).hmac(), siteOf(with(hmacKey(), func(k *Key) { k.ID = math.MaxUint32 })))
	c.frame("key: empty ring", "the key ID is one of the site's", "key", one().hmac(), siteOf())
	ring := siteOf(with(hmacKey(), func(k *Key) { k.ID, k.State, k.TestSecret = 2, "retiring", testSecret("two") }), hmacKey(),
		with(gcmKey(), func(k *Key) { k.State, k.TestSecret = "pending", testSecret("four") }))
	old := one().but(func(f *frame) { f.key = 2 })
	c.frame("key: the one named and no other", "the header names the key", "", old.hmacWith(under(ring.Keys[0], ourSite, stream)), ring)
	c.frame("key: another of the ring", "the header names the key: no other is tried", "tag", old.hmacWith(under(hmacKey(), ourSite, stream)), ring)
	c.frame("key: version of its own", "a key of an unknown version is not used", "unsupported", one().hmac(), siteOf(with(hmacKey(), func(k *Key) { k.Version = 2 })))
	c.frame("key: suite 0", "a key of an unknown suite is not used", "unsupported", one().hmac(), siteOf(with(hmacKey(), func(k *Key) { k.Suite = 0 })))
	c.frame("key: suite 3", "a key of an unknown suite is not used", "unsupported", one().hmac(), siteOf(with(hmacKey(), func(k *Key) { k.Suite = 3 })))

	floor := func(encryption bool, version uint8, k Key) Site {
		s := siteOf(k)
		s.EncryptionRequired, s.LowestVersion = encryption, version
		return s
	}
	c.frame("floor: encryption required, HMAC", "floors refuse keys below them", "floor", one().hmac(), floor(true, 1, hmacKey()))
	c.frame("floor: encryption required, GCM", "floors refuse keys below them", "", one().gcm(), floor(true, 1, gcmKey()))
	c.frame("floor: version 2, HMAC", "floors refuse keys below them", "floor", one().hmac(), floor(false, 2, hmacKey()))
	c.frame("floor: version 2, GCM", "floors refuse keys below them", "floor", one().gcm(), floor(false, 2, gcmKey()))
	c.frame("floor: encryption required, control frame", "floors hold for control frames", "floor", control(22, mark(1, 1)).hmac(), floor(true, 1, hmacKey()))

	other := Site{ID: otherSite[:], LowestVersion: 1, Keys: []Key{with(hmacKey(), func(k *Key) { k.TestSecret = testSecret("of the other site") })}}
	theirs := one().but(func(f *frame) { f.site = otherSite })
	c.frame("site: another that is accepted", "the site is one that is accepted", "", theirs.hmacWith(under(other.Keys[0], otherSite, stream)), siteOf(hmacKey()), other)
	c.frame("site: another that is not", "the site is one that is accepted", "site", theirs.hmacWith(under(other.Keys[0], otherSite, stream)), siteOf(hmacKey()))
	c.frame("site: none is accepted", "the site is one that is accepted", "site", one().hmac())
	c.frame("site: the key of another", "a site's keys open its frames only", "tag", one().hmacWith(under(other.Keys[0], otherSite, stream)), siteOf(hmacKey()), other)
	c.frame("site: the secret of another", "a site's keys open its frames only", "tag", one().hmacWith(under(other.Keys[0], ourSite, stream)), siteOf(hmacKey()), other)
	same := Site{ID: otherSite[:], LowestVersion: 1, Keys: []Key{hmacKey()}}
	c.frame("site: a frame of a copy of the database under another ID", "the info names the site, so one secret in two sites gives two keys", "tag", theirs.hmacWith(under(hmacKey(), ourSite, stream)), siteOf(hmacKey()), same)
	floors := floor(true, 1, gcmKey())
	c.frame("floor: of one site is not that of another", "floors belong to a site", "", theirs.hmacWith(under(other.Keys[0], otherSite, stream)), floors, other)
}

func (c *cases) derivations() {
	for _, d := range []struct {
		name   string
		key    Key
		site   [16]byte
		stream [16]byte
		label  string
	}{
		{name: "the worked example", key: hmacKey(), site: ourSite, stream: stream},
		{name: "the worked example, suite 2", key: gcmKey(), site: ourSite, stream: stream},
		{name: "another stream", key: hmacKey(), site: ourSite, stream: peer},
		{name: "another site", key: hmacKey(), site: otherSite, stream: stream},
		{name: "another key ID", key: with(hmacKey(), func(k *Key) { k.ID = 0x01020304 }), site: ourSite, stream: stream},
		{name: "another secret", key: with(hmacKey(), func(k *Key) { k.TestSecret = testSecret("another") }), site: ourSite, stream: stream},
		{name: "a secret of zeros", key: with(hmacKey(), func(k *Key) { k.TestSecret = zeros(32) }), site: ourSite, stream: stream},
		{name: "a proof", key: hmacKey(), site: ourSite, label: "example"},
		{name: "a proof, suite 2", key: gcmKey(), site: ourSite, label: "example"},
		{name: "a proof of who dialled", key: hmacKey(), site: ourSite, label: "tcp v1 initiator"},
		{name: "a proof of who listened", key: hmacKey(), site: ourSite, label: "tcp v1 acceptor"},
	} {
		v := Vector{Name: "derivation: " + d.name, Kind: "derivation", Rule: "HKDF-SHA-256", Sites: []Site{{ID: d.site[:], LowestVersion: 1, Keys: []Key{d.key}}}}
		v.Site, v.Key, v.Use, v.Stream = d.site[:], d.key.ID, "frame", d.stream[:]
		if d.label != "" {
			v.Use, v.Label, v.Stream = "proof", d.label, nil
		}
		c.add(v)
	}
}

func (c *cases) proofs() {
	add := func(name, rule, refused, label, transcript string, s Site) {
		c.add(Vector{
			Name: "proof: " + name, Kind: "proof", Rule: rule, Refused: refused, Sites: []Site{s},
			Site: ourSite[:], Key: s.Keys[0].ID, Label: label, Transcript: Hex(transcript),
		})
	}
	state := func(s string) Site { return siteOf(with(hmacKey(), func(k *Key) { k.State = s })) }
	add("the worked example", "HMAC under a key derived for the label", "", "example", "transcript", siteOf(hmacKey()))
	add("suite 2", "proofs are HMACs under every suite", "", "example", "transcript", siteOf(gcmKey()))
	add("another label", "the label chooses the key", "", "other", "transcript", siteOf(hmacKey()))
	add("another transcript", "the transcript is proven", "", "example", "Transcript", siteOf(hmacKey()))
	add("empty transcript", "the transcript is proven", "", "example", "", siteOf(hmacKey()))
	add("pending key", "pending keys prove", "", "example", "transcript", state("pending"))
	add("retiring key", "retiring keys prove", "", "example", "transcript", state("retiring"))
	add("revoked key", "revoked keys do not", "revoked", "example", "transcript", state("revoked"))
	add("compromised key", "compromised keys do not", "revoked", "example", "transcript", state("compromised"))
	add("floor", "floors refuse keys below them", "floor", "example", "transcript", func() Site {
		s := siteOf(hmacKey())
		s.EncryptionRequired = true
		return s
	}())
}

// handshakes adds the four messages of TCP handshakes, all as somebody beside them sees
// them who holds the keys.
func (c *cases) handshakes() {
	type parts struct {
		hello, answer, exporter []byte
		keys                    [2][]byte // of the two proofs
		sites                   []Site
		refused                 string
	}
	proofKey := func(k Key, site [16]byte, label string) []byte {
		p := plain.Key{ID: k.ID, Suite: int(k.Suite), Version: int(k.Version), Secret: k.TestSecret}
		_, key := plain.Derive(&p, site, "proof", []byte(label))
		return key
	}
	nonce := func(first byte) []byte { a, b := countUp(first), countUp(first+16); return join(a[:], b[:]) }
	good := func() parts {
		return parts{
			hello:  join([]byte("CRLT"), raw(1, 0, 0, 0), id(ourSite), raw(0, 0, 0, hmacKeyID), id(stream), id(peer), nonce(0x40)),
			answer: join([]byte("CRLT"), raw(1, 0, 0, 0), id(peer), nonce(0x80)),
			keys:   [2][]byte{proofKey(hmacKey(), ourSite, "tcp v1 initiator"), proofKey(hmacKey(), ourSite, "tcp v1 acceptor")},
			sites:  []Site{siteOf(hmacKey())},
		}
	}
	prove := func(p parts) (first, second []byte) {
		transcript := join([]byte("carillon tcp handshake v1\x00"), p.hello, p.answer, raw(0))
		if p.exporter != nil {
			transcript = join(transcript[:len(transcript)-1], raw(1), p.exporter)
		}
		first = sum(p.keys[0], []byte("carillon proof v1\x00"), transcript)
		return first, sum(p.keys[1], []byte("carillon proof v1\x00"), transcript, first)
	}
	add := func(name, rule string, before func(*parts), after func(v *Vector)) {
		p := good()
		if before != nil {
			before(&p)
		}
		v := Vector{Name: "handshake: " + name, Kind: "handshake", Rule: rule, Sites: p.sites, Hello: p.hello, Answer: p.answer, Exporter: p.exporter, Refused: p.refused}
		v.InitiatorProof, v.AcceptorProof = prove(p)
		if after != nil {
			after(&v)
		}
		c.add(v)
	}
	bad := func(name, rule, refused string, before func(*parts)) {
		add(name, rule, func(p *parts) { before(p); p.refused = refused }, nil)
	}
	forged := func(name, rule string, after func(v *Vector)) {
		add(name, rule, func(p *parts) { p.refused = "proof" }, after)
	}
	add("without TLS", "four messages", nil, nil)
	add("with TLS", "the transcript holds the exporter", func(p *parts) { p.exporter = nonce(0xc0) }, nil)
	add("any stream expected", "zero expects anybody", func(p *parts) { clear(p.hello[44:60]) }, nil)
	add("under a pending key", "pending keys prove", func(p *parts) { p.sites[0].Keys[0].State = "pending" }, nil)
	add("under suite 2", "proofs are HMACs under every suite", func(p *parts) {
		p.sites = []Site{siteOf(gcmKey())}
		p.hello[27] = gcmKeyID
		p.keys = [2][]byte{proofKey(gcmKey(), ourSite, "tcp v1 initiator"), proofKey(gcmKey(), ourSite, "tcp v1 acceptor")}
	}, nil)
	bad("hello with another magic", "the magic is CRLT", "handshake", func(p *parts) { p.hello[3] = 'N' })
	bad("answer with another magic", "the magic is CRLT", "handshake", func(p *parts) { p.answer[3] = 'N' })
	bad("hello of version 2", "the version is 1", "version", func(p *parts) { p.hello[4] = 2 })
	bad("answer of version 0", "the version is 1", "version", func(p *parts) { p.answer[4] = 0 })
	bad("reserved byte in hello", "reserved bytes are zero", "handshake", func(p *parts) { p.hello[7] = 1 })
	bad("reserved byte in answer", "reserved bytes are zero", "handshake", func(p *parts) { p.answer[5] = 1 })
	bad("hello a byte short", "a hello has 92 bytes", "handshake", func(p *parts) { p.hello = p.hello[:91] })
	bad("hello a byte long", "a hello has 92 bytes", "handshake", func(p *parts) { p.hello = append(p.hello, 0) })
	bad("answer a byte short", "an answer has 56 bytes", "handshake", func(p *parts) { p.answer = p.answer[:55] })
	bad("site zero", "the site is not zero", "handshake", func(p *parts) { clear(p.hello[8:24]) })
	bad("key zero", "the key is not zero", "handshake", func(p *parts) { clear(p.hello[24:28]) })
	bad("stream of who dialled is zero", "streams are not zero", "handshake", func(p *parts) { clear(p.hello[28:44]) })
	bad("stream of who listened is zero", "streams are not zero", "handshake", func(p *parts) { clear(p.answer[8:24]) })
	bad("another stream than expected", "who answers is who was expected", "stream", func(p *parts) { copy(p.answer[8:], third[:]) })
	bad("an instance with itself", "the two streams differ", "stream", func(p *parts) { copy(p.answer[8:], stream[:]); clear(p.hello[44:60]) })
	bad("unknown site", "the site is one that is accepted", "site", func(p *parts) { copy(p.hello[8:], otherSite[:]) })
	bad("unknown key", "the key ID is one of the site's", "key", func(p *parts) { p.hello[27] = 9 })
	bad("revoked key", "revoked keys prove nothing", "revoked", func(p *parts) { p.sites[0].Keys[0].State = "revoked" })
	bad("compromised key", "compromised keys prove nothing", "revoked", func(p *parts) { p.sites[0].Keys[0].State = "compromised" })
	bad("floor", "floors refuse keys below them", "floor", func(p *parts) { p.sites[0].EncryptionRequired = true })
	bad("both proofs with one label", "the label says by which end", "proof", func(p *parts) { p.keys[1] = p.keys[0] })
	bad("labels exchanged", "the label says by which end", "proof", func(p *parts) { p.keys[0], p.keys[1] = p.keys[1], p.keys[0] })
	bad("keys of frames", "no two uses share a key", "proof", func(p *parts) {
		p.keys = [2][]byte{under(hmacKey(), ourSite, stream), under(hmacKey(), ourSite, peer)}
	})
	forged("first proof sent back", "the second proof covers the first", func(v *Vector) { v.AcceptorProof = v.InitiatorProof })
	forged("altered nonce of who dialled", "the transcript holds both messages", func(v *Vector) { v.Hello[91] ^= 1 })
	forged("altered nonce of who listened", "the transcript holds both messages", func(v *Vector) { v.Answer[55] ^= 1 })
	forged("altered first proof", "both proofs are checked", func(v *Vector) { v.InitiatorProof[0] ^= 1 })
	forged("altered second proof", "both proofs are checked", func(v *Vector) { v.AcceptorProof[31] ^= 1 })
	forged("exporter of another connection", "the transcript holds the exporter", func(v *Vector) { v.Exporter = nonce(0xc0) })
	add("exporter left out", "the transcript holds the exporter", func(p *parts) { p.exporter, p.refused = nonce(0xc0), "proof" }, func(v *Vector) { v.Exporter = nil })
}
