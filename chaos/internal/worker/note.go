package worker

import (
	"encoding/binary"
	"errors"
	"hash/crc64"
	"math/rand/v2"

	"github.com/carillon-go/carillon"
)

// A note is the parameter of all events: which raise it was.
type note struct {
	Run uint32 // that raised it
	Seq uint64 // among all that it raised, from 0

	sum uint64 // of the bytes that arrived
}

// leastBytes is what a note has without filling.
const leastBytes = 4 + 8

// noteCodec makes notes of size bytes.
type noteCodec struct {
	size  int
	table *crc64.Table
}

func newNoteCodec(size int) noteCodec {
	return noteCodec{max(size, leastBytes), crc64.MakeTable(crc64.ECMA)}
}

func (noteCodec) Name() string { return "note" }

// Encode fills a note up with bytes that are different in each.
func (c noteCodec) Encode(dst []byte, v any) ([]byte, error) {
	n := v.(note)
	dst = binary.BigEndian.AppendUint32(dst, n.Run)
	dst = binary.BigEndian.AppendUint64(dst, n.Seq)
	filling := rand.NewPCG(uint64(n.Run), n.Seq)
	for left := c.size - leastBytes; left > 0; left -= 8 {
		word := binary.BigEndian.AppendUint64(nil, filling.Uint64())
		dst = append(dst, word[:min(left, len(word))]...)
	}
	return dst, nil
}

func (c noteCodec) Decode(data []byte, v any) error {
	if len(data) < leastBytes {
		return errors.New("too short for a note")
	}
	*v.(*note) = note{binary.BigEndian.Uint32(data), binary.BigEndian.Uint64(data[4:]), crc64.Checksum(data, c.table)}
	return nil
}

// sum returns what a receiver of n must find.
func (c noteCodec) sum(n note) uint64 {
	b, _ := c.Encode(nil, n) // it never fails
	return crc64.Checksum(b, c.table)
}

// define returns the event that all workers raise.
func define(codec noteCodec, ordered bool) *carillon.Definition[note] {
	options := []carillon.DefineOption{carillon.WithCodec(codec)}
	if ordered {
		options = append(options, carillon.Ordered())
	}
	return carillon.Define[note](carillon.MustParseID("0c2f6a5e-6a0b-4f0e-9a0c-3b1d6e2f7a01"), "note", options...)
}
