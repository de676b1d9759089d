package sim

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/carillon-go/carillon/internal/wire"
)

// leastPayload is room for who raised it and which event it is.
const leastPayload = 12

// payload returns what an event carries: who raised it, its number there, and
// bytes that depend on both.
func payload(instance int, seq uint64, size int) []byte {
	p := make([]byte, max(size, leastPayload))
	binary.BigEndian.PutUint32(p, uint32(instance))
	binary.BigEndian.PutUint64(p[4:], seq)
	for i := leastPayload; i < len(p); i++ {
		p[i] = byte(uint64(i)*7 + seq + uint64(instance))
	}
	return p
}

// readPayload says whose and which event it is.
func readPayload(p []byte) (instance int, seq uint64, ok bool) {
	if len(p) < leastPayload {
		return 0, 0, false
	}
	return int(binary.BigEndian.Uint32(p)), binary.BigEndian.Uint64(p[4:]), true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(p []byte) uint64 { return uint64(len(p))<<32 | uint64(crc32.Checksum(p, castagnoli)) }

// eventID and eventName turn the short names of plans into IDs and back.
func eventID(name string) (id wire.ID) {
	copy(id[:], name)
	return id
}

func eventName(id wire.ID) string {
	n := 0
	for n < len(id) && id[n] != 0 {
		n++
	}
	return string(id[:n])
}
