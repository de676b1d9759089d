package tcpbus

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

func mustPrefixes(s ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

// One peer stands still. The others get everything, its queue stays bounded,
// and what it could not take is counted.
func TestSlow_PeerDelaysNobody(t *testing.T) {
	noLeaks(t)
	const queueBytes, frames, length = 1 << 20, 800, 30_000
	release := make(chan struct{})
	open := sync.OnceFunc(func() { close(release) })
	a := start(t, Config{QueueBytes: queueBytes}, streamID(1))
	fine := start(t, Config{}, streamID(2))
	slow := start(t, Config{}, streamID(3), withDeliver(func(provider.Batch) { <-release }))
	t.Cleanup(open) // before slow is closed
	introduce(a, fine, slow)
	awaitConnected(t, a, fine)
	awaitConnected(t, a, slow)
	for i := range frames {
		a.send(t, numbered(uint64(i), length))
		// The fine one keeps up, so that its own queue is not what overflows.
		eventually(t, "taken by the fine one", func() bool { return len(fine.frames()) == i+1 })
	}
	pe, _ := a.peer(slow.stream)
	if pe.Dropped == 0 || pe.QueuedBytes > queueBytes || !pe.Connected {
		t.Errorf("the slow peer: %+v", pe)
	}
	if pf, _ := a.peer(fine.stream); pf.Dropped != 0 {
		t.Errorf("the fine peer: %+v", pf)
	}
	if a.Dropped() != pe.Dropped {
		t.Errorf("Dropped() = %d, want %d", a.Dropped(), pe.Dropped)
	}
	open()
	// What was dropped is the newest: what arrives is in order.
	want := frames - int(pe.Dropped)
	eventually(t, "the rest", func() bool { return len(slow.frames()) >= want })
	ns := numbers(t, slow.frames())
	for i := 1; i < len(ns); i++ {
		if ns[i] <= ns[i-1] {
			t.Fatalf("frame %d after frame %d", ns[i], ns[i-1])
		}
	}
}

// A peer that takes nothing at all loses its connection, and no goroutine waits for it.
func TestSlow_PeerThatStandsStillLosesItsConnection(t *testing.T) {
	noLeaks(t)
	in := start(t, Config{PeerTimeout: 200 * time.Millisecond}, streamID(1))
	in.knows()
	c := call(t, in, streamID(2))
	c.connect()
	c.nc.SetReadBuffer(4 << 10)
	for i := range 300 {
		in.send(t, numbered(uint64(i), 30_000))
	}
	eventually(t, "not connected", func() bool { pe, _ := in.peer(streamID(2)); return !pe.Connected })
	if pe, ok := in.peer(streamID(2)); !ok || pe.QueuedFrames == 0 {
		t.Errorf("its queue: %+v, %v", pe, ok)
	}
}

func TestSend_RefusesFramesThatAreTooLarge(t *testing.T) {
	a, b := start(t, Config{MaxFrameBytes: 1000}, streamID(1)), start(t, Config{}, streamID(2))
	introduce(a, b)
	for _, tt := range []struct {
		length int
		want   error
	}{{1000, nil}, {1001, provider.ErrFrameTooLarge}} {
		frames := [][]byte{numbered(0, 8), make([]byte, tt.length)}
		if err := a.Send(context.Background(), frames); !errors.Is(err, tt.want) {
			t.Errorf("Send of %d bytes: %v, want %v", tt.length, err, tt.want)
		}
		if err := a.SendTo(context.Background(), b.stream, frames); !errors.Is(err, tt.want) {
			t.Errorf("SendTo of %d bytes: %v, want %v", tt.length, err, tt.want)
		}
	}
	eventually(t, "four frames", func() bool { return len(b.frames()) >= 4 })
	a.send(t, numbered(9, 8))
	eventually(t, "the last frame", func() bool { return len(b.frames()) >= 5 })
	if n := len(b.frames()); n != 5 {
		t.Errorf("%d frames, want 5: of a batch that is refused nothing is sent", n)
	}
}

// Instances with different limits understand each other.
func TestSend_LargestFrameIsTakenByAll(t *testing.T) {
	a, b := start(t, Config{MaxFrameBytes: maxFrameBytes}, streamID(1)), start(t, Config{MaxFrameBytes: 100}, streamID(2))
	introduce(a, b)
	a.send(t, numbered(0, maxFrameBytes))
	b.awaitExactly(t, 1)
}

func TestSendTo_ReachesOneAlone(t *testing.T) {
	a, b, c := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2)), start(t, Config{}, streamID(3))
	introduce(a, b, c)
	ctx := context.Background()
	if err := a.SendTo(ctx, b.stream, [][]byte{numbered(0, 8)}); err != nil {
		t.Fatal(err)
	}
	a.send(t, numbered(1, 8))
	b.awaitExactly(t, 2)
	eventually(t, "a frame", func() bool { return len(c.frames()) == 1 })
	if ns := numbers(t, c.frames()); ns[0] != 1 {
		t.Errorf("the other one got frame %d", ns[0])
	}
	for _, unknown := range []site.StreamID{{}, streamID(4), a.stream} {
		if err := a.SendTo(ctx, unknown, [][]byte{{1}}); !errors.Is(err, provider.ErrUnreachable) {
			t.Errorf("SendTo %v: %v, want ErrUnreachable", unknown, err)
		}
	}
}

func TestSend_EmptyFramesArrive(t *testing.T) {
	a, b := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2))
	introduce(a, b)
	a.send(t, []byte{}, nil, []byte("x"))
	eventually(t, "three frames", func() bool { return len(b.frames()) == 3 })
}

func TestClose_FlushesWhatWasAccepted(t *testing.T) {
	noLeaks(t)
	for _, connected := range []bool{true, false} {
		for range 20 {
			a, b := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2))
			b.knows()
			a.knows(b)
			if connected {
				awaitConnected(t, a, b)
			}
			for i := range 50 {
				a.send(t, numbered(uint64(i), 20_000))
			}
			a.Close()
			b.awaitExactly(t, 50)
			b.Close()
		}
	}
}

func TestClose_WaitsForNobodyLongerThanItsTime(t *testing.T) {
	noLeaks(t)
	in := start(t, Config{}, streamID(1), withLimits(func(l *limits) { l.flush = 50 * time.Millisecond }))
	in.knows()
	c := call(t, in, streamID(2))
	c.connect() // and reads nothing
	setMembers(in, site.Member{Site: testSite, Stream: streamID(3), Addresses: map[string][]string{"tcp": {"127.0.0.1:1"}}})
	for i := range 200 {
		in.send(t, numbered(uint64(i), 30_000))
	}
	done := make(chan struct{})
	go func() { in.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Close waits for a peer that reads nothing")
	}
	for name, err := range map[string]error{
		"Send":   in.Send(context.Background(), [][]byte{{1}}),
		"SendTo": in.SendTo(context.Background(), streamID(2), [][]byte{{1}}),
	} {
		if !errors.Is(err, provider.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	if err := in.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	in.knows() // does nothing
	if len(in.Addresses()) == 0 {
		t.Error("the addresses are gone")
	}
}

func TestClose_BeforeStart(t *testing.T) {
	p := newTest(t, Config{})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Start(t.Context(), provider.Env{}); !errors.Is(err, provider.ErrClosed) {
		t.Errorf("Start after Close: %v, want ErrClosed", err)
	}
}
