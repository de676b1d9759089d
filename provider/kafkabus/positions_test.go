package kafkabus

import "testing"

func TestPositions_Resume(t *testing.T) {
	first, second := [16]byte{1}, [16]byte{2}
	for _, tt := range []struct {
		name             string
		begun            bool  // at an end before this
		known            bool  // this partition has been read, up to
		at               int64 // here
		id               [16]byte
		earliest, latest int64
		want             int64
	}{
		{name: "the first time, at the end", id: first, earliest: 3, latest: 9, want: 9},
		{name: "again, where it was", begun: true, known: true, at: 5, id: first, earliest: 3, latest: 9, want: 5},
		{name: "again, with nothing new", begun: true, known: true, at: 9, id: first, earliest: 3, latest: 9, want: 9},
		{name: "what it wanted was deleted: the earliest there is", begun: true, known: true, at: 2, id: first, earliest: 3, latest: 9, want: 3},
		{name: "all of it", begun: true, known: true, at: 2, id: first, earliest: 9, latest: 9, want: 9},
		{name: "the end was cut off: the new end", begun: true, known: true, at: 12, id: first, earliest: 3, latest: 9, want: 9},
		{name: "a partition that was added: its beginning", begun: true, id: first, earliest: 0, latest: 9, want: 0},
		{name: "a topic that was made again: its beginning", begun: true, known: true, at: 5, id: second, earliest: 0, latest: 9, want: 0},
		{name: "one that cannot be read: the end", begun: true, known: true, at: theEnd, id: first, earliest: 3, latest: 9, want: 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p positions
			if tt.known {
				p.resume("t", first, 0, 0, 0)
				p.advance("t", 0, tt.at)
			}
			if tt.begun {
				p.begin()
			}
			if got := p.resume("t", tt.id, 0, tt.earliest, tt.latest); got != tt.want {
				t.Errorf("resume = %d, want %d", got, tt.want)
			}
			if got := p.resume("t", tt.id, 0, 0, 100); got != tt.want {
				t.Errorf("resume again = %d, want %d", got, tt.want)
			}
		})
	}
}

func TestPositions_GoBehindWhatCannotBeReadTwice(t *testing.T) {
	var p positions
	p.resume("t", [16]byte{}, 0, 0, 5)
	p.begin()
	at := func() int64 { return p.resume("t", [16]byte{}, 0, 0, 9) }
	p.fail("t", 0)
	if got := at(); got != 5 {
		t.Errorf("after one failure: %d, want 5", got)
	}
	p.advance("t", 0, 6)
	p.fail("t", 0)
	if got := at(); got != 6 {
		t.Errorf("after one failure elsewhere: %d, want 6", got)
	}
	p.fail("t", 0)
	if got := at(); got != 9 {
		t.Errorf("after two: %d, want the end, 9", got)
	}
}
