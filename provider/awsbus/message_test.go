package awsbus

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func TestPack_FillsWhatIsChargedFor(t *testing.T) {
	frame := func(size int) []byte { return bytes.Repeat([]byte{7}, size) }
	const most = fillBytes * 3 / 4 // bytes, in a body that is filled
	for _, tt := range []struct {
		name   string
		frames []int // sizes
		bodies []int // frames in each
	}{
		{"nothing", nil, nil},
		{"one", []int{100}, []int{1}},
		{"several small ones are one message", []int{100, 200, 300}, []int{3}},
		{"the default is one message for one charge", []int{defaultFrameBytes}, []int{1}},
		{"what does not fit begins another", []int{most - 100, 200, 300}, []int{1, 2}},
		{"the last byte fits", []int{100, most - 3 - 1 - 100}, []int{2}},
		{"one more does not", []int{100, most - 3 - 100}, []int{1, 1}},
		{"a large one goes alone", []int{100, maxFrameBytes, 100}, []int{1, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var frames, got [][]byte
			for _, size := range tt.frames {
				frames = append(frames, frame(size))
			}
			var counts []int
			for _, body := range pack(frames) {
				part, ok := unpack(body)
				if !ok {
					t.Fatalf("a body of %d bytes is not understood", len(body))
				}
				if len(body) > maxBodyBytes || len(part) > 1 && len(body) > fillBytes {
					t.Errorf("a body of %d bytes with %d frames", len(body), len(part))
				}
				counts = append(counts, len(part))
				got = append(got, part...)
			}
			if !slices.Equal(counts, tt.bodies) {
				t.Errorf("frames in each body: %v, want %v", counts, tt.bodies)
			}
			if !slices.EqualFunc(got, frames, bytes.Equal) {
				t.Error("the frames are not those that were packed")
			}
		})
	}
}

func TestUnpack_RefusesWhatNobodyPacks(t *testing.T) {
	raw := func(b ...byte) string { return encoding.EncodeToString(b) }
	for _, tt := range []struct{ name, body string }{
		{"nothing", ""},
		{"no base64", "{}"},
		{"padded", "AWE="},
		{"a line break", pack([][]byte{{1}})[0] + "\n"},
		{"a frame without bytes", raw(0)},
		{"a frame that is longer than the rest", raw(2, 'a')},
		{"a length that does not end", raw(0x80)},
		{"a length in more bytes than it needs", raw(0x81, 0, 'a')},
		{"a length that no integer holds", raw(bytes.Repeat([]byte{0xff}, 11)...)},
		{"a second frame that is cut off", raw(1, 'a', 3, 'b')},
		{"too long", strings.Repeat("A", maxMessageBytes+1)},
	} {
		if frames, ok := unpack(tt.body); ok {
			t.Errorf("%s: %q is understood as %d frames", tt.name, tt.body[:min(20, len(tt.body))], len(frames))
		}
	}
}

// A frame that the Broker keeps must not keep the others of its message.
func TestUnpack_FramesHaveMemoryOfTheirOwn(t *testing.T) {
	const size = 99 // with the length of the next one no multiple of what memory is aligned to
	frames, ok := unpack(pack([][]byte{make([]byte, size), make([]byte, size), make([]byte, size)})[0])
	if !ok || len(frames) != 3 {
		t.Fatal("not understood")
	}
	at := func(i int) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(frames[i]))) }
	for i := 1; i < len(frames); i++ {
		if at(i)-at(i-1) == size+1 {
			t.Errorf("frame %d lies where the message was taken apart", i)
		}
	}
}

// FuzzUnpack takes what anybody with the right to may publish.
func FuzzUnpack(f *testing.F) {
	f.Add("")
	f.Add("probe")
	f.Add(pack([][]byte{[]byte("a frame")})[0])
	f.Add(pack([][]byte{[]byte("one"), bytes.Repeat([]byte{0}, 300)})[0])
	f.Add(encoding.EncodeToString([]byte{0x81, 0, 1}))
	f.Fuzz(func(t *testing.T, body string) {
		frames, ok := unpack(body)
		if !ok {
			return
		}
		var packed []byte
		for _, frame := range frames {
			if len(frame) == 0 {
				t.Error("an empty frame")
			}
			packed = append(binary.AppendUvarint(packed, uint64(len(frame))), frame...)
		}
		if again := encoding.EncodeToString(packed); again != body {
			t.Errorf("%q, taken apart and put together, is %q", body, again)
		}
	})
}

// FuzzTopicsOf takes the policy that somebody has given a queue.
func FuzzTopicsOf(f *testing.F) {
	f.Add("")
	f.Add(queuePolicy("arn:aws:sqs:r:1:q", []string{"arn:aws:sns:r:1:a", "arn:aws:sns:r:1:b"}))
	f.Add(`{"Statement":[{"Condition":{"ArnEquals":{"aws:SourceArn":"x"}}}]}`)
	f.Fuzz(func(t *testing.T, policy string) {
		topics := topicsOf(policy)
		if again := topicsOf(queuePolicy("q", topics)); len(topics) > 0 && !slices.Equal(again, topics) {
			t.Errorf("%q lets in %q; a policy for these lets in %q", policy, topics, again)
		}
	})
}
