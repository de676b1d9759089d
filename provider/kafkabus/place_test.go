package kafkabus

import (
	"fmt"
	"testing"
)

func TestPlace_KeepsAStreamInItsPartition(t *testing.T) {
	var p place
	p.move("stream")
	at := p.of(p.currentKey(), 3)
	for n := 4; n < 40; n++ {
		if got := p.of(p.currentKey(), n); got != at {
			t.Fatalf("with %d partitions: number %d, before %d", n, got, at)
		}
	}
	p.move("stream")
	if got := p.of(p.currentKey(), 40); got != at {
		t.Errorf("the same stream told again: number %d, before %d", got, at)
	}
	if got := p.of(p.currentKey(), 1); got != 0 {
		t.Errorf("with 1 partition: number %d", got)
	}
}

func TestPlace_SpreadsStreams(t *testing.T) {
	const partitions, streams = 6, 600
	var used [partitions]int
	for i := range streams {
		var p place
		p.move(fmt.Sprint("stream ", i))
		used[p.of(p.currentKey(), partitions)]++
	}
	for i, n := range used {
		if n < streams/partitions/2 {
			t.Errorf("partition %d has %d of %d streams: %v", i, n, streams, used)
		}
	}
}

// A record that was made before the stream changed has the old key, and goes where that key says.
func TestPlace_OldKeyHasNoSayInWhereTheNewGoes(t *testing.T) {
	var p, fresh place
	p.move("old")
	old := p.currentKey()
	p.move("new")
	p.of(old, 1)
	fresh.move("new")
	if got, want := p.of(p.currentKey(), 100), fresh.of(fresh.currentKey(), 100); got != want {
		t.Errorf("number %d, want %d", got, want)
	}
}
