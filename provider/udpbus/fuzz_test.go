package udpbus

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"

	"github.com/carillon-go/carillon/provider"
)

// FuzzDeliver cuts its input into datagrams of several sources, as the kernel gives them.
// Each that is not our own and not empty is handed on, once, as it came, in memory of
// its own.
func FuzzDeliver(f *testing.F) {
	f.Add([]byte("\x03\x01abc\x00\x02\x05\x01hello\x02\x00xy"))
	f.Add([]byte{200, 1})
	f.Add(bytes.Repeat([]byte{1, 7, 'x'}, 100))
	f.Fuzz(func(t *testing.T, script []byte) {
		own := netip.MustParseAddrPort("127.0.0.1:1")
		var got, want [][]byte
		p := &Provider{log: slog.New(slog.DiscardHandler)}
		p.env.Deliver = func(b provider.Batch) {
			if len(b.Frames) == 0 || b.From == own.String() {
				t.Errorf("a batch of %d frames from %q", len(b.Frames), b.From)
			}
			got = append(got, b.Frames...)
		}
		l := &link{self: own, group: netip.MustParseAddrPort("239.1.2.3:9")}
		buffer := make([]byte, readBatch*256)
		names := make(map[netip.AddrPort]string)
		r := &reader{p: p, l: l, names: names}
		for len(script) > 0 {
			var messages []ipv4.Message
			for i := range readBatch {
				if len(script) < 2 {
					script = nil
					break
				}
				n, port := int(script[0]), int(script[1]%8)
				n = min(n, len(script)-2)
				b := buffer[i*256 : i*256+256]
				copy(b, script[2:2+n])
				m := ipv4.Message{Buffers: [][]byte{b}, N: n, Addr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
				if port == 7 {
					m.Addr = nil // of no source that the kernel can name
				}
				messages = append(messages, m)
				if n > 0 && port != int(own.Port()) {
					want = append(want, bytes.Clone(b[:n]))
				}
				script = script[2+n:]
			}
			r.deliver(messages, new(turn))
			for i := range buffer {
				buffer[i] ^= 0xff // the next read writes over it
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d frames, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d is %x, want %x", i, got[i], want[i])
			}
		}
		if len(names) > maxNames {
			t.Errorf("%d names are remembered", len(names))
		}
	})
}
