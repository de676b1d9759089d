package providertest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
)

// Lanes tell frames apart whose order among each other is not claimed.
const (
	laneAll   byte = iota // sent with Send, in the order of their numbers
	laneOne               // sent with SendTo, in the order of their numbers
	laneLoose             // sent more than once, or while the link was cut: no claim holds
	laneProbe             // sent until somebody hears it
)

// frameHeaderLen is the length of the shortest frame that the suite sends.
const frameHeaderLen = 8 + 2 + 1 + 1 + 8 + 4

// smallFrame is the usual length of a frame in the suite: that of one small event.
const smallFrame = 200

// frameID is what a frame says about itself.
type frameID struct {
	network uint64 // differs between networks, so that a stray frame shows
	sender  uint16
	lane    byte
	number  uint64
	size    uint32
}

// bytes returns the frame. Every byte of it follows from id.
func (id frameID) bytes() []byte {
	b := make([]byte, 0, id.size)
	b = binary.BigEndian.AppendUint64(b, id.network)
	b = binary.BigEndian.AppendUint16(b, id.sender)
	b = append(b, id.lane, 0)
	b = binary.BigEndian.AppendUint64(b, id.number)
	b = binary.BigEndian.AppendUint32(b, id.size)
	fill := rand.NewPCG(id.network^uint64(id.sender), id.number<<8|uint64(id.lane))
	for len(b)+8 <= int(id.size) {
		b = binary.LittleEndian.AppendUint64(b, fill.Uint64())
	}
	for len(b) < int(id.size) {
		b = append(b, byte(fill.Uint64()))
	}
	return b
}

// parseFrame returns what frame says about itself, and false when it is not one
// that the suite made or not a byte of it is as it was.
func parseFrame(frame []byte) (frameID, bool) {
	if len(frame) < frameHeaderLen {
		return frameID{}, false
	}
	id := frameID{
		network: binary.BigEndian.Uint64(frame),
		sender:  binary.BigEndian.Uint16(frame[8:]),
		lane:    frame[10],
		number:  binary.BigEndian.Uint64(frame[12:]),
		size:    binary.BigEndian.Uint32(frame[20:]),
	}
	if int(id.size) != len(frame) {
		return frameID{}, false
	}
	return id, bytes.Equal(frame, id.bytes())
}
