package wire

import (
	"encoding/binary"

	"github.com/carillon-go/carillon/site"
)

// Offsets of the header's fields, in bytes from the start of the frame.
const (
	offMagic   = 0
	offVersion = 4
	offType    = 5
	offFlags   = 6
	offLength  = 8
	offKey     = 12
	offSite    = 16
	offStream  = 32
	offNumber  = 48
	offOrdinal = 56
	offCount   = 64
	offClock   = 68
)

const magic = "CRLN"

// minRecordLen is the shortest record: two references, no extension, no payload.
const minRecordLen = 4

// A Header is the fixed part at the start of every frame.
type Header struct {
	Type    Type
	Key     site.KeyID
	Site    site.ID
	Stream  site.StreamID
	Number  uint64 // the first frame of a stream is 1; control frames count apart
	Ordinal uint64 // of the first event in the frame; 0 in control frames
	Count   uint32 // events whose last byte is in this frame; 0 in control frames
	Clock   int64  // sender's clock in Unix microseconds; information only
	Length  uint32 // of the whole frame in bytes; set by ParseHeader, ignored by encoders
}

// ParseHeader reads the header of frame, which must be exactly one frame with
// its trailer. It checks length, magic and version in this order, then the
// length field, the type and the limits of every field. What it returns is not
// yet verified.
func ParseHeader(frame []byte) (Header, error) {
	if len(frame) < MinFrameLen || len(frame) > MaxFrameLen {
		return Header{}, ErrLength
	}
	if string(frame[offMagic:offMagic+len(magic)]) != magic {
		return Header{}, ErrMagic
	}
	if frame[offVersion] != Version {
		return Header{}, ErrVersion
	}
	be := binary.BigEndian
	h := Header{
		Type:    Type(frame[offType]),
		Key:     site.KeyID(be.Uint32(frame[offKey:])),
		Site:    site.ID(frame[offSite:offStream]),
		Stream:  site.StreamID(frame[offStream:offNumber]),
		Number:  be.Uint64(frame[offNumber:]),
		Ordinal: be.Uint64(frame[offOrdinal:]),
		Count:   be.Uint32(frame[offCount:]),
		Clock:   int64(be.Uint64(frame[offClock:])),
		Length:  be.Uint32(frame[offLength:]),
	}
	if uint64(h.Length) != uint64(len(frame)) {
		return Header{}, ErrLength
	}
	if !h.Type.known() {
		return Header{}, ErrType
	}
	if be.Uint16(frame[offFlags:]) != 0 {
		return Header{}, errFlags
	}
	if err := h.check(); err != nil {
		return Header{}, err
	}
	return h, nil
}

// check holds h against the limits of its type.
func (h *Header) check() error {
	if h.Key == 0 || h.Site == (site.ID{}) || h.Stream == (site.StreamID{}) {
		return errZeroID
	}
	if h.Number == 0 || h.Number > MaxNumber {
		return errNumber
	}
	if h.Ordinal > MaxNumber || h.Ordinal+uint64(h.Count) > MaxNumber {
		return errOrdinal
	}
	switch {
	case h.Type == TypeEvents:
		if h.Count == 0 || uint64(h.Count)*minRecordLen > uint64(h.Length)-HeaderLen {
			return errCount
		}
	case h.Type == TypeFragment:
		if h.Count > 1 {
			return errCount
		}
	case h.Count != 0:
		return errCount
	case h.Ordinal != 0:
		return errOrdinal
	}
	return nil
}

// PutHeader writes h over the first [HeaderLen] bytes of frame. The length field
// becomes len(frame), whatever h.Length says.
func PutHeader(frame []byte, h Header) {
	be := binary.BigEndian
	copy(frame[offMagic:], magic)
	frame[offVersion] = Version
	frame[offType] = byte(h.Type)
	be.PutUint16(frame[offFlags:], 0)
	be.PutUint32(frame[offLength:], uint32(len(frame)))
	be.PutUint32(frame[offKey:], uint32(h.Key))
	copy(frame[offSite:offStream], h.Site[:])
	copy(frame[offStream:offNumber], h.Stream[:])
	be.PutUint64(frame[offNumber:], h.Number)
	be.PutUint64(frame[offOrdinal:], h.Ordinal)
	be.PutUint32(frame[offCount:], h.Count)
	be.PutUint64(frame[offClock:], uint64(h.Clock))
}

// FrameVersion returns the version byte of frame. It panics, as [FrameType] and
// [FrameNumber] do, when frame is shorter than a header.
func FrameVersion(frame []byte) uint8 { return frame[offVersion] }

// FrameType returns the type of frame, which may be one that is not known.
func FrameType(frame []byte) Type { return Type(frame[offType]) }

// FrameNumber returns the number of frame.
func FrameNumber(frame []byte) uint64 { return binary.BigEndian.Uint64(frame[offNumber:]) }

// Body returns what lies between the header and a trailer of that many bytes.
// It aliases frame, and is nil when frame is too short for both.
func Body(frame []byte, trailer int) []byte {
	end := len(frame) - trailer
	if trailer < 0 || end < HeaderLen {
		return nil
	}
	return frame[HeaderLen:end:end]
}
