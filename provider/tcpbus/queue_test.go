package tcpbus

import (
	"slices"
	"testing"
)

func TestQueue_DropsTheNewestWhenFull(t *testing.T) {
	q := newQueue(3 * (100 + frameOverhead))
	for i := range 5 {
		q.put([][]byte{numbered(uint64(i), 100)})
	}
	if got := numbers(t, q.peek(nil, 1<<20)); !slices.Equal(got, []uint64{0, 1, 2}) {
		t.Errorf("waiting: %v, want 0, 1, 2", got)
	}
	if q.dropped() != 2 {
		t.Errorf("dropped %d, want 2", q.dropped())
	}
	q.drop(1)
	q.put([][]byte{numbered(5, 100)})
	if got := numbers(t, q.peek(nil, 1<<20)); !slices.Equal(got, []uint64{1, 2, 5}) {
		t.Errorf("waiting: %v, want 1, 2, 5", got)
	}
}

// Frames without bytes need memory as well.
func TestQueue_BoundsEmptyFrames(t *testing.T) {
	q := newQueue(10 * frameOverhead)
	q.put(make([][]byte, 1000))
	if frames, bytes := q.size(); frames != 10 || bytes != 10*frameOverhead || q.dropped() != 990 {
		t.Errorf("%d frames, %d bytes, %d dropped", frames, bytes, q.dropped())
	}
}

func TestQueue_PeekLeavesFramesUntilDropped(t *testing.T) {
	q := newQueue(1 << 20)
	for i := range 10 {
		q.put([][]byte{numbered(uint64(i), 100)})
	}
	for range 2 {
		if got := numbers(t, q.peek(nil, 3*(100+frameOverhead))); !slices.Equal(got, []uint64{0, 1, 2}) {
			t.Errorf("peek: %v, want 0, 1, 2", got)
		}
	}
	if got := q.peek(nil, 1); len(got) != 1 {
		t.Errorf("peek with room for none: %d frames, want 1", len(got))
	}
}

func TestQueue_KeepsOrderAndAccountsThroughCompaction(t *testing.T) {
	q := newQueue(1 << 30)
	next, want := uint64(0), uint64(0)
	for round := range 300 {
		for range round % 17 * 100 {
			q.put([][]byte{numbered(next, 8)})
			next++
		}
		for _, n := range numbers(t, q.peek(nil, (round%13)*100*(8+frameOverhead)+1)) {
			if n != want {
				t.Fatalf("round %d: frame %d, want %d", round, n, want)
			}
			want++
			q.drop(1)
		}
		if frames, bytes := q.size(); uint64(frames) != next-want || bytes != frames*(8+frameOverhead) {
			t.Fatalf("round %d: %d frames, %d bytes, want %d frames", round, frames, bytes, next-want)
		}
	}
	// What was taken is not referred to any more.
	for i, f := range q.ring[:q.head] {
		if f != nil {
			t.Fatalf("entry %d still refers to its frame", i)
		}
	}
	for i, f := range q.ring[len(q.ring):cap(q.ring)] {
		if f != nil {
			t.Fatalf("entry %d behind the end still refers to its frame", i)
		}
	}
}
