package azurebus

import (
	"bytes"
	"slices"
	"testing"
)

func TestPack_FillsMessages(t *testing.T) {
	for _, tt := range []struct {
		name     string
		sizes    []int
		messages int
	}{
		{"one", []int{1}, 1},
		{"many small ones", slices.Repeat([]int{200}, 1000), 1},
		{"as much as fits", []int{maxPacked - 1 - 3 - 2, 1}, 1},
		{"a byte more", []int{maxPacked - 1 - 3 - 2, 2}, 2},
		{"large ones", slices.Repeat([]int{maxFrameBytes}, 3), 3},
		{"none", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var frames, back [][]byte
			for i, n := range tt.sizes {
				frames = append(frames, bytes.Repeat([]byte{byte(i)}, n))
			}
			messages := 0
			for body := range pack(frames) {
				messages++
				if len(body) > maxPacked || len(body) != cap(body) {
					t.Errorf("a message of %d bytes, capacity %d", len(body), cap(body))
				}
				got, err := unpack(body)
				if err != nil {
					t.Fatal(err)
				}
				back = append(back, got...)
			}
			if messages != tt.messages || !slices.EqualFunc(back, frames, bytes.Equal) {
				t.Errorf("%d messages with %d frames, want %d with %d", messages, len(back), tt.messages, len(frames))
			}
		})
	}
}

// The memory of a frame is its own: a small one that is kept keeps no message of 252 KiB.
func TestUnpack_GivesEachFrameItsMemory(t *testing.T) {
	body := slices.Collect(pack([][]byte{[]byte("one"), []byte("two")}))[0]
	frames, err := unpack(body)
	if err != nil {
		t.Fatal(err)
	}
	clear(body)
	if string(frames[0]) != "one" || string(frames[1]) != "two" || cap(frames[0]) > 64 {
		t.Errorf("%q, capacity %d", frames, cap(frames[0]))
	}
}

func TestUnpack_RefusesWhatNoInstanceSends(t *testing.T) {
	for _, body := range [][]byte{nil, {0}, {2, 1, 'x'}, {packVersion, 0}, {packVersion, 2, 'x'}, {packVersion, 0x80}, {packVersion, 1, 'x', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}} {
		if frames, err := unpack(body); err == nil || frames != nil {
			t.Errorf("unpack(%v) = %v, %v", body, frames, err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for body := range pack([][]byte{[]byte("one"), bytes.Repeat([]byte("x"), 300), {0}}) {
		f.Add(body)
	}
	f.Add([]byte{packVersion, 0x80, 0x80})
	f.Fuzz(func(t *testing.T, body []byte) {
		frames, err := unpack(body)
		if err != nil {
			return
		}
		total := 1
		for _, frame := range frames {
			total += len(frame)
		}
		if total > len(body) {
			t.Errorf("%d bytes of frames in %d", total, len(body))
		}
		var back [][]byte
		for again := range pack(frames) {
			got, err := unpack(again)
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, got...)
		}
		if !slices.EqualFunc(back, frames, bytes.Equal) {
			t.Error("packed again, the frames differ")
		}
	})
}
