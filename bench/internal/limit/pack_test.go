//go:build linux

package limit

import (
	"bytes"
	"testing"
)

// ways are those in which events are packed.
var ways = []struct {
	name   string
	batch  int
	tagger func() tagger
}{
	{"plain", 0, nil},
	{"a tag for each event", 0, newHMAC},
	{"an HMAC for each batch", 100, newHMAC},
	{"a GMAC for each batch", 100, newGMAC},
}

func packed(o tcpOptions, events [][]byte) []byte {
	p := newPacker(o.batch, o.newTagger(), 0)
	for _, e := range events {
		p.add(e)
	}
	return p.take()
}

func TestUnpack_ReturnsWhatWasPacked(t *testing.T) {
	events := [][]byte{[]byte("one"), {}, bytes.Repeat([]byte{7}, 90), []byte("four"), bytes.Repeat([]byte{8}, 300)}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			o := tcpOptions{batch: way.batch, tagger: way.tagger}
			data := packed(o, events)
			opener := o.newTagger()
			var got [][]byte
			deliver := func(e []byte) { got = append(got, bytes.Clone(e)) }
			// In pieces, as a connection has them.
			var have []byte
			for i := range data {
				have = append(have, data[i])
				taken, err := unpack(have, o.batch, opener, deliver)
				if err != nil {
					t.Fatal(err)
				}
				have = have[taken:]
			}
			if len(have) != 0 || len(got) != len(events) {
				t.Fatalf("%d events, %d bytes left; want %d events", len(got), len(have), len(events))
			}
			for i := range events {
				if !bytes.Equal(got[i], events[i]) {
					t.Errorf("event %d is %q, want %q", i, got[i], events[i])
				}
			}
		})
	}
}

func TestPacker_NeedsNoMoreThanItSays(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			o := tcpOptions{batch: way.batch, tagger: way.tagger}
			p := newPacker(o.batch, o.newTagger(), 0)
			most := 0
			for range 50 {
				most += p.need(20)
				p.add(make([]byte, 20))
			}
			if n := len(p.take()); n > most {
				t.Errorf("%d bytes, more than %d", n, most)
			}
		})
	}
}

func TestUnpack_RefusesWhatWasChanged(t *testing.T) {
	for _, way := range ways[1:] {
		t.Run(way.name, func(t *testing.T) {
			o := tcpOptions{batch: way.batch, tagger: way.tagger}
			data := packed(o, [][]byte{[]byte("one event")})
			for i := lengthBytes; i < len(data); i++ { // a changed length only waits for more
				forged := bytes.Clone(data)
				forged[i] ^= 1
				if _, err := unpack(forged, o.batch, o.newTagger(), func([]byte) { t.Errorf("byte %d changed, and an event came of it", i) }); err == nil {
					t.Errorf("byte %d changed, and nobody noticed", i)
				}
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	for i, way := range ways {
		f.Add(i, packed(tcpOptions{batch: way.batch, tagger: way.tagger}, [][]byte{[]byte("one"), []byte("two")}))
	}
	f.Add(0, []byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, which int, data []byte) {
		way := ways[((which%len(ways))+len(ways))%len(ways)]
		o := tcpOptions{batch: way.batch, tagger: way.tagger}
		total := 0
		taken, err := unpack(data, o.batch, o.newTagger(), func(e []byte) { total += len(e) })
		if taken < 0 || taken > len(data) || total > len(data) {
			t.Errorf("of %d bytes %d were taken and %d delivered, %v", len(data), taken, total, err)
		}
	})
}
