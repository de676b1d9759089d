package kafkabus

import (
	"bytes"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	tagKey = "carillon" // of the header that every record of ours has

	// recordOverhead is what goes around a frame, at most: the header of the batch (65 bytes), lengths, key, and tag.
	recordOverhead = 512
)

// A tag says which Provider wrote a record. It is random.
type tag [16]byte

// uncompressed refuses what is compressed. No instance compresses, as frames are packed and may be encrypted; and a few bytes of a stranger can
// expand to gigabytes. franz-go names the records that were refused, so that they can be skipped.
type uncompressed struct{}

// Decompress implements [kgo.Decompressor].
func (uncompressed) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec != kgo.CodecNone {
		return nil, kgo.ErrMaxDecompress
	}
	return src, nil
}

// newRecord returns a record that holds frame, or is a probe, which holds none.
func newRecord(topic string, key []byte, from *tag, frame []byte) *kgo.Record {
	return &kgo.Record{Topic: topic, Key: key, Value: frame, Headers: []kgo.RecordHeader{{Key: tagKey, Value: from[:]}}}
}

// parseRecord returns who wrote a record and the frame in it, which has memory of its own: the record's is part of all that was fetched together. It
// returns false for what no instance writes. A probe has no frame.
func parseRecord(r *kgo.Record) (from tag, frame []byte, ok bool) {
	if len(r.Headers) != 1 || r.Headers[0].Key != tagKey || len(r.Headers[0].Value) != len(from) || len(r.Value) > maxFrameBytes {
		return from, nil, false
	}
	copy(from[:], r.Headers[0].Value)
	return from, bytes.Clone(r.Value), true
}
