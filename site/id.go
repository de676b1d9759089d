package site

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// String returns the usual form of a UUID.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], id[10:16])
	return string(b[:])
}

// NewStreamID makes the stream ID of one run from an epoch, see
// [Database.NextEpoch], and random bits.
func NewStreamID(epoch, random uint64) StreamID {
	var s StreamID
	binary.BigEndian.PutUint64(s[:8], epoch)
	binary.BigEndian.PutUint64(s[8:], random)
	return s
}

// Epoch returns the first half of s.
func (s StreamID) Epoch() uint64 { return binary.BigEndian.Uint64(s[:8]) }

// String returns the epoch in decimal and the random half in hexadecimal:
// "7-c0ffee0000000001".
func (s StreamID) String() string {
	return fmt.Sprintf("%d-%x", s.Epoch(), s[8:])
}
