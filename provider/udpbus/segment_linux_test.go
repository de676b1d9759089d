package udpbus

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// piece returns the control message with which the kernel hands over datagrams of this length.
func piece(length int) []byte {
	b := segmentSize(make([]byte, unix.CmsgSpace(4)), length)[:unix.CmsgSpace(4)]
	b[0] = byte(unix.CmsgLen(4)) // the others hold zeros on every machine of ours, which are little endian
	b[12] = unix.UDP_GRO
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], uint32(length))
	return b
}

// What one system call takes in one piece arrives frame by frame.
func TestSegments_TravelInOnePiece(t *testing.T) {
	for _, cfg := range []Config{{}, {Mode: Unicast}, {Mode: Broadcast}} {
		if cfg.Interface == "" {
			cfg.Interface = "127.0.0.1"
		}
		network := harness(cfg).Network(t, 2)
		from, to := network.Providers[0].(*Provider), providertest.Start(t, network.Providers[1])
		providertest.Start(t, from)
		l := from.link.Load()
		if !l.segments.Load() {
			t.Fatal("the kernel is said not to cut pieces; Linux 4.18 does")
		}
		real, messages := l.outMsg, 0
		l.outMsg = kernel{write: func(ms []ipv4.Message) (int, error) {
			messages += len(ms)
			return real.WriteBatch(ms, 0)
		}}
		var frames [][]byte
		for i := range 100 {
			frames = append(frames, bytes.Repeat([]byte{byte(i)}, 1000-i%40/39))
		}
		if err := from.Send(t.Context(), frames); err != nil {
			t.Fatal(err)
		}
		if messages > 10 {
			t.Errorf("%s: %d frames are %d messages", cfg.what(), len(frames), messages)
		}
		if !eventually(func() bool { return len(to.Frames()) == len(frames) }) {
			t.Fatalf("%s: %d frames of %d arrived", cfg.what(), len(to.Frames()), len(frames))
		}
		for i, f := range to.Frames() {
			if !bytes.Equal(f, frames[i]) {
				t.Errorf("%s: frame %d is %d bytes %x..., want %d bytes %x...", cfg.what(), i, len(f), f[:4], len(frames[i]), frames[i][:4])
			}
		}
		if !l.segments.Load() {
			t.Errorf("%s: the kernel refused a piece", cfg.what())
		}
	}
}

// An interface that computes no checksums refuses pieces, as long as it is used.
func TestSegments_WhatTheKernelRefusesGoesOneByOne(t *testing.T) {
	for _, tt := range []struct {
		errno error
		off   bool
	}{{syscall.EIO, true}, {syscall.EINVAL, true}, {syscall.EOPNOTSUPP, true}, {syscall.EMSGSIZE, false}} {
		var got []byte
		refused := 0
		p := sentThrough(t, Config{}, func(_ *link, ms []ipv4.Message) (int, error) {
			if len(ms[0].Buffers) > 1 {
				refused++
				return 0, &net.OpError{Op: "write", Err: tt.errno}
			}
			if len(ms[0].OOB) > 0 {
				t.Error("a datagram that goes alone is to be cut")
			}
			got = append(got, ms[0].Buffers[0]...)
			return 1, nil
		})
		var want []byte
		for range 3 {
			sent := frames(100)
			want = append(want, bytes.Join(sent, nil)...)
			if err := p.Send(t.Context(), sent); err != nil {
				t.Fatalf("%v: %v", tt.errno, err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%v: %d bytes arrive, want %d in their order", tt.errno, len(got), len(want))
		}
		if l := p.link.Load(); l.segments.Load() == tt.off || tt.off && refused != 2 || p.lost.count != 0 {
			t.Errorf("%v: refused %d pieces, goes on with them: %v, lost %d", tt.errno, refused, l.segments.Load(), p.lost.count)
		}
	}
}

func TestSegmentOf_ReadsWhatTheKernelSays(t *testing.T) {
	if got := segmentOf(piece(1200)); got != 1200 {
		t.Errorf("%d, want 1200", got)
	}
	other := segmentSize(nil, 700) // of the same level, another type
	if got := segmentOf(append(slices.Clone(other), piece(1200)...)); got != 1200 {
		t.Errorf("behind another message: %d, want 1200", got)
	}
	for _, b := range [][]byte{nil, {1}, other, piece(9)[:17], make([]byte, 40)} {
		if got := segmentOf(b); got != 0 {
			t.Errorf("%x: %d, want 0", b, got)
		}
	}
}

var localOne = netip.MustParseAddrPort("127.0.0.1:1")

// FuzzSegments cuts any piece at any length that a kernel may tell. Nothing is lost or invented.
func FuzzSegments(f *testing.F) {
	f.Add([]byte("abcdefg"), piece(3))
	f.Add([]byte("abcdefg"), []byte(nil))
	f.Add([]byte("abcdefg"), piece(-1))
	f.Add([]byte("a"), piece(1<<30))
	f.Fuzz(func(t *testing.T, b, control []byte) {
		p := &Provider{log: slog.New(slog.DiscardHandler)}
		var got [][]byte
		p.env.Deliver = func(b provider.Batch) { got = append(got, b.Frames...) }
		r := &reader{p: p, l: &link{self: localOne}, names: make(map[netip.AddrPort]string)}
		r.deliver([]ipv4.Message{{Buffers: [][]byte{b}, N: len(b), OOB: control, NN: len(control)}}, new(turn))
		if !bytes.Equal(bytes.Join(got, nil), b) {
			t.Errorf("%x is delivered as %x", b, got)
		}
		length := segmentOf(control)
		for i, frame := range got {
			if len(frame) == 0 || length > 0 && (len(frame) > length || len(frame) < length && i < len(got)-1) {
				t.Errorf("a piece of %d bytes, cut at %d: frame %d has %d", len(b), length, i, len(frame))
			}
		}
	})
}
