package carillon

import "testing"

// What comes through several transports must fit into the smallest buffer, and a transport may get
// another one while it runs.
func TestWindow_IsTheSmallestBufferToldOf(t *testing.T) {
	b := &Broker{outs: []*outlet{{}, {}, {}}}
	for _, tt := range []struct{ i, bytes, want int }{{0, 500, 500}, {1, 300, 300}, {1, 900, 500}, {0, 0, 900}, {1, 0, 0}} {
		b.receiveBuffer(b.outs[tt.i], tt.bytes)
		if got := b.window(); got != tt.want {
			t.Errorf("after transport %d told of %d bytes the window has %d, want %d", tt.i, tt.bytes, got, tt.want)
		}
	}
}
