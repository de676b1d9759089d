package azurebus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
)

// A message holds frames one after the other: a byte that says the version, then each frame behind its length as a varint.
// Several in one cost a single operation, and each message is charged for by 64 KiB.
const packVersion = 1

// maxPacked bounds the body of a message: with properties, and with what a batch adds to both, below 256 KiB.
const maxPacked = 252 << 10

// pack returns the bodies of the messages that carry frames, each as full as it can be.
func pack(frames [][]byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(frames) > 0 {
			size, n := 1, 0
			for n < len(frames) {
				more := len(frames[n]) + lengthBytes(len(frames[n]))
				if n > 0 && size+more > maxPacked {
					break
				}
				size += more
				n++
			}
			body := append(make([]byte, 0, size), packVersion)
			for _, f := range frames[:n] {
				body = append(binary.AppendUvarint(body, uint64(len(f))), f...)
			}
			if !yield(body) {
				return
			}
			frames = frames[n:]
		}
	}
}

func lengthBytes(n int) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], uint64(n))
}

var errMessage = errors.New("azure: a message that no instance has sent")

// unpack returns the frames of a message. Each has memory of its own, so that one that is kept does not keep the others. For
// what no instance sends it returns an error, and no frame.
func unpack(body []byte) ([][]byte, error) {
	if len(body) == 0 || body[0] != packVersion {
		return nil, errMessage
	}
	var frames [][]byte
	for rest := body[1:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size == 0 || size > uint64(len(rest)-n) {
			return nil, errMessage
		}
		rest = rest[n:]
		frames = append(frames, bytes.Clone(rest[:size]))
		rest = rest[size:]
	}
	return frames, nil
}
