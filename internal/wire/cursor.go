package wire

import (
	"encoding/binary"

	"github.com/carillon-go/carillon/site"
)

// A cursor reads fields from the front of b. After the first breach it keeps
// its error and every read returns zero, so that a decoder reads all fields and
// asks once.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// uvarint reads an integer of at most limit, which is 127 or more. Only the shortest form of an integer is
// accepted, so that a value has one encoding.
func (c *cursor) uvarint(limit uint64) uint64 {
	if len(c.b) > 0 && c.b[0] < 0x80 {
		v := uint64(c.b[0])
		c.b = c.b[1:]
		return v
	}
	return c.longUvarint(limit)
}

func (c *cursor) longUvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(c.b)
	switch {
	case n == 0:
		c.fail(errShort)
	case n < 0, v > limit, n > 1 && c.b[n-1] == 0:
		c.fail(errVarint)
	default:
		c.b = c.b[n:]
		return v
	}
	return 0
}

// bytes reads n bytes, which alias the input.
func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail(errShort)
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) id() (id ID) {
	copy(id[:], c.bytes(uint64(len(id))))
	return id
}

// flag reads a byte that is 1 for true and 0 for false.
func (c *cursor) flag() bool {
	b := c.bytes(1)
	if c.err == nil && b[0] > 1 {
		c.fail(errFlag)
	}
	return c.err == nil && b[0] == 1
}

// mark reads a frame number and the next ordinal.
func (c *cursor) mark() site.Mark {
	return site.Mark{Frame: c.uvarint(MaxNumber), Next: c.uvarint(MaxNumber)}
}

// listLen reads how many entries of at least size bytes follow. What it returns fits in
// the input, so it is safe to allocate for.
func (c *cursor) listLen(limit, size int) int {
	n := c.uvarint(MaxNumber)
	if n > uint64(limit) || n > uint64(len(c.b)/size) {
		c.fail(errListLen)
		return 0
	}
	return int(n)
}

// extension reads the next extension. The caller gives the type before it, or 0, and stops when the
// cursor is empty or has failed.
func (c *cursor) extension(before uint64) (typ uint64, value []byte) {
	typ = c.uvarint(MaxNumber)
	value = c.bytes(c.uvarint(MaxNumber))
	if c.err == nil && typ <= before {
		c.fail(errExtension)
	}
	return typ, value
}

// end reads the extension area that closes every control body, of which this
// version knows no type, and returns the first breach in the whole body.
func (c *cursor) end() error {
	for typ := uint64(0); len(c.b) > 0; {
		typ, _ = c.extension(typ)
	}
	return c.err
}

// frames reads a range whose first frame comes after the one given.
func (c *cursor) frames(after uint64) Range {
	first := c.uvarint(MaxNumber)
	more := c.uvarint(MaxNumber)
	if c.err == nil && (first <= after || more > MaxNumber-first) {
		c.fail(errRange)
	}
	return Range{First: first, Last: first + more}
}

// list reads a list of at most limit entries, each of at least size bytes. It is
// nil when empty.
func list[T any](c *cursor, limit, size int, entry func() T) []T {
	n := c.listLen(limit, size)
	if n == 0 {
		return nil
	}
	l := make([]T, 0, n)
	for range n {
		l = append(l, entry())
	}
	return l
}

func appendRange(dst []byte, r Range) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, r.First), r.Last-r.First)
}

func appendFlag(dst []byte, set bool) []byte {
	if set {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendMark(dst []byte, m site.Mark) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, m.Frame), m.Next)
}

// uvarintLen returns how many bytes v takes.
func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
