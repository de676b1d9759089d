package pgbus

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
)

// A payload is base64 of a head and of items. The head is the sender's tag and the number of the payload. An item is a frame, its length times two
// in front of it, or a row of the table, whose number times two plus one it is.
//
// Base64, of what is text in every database: of 5,976 random bytes it makes 7,968, where base85 makes 7,470. But it took 3.1 µs to write and 2.7 to read, and
// base85 7.1 and 6.2, on a machine on which PostgreSQL needed 100 µs to carry such a payload to three listeners; and every one of them reads.
const (
	tagBytes  = 8
	headBytes = tagBytes + 4
	headChars = headBytes / 3 * 4

	maxPayloadChars = 7999 // of a server that is compiled as usual
	maxPayloadBytes = maxPayloadChars * 3 / 4
)

// inlineBytes is the largest frame that a payload holds, and the largest by default.
//
// Measured with PostgreSQL 15, a publisher and three subscribers on two cores, events of 128 bytes at full speed, a delivery takes 1.7 µs of processor time with such frames, 0.9 with frames of 32 KiB in
// rows, and 0.7 with frames of 256 KiB; bare NOTIFY, an event a payload and 64 in a transaction, takes 2.4. So a table saves up to half. But it costs a round trip at each receiver, rights that not every user has (without
// them Start would fail), and a table in somebody's database that at this speed comes to some 6 GB in the two minutes that rows are kept, and leaves as much to VACUUM. Payloads leave nothing behind. Where there is less to do than
// at full speed frames are small, and go into payloads whatever the settings: in rows those of 5.9 KB take 2.5 times as long. A logged table takes a fifth longer than an unlogged one.
const inlineBytes = maxPayloadBytes - headBytes - 2

// A tag says through which link a payload was sent.
type tag [tagBytes]byte

func newTag() (t tag) {
	rand.Read(t[:])
	return t
}

// sender is t as the table has it.
func (t tag) sender() int64 { return int64(binary.BigEndian.Uint64(t[:])) }

// A head is what every payload begins with.
type head struct {
	from   tag
	number uint32
}

// An item is a frame, or the number of a row that holds one.
type item struct {
	frame []byte // nil if it is in the row
	row   uint64
}

// A payloadWriter makes payloads.
type payloadWriter struct {
	next     func() head
	raw      []byte
	payloads []string
}

// frame adds a frame of at most inlineBytes.
func (w *payloadWriter) frame(f []byte) {
	w.room(2 + len(f))
	w.raw = binary.AppendUvarint(w.raw, uint64(len(f))<<1)
	w.raw = append(w.raw, f...)
}

// row adds the number of a row.
func (w *payloadWriter) row(n uint64) {
	w.room(binary.MaxVarintLen64)
	w.raw = binary.AppendUvarint(w.raw, n<<1|1)
}

// room sees to it that n more bytes fit.
func (w *payloadWriter) room(n int) {
	if len(w.raw)+n > maxPayloadBytes {
		w.flush()
	}
	if len(w.raw) == 0 {
		w.begin()
	}
}

func (w *payloadWriter) begin() {
	h := w.next()
	w.raw = append(w.raw, h.from[:]...)
	w.raw = binary.BigEndian.AppendUint32(w.raw, h.number)
}

func (w *payloadWriter) flush() {
	if len(w.raw) > 0 {
		w.payloads = append(w.payloads, base64.RawStdEncoding.EncodeToString(w.raw))
		w.raw = w.raw[:0]
	}
}

// headOf reads the head of a payload. It returns false for what no instance sends.
func headOf(payload string) (h head, ok bool) {
	if len(payload) < headChars || len(payload) > maxPayloadChars {
		return h, false
	}
	var b [headBytes]byte
	if n, err := base64.RawStdEncoding.Decode(b[:], []byte(payload[:headChars])); err != nil || n != headBytes {
		return h, false // a line break does not count as a character
	}
	copy(h.from[:], b[:])
	h.number = binary.BigEndian.Uint32(b[tagBytes:])
	return h, true
}

// itemsOf reads what follows the head, which headOf has found. It returns false for what no instance sends. Frames share memory that
// nobody else uses, 6 KB at most. The numbers of rows ascend.
func itemsOf(payload string) (items []item, ok bool) {
	b, err := base64.RawStdEncoding.DecodeString(payload[headChars:])
	if err != nil {
		return nil, false
	}
	var last uint64
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, false
		}
		b = b[n:]
		if v&1 == 1 {
			row := v >> 1
			if row <= last { // else one could ask for the same again and again
				return nil, false
			}
			last = row
			items = append(items, item{row: row})
			continue
		}
		size := v >> 1
		if size > uint64(len(b)) {
			return nil, false
		}
		items = append(items, item{frame: b[:size:size]})
		b = b[size:]
	}
	return items, true
}
