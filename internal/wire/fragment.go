package wire

import "encoding/binary"

const (
	// FragmentOverhead is the most that a fragment's body has besides its chunk, in
	// bytes.
	FragmentOverhead = 3 + 3 + 4

	// MaxFragments is the most frames that one event can take.
	MaxFragments = 1 << 16
)

// A Fragment is a part of the record of one event that does not fit into a frame. All
// fragments of an event have consecutive frame numbers, from index 0 on.
type Fragment struct {
	Index int    // 0 to Total-1
	Total int    // 2 to MaxFragments
	Size  int    // of the whole record in bytes, at least Total, at most MaxRecordLen
	Chunk []byte // never empty; after decoding it aliases the frame
}

// ChunkLen returns the longest chunk that surely fits into a frame of limit
// bytes, header and trailer included. It is not positive when none does.
func ChunkLen(limit, trailer int) int {
	return min(limit, MaxFrameLen) - HeaderLen - FragmentOverhead - trailer
}

// FragmentFrame returns a frame that holds f, with zeros where the seal goes.
// h.Ordinal is that of the event. Type, Count and Length of h do not matter.
func FragmentFrame(h Header, f Fragment, trailer int) []byte {
	index, total, size := uint64(f.Index), uint64(f.Total), uint64(f.Size)
	frame := make([]byte, HeaderLen, HeaderLen+uvarintLen(index)+uvarintLen(total)+uvarintLen(size)+len(f.Chunk)+trailer)
	frame = binary.AppendUvarint(frame, index)
	frame = binary.AppendUvarint(frame, total)
	frame = binary.AppendUvarint(frame, size)
	frame = append(frame, f.Chunk...)
	frame = frame[:len(frame)+trailer]
	h.Type = TypeFragment
	h.Count = 0
	if f.Index == f.Total-1 {
		h.Count = 1
	}
	PutHeader(frame, h)
	return frame
}

// ReadFragment decodes the body of a FRAGMENT frame whose header announces
// count events: 1 in the last fragment, 0 in the others. The chunk aliases body.
func ReadFragment(body []byte, count uint32) (Fragment, error) {
	c := cursor{b: body}
	f := Fragment{
		Index: int(c.uvarint(MaxFragments - 1)),
		Total: int(c.uvarint(MaxFragments)),
		Size:  int(c.uvarint(MaxRecordLen)),
		Chunk: c.b,
	}
	if c.err != nil {
		return Fragment{}, c.err
	}
	// Every other fragment has at least one byte, too, and so size is at least total.
	if f.Total < 2 || f.Index >= f.Total || len(f.Chunk) == 0 || len(f.Chunk) > f.Size-(f.Total-1) {
		return Fragment{}, errFragment
	}
	if last := f.Index == f.Total-1; last != (count == 1) || count > 1 {
		return Fragment{}, errCount
	}
	return f, nil
}
