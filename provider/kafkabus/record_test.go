package kafkabus

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestParseRecord_TakesWhatInstancesWrite(t *testing.T) {
	own := tag{1, 2, 3}
	header := func(key string, value []byte) []kgo.RecordHeader { return []kgo.RecordHeader{{Key: key, Value: value}} }
	for _, tt := range []struct {
		name   string
		record kgo.Record
		ok     bool
	}{
		{"a frame", *newRecord("t", []byte("key"), &own, []byte("frame")), true},
		{"a probe", *newRecord("t", []byte("key"), &own, nil), true},
		{"the longest frame", *newRecord("t", nil, &own, make([]byte, maxFrameBytes)), true},
		{"a longer one", *newRecord("t", nil, &own, make([]byte, maxFrameBytes+1)), false},
		{"no header", kgo.Record{Value: []byte("frame")}, false},
		{"another header", kgo.Record{Headers: header("other", own[:])}, false},
		{"a short tag", kgo.Record{Headers: header(tagKey, own[1:])}, false},
		{"a long tag", kgo.Record{Headers: header(tagKey, append(own[:], 0))}, false},
		{"two headers", kgo.Record{Headers: append(header(tagKey, own[:]), header(tagKey, own[:])...)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, frame, ok := parseRecord(&tt.record)
			if ok != tt.ok {
				t.Fatalf("parseRecord: %v, want %v", ok, tt.ok)
			}
			if ok && (from != own || !bytes.Equal(frame, tt.record.Value)) {
				t.Errorf("parseRecord = %v, %d bytes", from, len(frame))
			}
		})
	}
}

// A frame may be kept for long, and must not keep all that was fetched with it.
func TestParseRecord_FrameHasMemoryOfItsOwn(t *testing.T) {
	fetched := []byte("...frame...")
	_, frame, ok := parseRecord(newRecord("t", nil, &tag{}, fetched[3:8]))
	clear(fetched)
	if !ok || string(frame) != "frame" || cap(frame) > 16 {
		t.Errorf("frame %q with room for %d", frame, cap(frame))
	}
}

// FuzzParseRecord takes what anybody with the right to write may write.
func FuzzParseRecord(f *testing.F) {
	f.Add([]byte("key"), "carillon", bytes.Repeat([]byte{1}, 16), []byte("frame"), 1)
	f.Add([]byte(nil), "carillon", []byte("short"), []byte{}, 1)
	f.Add([]byte("key"), "other", []byte{}, []byte("frame"), 3)
	f.Fuzz(func(t *testing.T, key []byte, name string, value, frame []byte, headers int) {
		r := &kgo.Record{Key: key, Value: frame}
		for range min(max(headers, 0), 100) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: value})
		}
		from, got, ok := parseRecord(r)
		if !ok {
			if name == tagKey && len(value) == len(from) && headers == 1 && len(frame) <= maxFrameBytes {
				t.Error("what an instance could have written is refused")
			}
			return
		}
		if !bytes.Equal(got, frame) || len(got) > maxFrameBytes {
			t.Errorf("frame %q out of %q", got, frame)
		}
		again := newRecord("", key, &from, got)
		if len(again.Headers) != len(r.Headers) || again.Headers[0].Key != name || !bytes.Equal(again.Headers[0].Value, value) {
			t.Errorf("the record is not the one that it was parsed from")
		}
	})
}
