//go:build linux

package nats

import (
	"os"
	"slices"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/opponent/nats/natsserver"
	"github.com/carillon-go/carillon/bench/internal/opponent/opponenttest"
)

func TestMain(m *testing.M) {
	natsserver.RunIfAsked()
	os.Exit(m.Run())
}

func TestSystems_DeliverEveryEventOnce(t *testing.T) {
	for _, s := range Systems() {
		t.Run(s.Name, func(t *testing.T) { opponenttest.Run(t, s) })
	}
}

func TestSubscriber_RefusesWhatDoesNotVerify(t *testing.T) {
	m := newMAC()
	sealed := m.appendTag([]byte("event"), []byte("event"))
	forged := slices.Clone(sealed)
	forged[0]++
	for _, tt := range []struct {
		name    string
		message []byte
		packed  bool
		refused int64
		want    []string
	}{
		{name: "right", message: sealed, want: []string{"event"}},
		{name: "changed", message: forged, refused: 1},
		{name: "shorter than a tag", message: sealed[:tagLen-1], refused: 1},
		{name: "packed, cut in the length", message: []byte{0}, packed: true, refused: 1},
		{name: "packed, cut in the event", message: []byte{0, 40, 1, 2}, packed: true, refused: 1},
		{
			name: "packed, changed, then right", message: slices.Concat([]byte{0, 37}, forged, []byte{0, 37}, sealed),
			packed: true, refused: 1, want: []string{"event"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			s := &subscriber{mac: m, deliver: func(event []byte) { got = append(got, string(event)) }}
			if tt.packed {
				s.takePacked(tt.message)
			} else {
				s.takeEvent(tt.message)
			}
			if s.refused.Load() != tt.refused || !slices.Equal(got, tt.want) {
				t.Errorf("refused %d, delivered %q; want %d, %q", s.refused.Load(), got, tt.refused, tt.want)
			}
		})
	}
}

func FuzzSubscriber(f *testing.F) {
	m := newMAC()
	f.Add(slices.Concat([]byte{0, 37}, m.appendTag([]byte("event"), []byte("event"))))
	f.Add([]byte{0, 2, 1})
	f.Fuzz(func(t *testing.T, message []byte) {
		var delivered int
		s := &subscriber{mac: m, deliver: func(event []byte) { delivered += lengthBytes + len(event) + tagLen }}
		s.takePacked(message)
		if delivered > len(message) {
			t.Errorf("%d bytes delivered of %d", delivered, len(message))
		}
	})
}
