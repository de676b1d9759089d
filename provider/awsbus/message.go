package awsbus

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// Attributes of every message. By them subscriptions filter.
const (
	attrFrom = "from" // the instance that sent it
	attrTo   = "to"   // the instance that it is for, or toAll
)

const (
	toAll     = "all"
	fromProbe = "probe" // sends what only tries out the way

	// attributeBytes is what names, types and values of both count for.
	attributeBytes = len(attrFrom) + len(attrTo) + 2*len("String") + 2*instanceLen

	maxMessageBytes = 256 << 10
	chargedBytes    = 64 << 10 // a message, or a batch, costs as many requests as it has of these, begun ones included
	maxBatch        = 10       // messages of one call

	fillBytes    = chargedBytes - attributeBytes    // of a body with several frames
	maxBodyBytes = maxMessageBytes - attributeBytes // of a body with one
)

// encoding makes text of frames. Its letters need no escaping in the form that SNS is sent.
var encoding = base64.RawURLEncoding.Strict()

// pack makes bodies of messages out of frames, in their order. A body holds as many frames as are charged for as one
// request, or a larger one alone.
func pack(frames [][]byte) []string {
	var bodies []string
	var packed []byte
	flush := func() {
		if len(packed) > 0 {
			bodies = append(bodies, encoding.EncodeToString(packed))
			packed = packed[:0]
		}
	}
	var length [binary.MaxVarintLen64]byte
	for _, f := range frames {
		n := binary.PutUvarint(length[:], uint64(len(f)))
		if encoding.EncodedLen(len(packed)+n+len(f)) > fillBytes {
			flush()
		}
		packed = append(append(packed, length[:n]...), f...)
	}
	flush()
	return bodies
}

// unpack returns the frames that pack made a body of, and false for a body that it has not made. Each frame has memory of its own,
// so that one that is kept keeps no others.
func unpack(body string) ([][]byte, bool) {
	if body == "" || len(body) > maxMessageBytes || strings.ContainsAny(body, "\r\n") { // which the decoder skips
		return nil, false
	}
	packed, err := encoding.DecodeString(body)
	if err != nil {
		return nil, false
	}
	var frames [][]byte
	for len(packed) > 0 {
		size, n := binary.Uvarint(packed)
		if n <= 0 || n > 1 && packed[n-1] == 0 || size == 0 || size > uint64(len(packed)-n) {
			return nil, false
		}
		frame := packed[n : n+int(size) : n+int(size)]
		packed = packed[n+int(size):]
		if len(frames) > 0 || len(packed) > 0 {
			frame = bytes.Clone(frame)
		}
		frames = append(frames, frame)
	}
	return frames, true
}
