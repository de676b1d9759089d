package emulator

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Descriptors of performatives, outcomes and SASL frames (AMQP 1.0, parts 2, 3 and 5).
const (
	codeOpen        = 0x10
	codeBegin       = 0x11
	codeAttach      = 0x12
	codeFlow        = 0x13
	codeTransfer    = 0x14
	codeDisposition = 0x15
	codeDetach      = 0x16
	codeEnd         = 0x17
	codeClose       = 0x18
	codeError       = 0x1d

	codeAccepted = 0x24
	codeRejected = 0x25
	codeReleased = 0x26
	codeModified = 0x27

	codeSource = 0x28
	codeTarget = 0x29

	codeMechanisms = 0x40
	codeInit       = 0x41
	codeOutcome    = 0x44
)

const (
	frameAMQP = 0
	frameSASL = 1

	maxFrameBytes = 64 << 10 // of frames that are taken
)

// A frame is what one message on the wire holds. The zero code is a frame without contents, which keeps a connection alive.
type frame struct {
	kind    byte
	channel uint16
	code    uint64
	fields  list
	payload []byte
}

// readFrame reads the next frame.
func readFrame(r io.Reader) (frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 8 || size > maxFrameBytes {
		return frame{}, fmt.Errorf("emulator: a frame of %d bytes", size)
	}
	b := make([]byte, size-4)
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, err
	}
	return parseFrame(b)
}

// parseFrame reads a frame behind its size.
func parseFrame(b []byte) (frame, error) {
	if len(b) < 4 {
		return frame{}, errShort
	}
	f := frame{kind: b[1], channel: binary.BigEndian.Uint16(b[2:])}
	offset := 4*int(b[0]) - 4
	if offset < 4 || offset > len(b) {
		return frame{}, errShort
	}
	if b = b[offset:]; len(b) == 0 {
		return f, nil
	}
	v, rest, err := decode(b)
	if err != nil {
		return frame{}, err
	}
	d, ok := v.(described)
	if !ok {
		return frame{}, fmt.Errorf("emulator: a frame begins with %T", v)
	}
	f.code, f.payload = d.code, rest
	f.fields, _ = d.value.(list)
	return f, nil
}

// appendFrame appends a frame with its size.
func appendFrame(b []byte, f frame) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0, 2, f.kind)
	b = binary.BigEndian.AppendUint16(b, f.channel)
	if f.code != 0 {
		b = encode(b, described{f.code, f.fields})
	}
	b = append(b, f.payload...)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

// fault is an error as AMQP says it.
func fault(condition, text string) described {
	return described{codeError, list{symbol(condition), text, nil}}
}
