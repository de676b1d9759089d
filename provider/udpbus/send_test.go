package udpbus

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// kernel stands in for a socket's system calls.
type kernel struct {
	read  func([]ipv4.Message) (int, error)
	write func([]ipv4.Message) (int, error)
}

func (k kernel) ReadBatch(ms []ipv4.Message, _ int) (int, error)  { return k.read(ms) }
func (k kernel) WriteBatch(ms []ipv4.Message, _ int) (int, error) { return k.write(ms) }

// sentThrough starts a Provider whose datagrams go to write.
func sentThrough(t *testing.T, cfg Config, write func(*link, []ipv4.Message) (int, error)) *Provider {
	t.Helper()
	cfg.Interface = "127.0.0.1"
	cfg.Port = freePort(t)
	p := newTest(t, cfg)
	providertest.Start(t, p)
	l := p.link.Load()
	l.outMsg = kernel{write: func(ms []ipv4.Message) (int, error) { return write(l, ms) }}
	return p
}

func frames(n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = []byte{byte(i), byte(i >> 8)}
	}
	return all
}

// The kernel may take fewer datagrams than it was given.
func TestSend_GoesOnWhereTheKernelStopped(t *testing.T) {
	var got []byte
	calls := 0
	p := sentThrough(t, Config{}, func(_ *link, ms []ipv4.Message) (int, error) {
		if calls++; len(ms) > writeBatch {
			t.Errorf("%d datagrams at once, want %d at most", len(ms), writeBatch)
		}
		n := min(len(ms), 1+calls%7)
		for _, m := range ms[:n] {
			got = append(got, bytes.Join(m.Buffers, nil)...)
		}
		return n, nil
	})
	sent := frames(1000)
	if err := p.Send(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	if want := bytes.Join(sent, nil); !bytes.Equal(got, want) {
		t.Errorf("the kernel got %d bytes, not the %d sent in their order", len(got), len(want))
	}
	for _, m := range p.out.messages {
		for _, b := range m.Buffers[:cap(m.Buffers)] {
			if b != nil {
				t.Fatal("a frame is kept alive after Send")
			}
		}
	}
}

func TestSend_ReportsWhatConcernsAll(t *testing.T) {
	for _, errno := range []error{syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENOBUFS, syscall.EPERM} {
		p := sentThrough(t, Config{}, func(*link, []ipv4.Message) (int, error) { return 0, &net.OpError{Op: "write", Err: errno} })
		if err := p.Send(t.Context(), frames(3)); !errors.Is(err, errno) || errors.Is(err, provider.ErrClosed) {
			t.Errorf("the kernel said %v, Send says %v", errno, err)
		}
	}
}

func TestSend_LosesWhatConcernsOneDatagram(t *testing.T) {
	list := Config{Mode: Unicast, Peers: []string{"127.0.0.2:7", "127.0.0.3:7"}}
	for _, tt := range []struct {
		cfg   Config
		errno error
	}{
		{Config{}, syscall.EMSGSIZE},
		{Config{}, syscall.ECONNREFUSED},
		{list, syscall.EMSGSIZE},
		{list, syscall.ECONNREFUSED},
		{list, syscall.EHOSTUNREACH},
		{list, syscall.ENETUNREACH},
		{list, syscall.EPERM},
	} {
		calls, passed := 0, 0
		p := sentThrough(t, tt.cfg, func(_ *link, ms []ipv4.Message) (int, error) {
			if calls++; calls%2 == 1 {
				return 0, &net.OpError{Op: "write", Err: tt.errno}
			}
			passed++
			return 1, nil
		})
		p.link.Load().segments.Store(false)
		if err := p.Send(t.Context(), frames(10)); err != nil {
			t.Errorf("%s, %v for every second datagram: Send says %v", tt.cfg.Mode, tt.errno, err)
		}
		want := 5 * max(1, len(tt.cfg.Peers))
		if passed != want || p.lost.count != uint64(want) {
			t.Errorf("%s, %v for every second datagram: %d passed and %d are counted as lost, want %d of each",
				tt.cfg.Mode, tt.errno, passed, p.lost.count, want)
		}
	}
}

// full waits for room that never comes, as in a socket whose interface takes nothing.
func full(l *link, _ []ipv4.Message) (int, error) {
	raw, err := l.out.SyscallConn()
	if err != nil {
		return 0, err
	}
	return 0, raw.Write(func(uintptr) bool { return false })
}

func TestSend_EndsWithItsContext(t *testing.T) {
	waiting := make(chan struct{})
	p := sentThrough(t, Config{}, func(l *link, ms []ipv4.Message) (int, error) {
		close(waiting)
		return full(l, ms)
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- p.Send(ctx, frames(1)) }()
	<-waiting
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Send whose ctx ended while it waited: %v", err)
	}
	// The deadline that ended it is gone.
	l := p.link.Load()
	l.outMsg = batches(l.out)
	if err := p.Send(t.Context(), frames(1)); err != nil {
		t.Errorf("the next Send: %v", err)
	}
	if err := p.Send(ctx, frames(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Send with a ctx that has ended: %v", err)
	}
}

// The list may be the same in all instances.
func TestSend_LeavesThisInstanceOut(t *testing.T) {
	var to []string
	cfg := Config{Mode: Unicast, Peers: []string{"127.0.0.1:9", "127.0.0.2:9", "127.0.0.1:10"}}
	p := sentThrough(t, cfg, func(_ *link, ms []ipv4.Message) (int, error) {
		for _, m := range ms {
			to = append(to, m.Addr.String())
		}
		return len(ms), nil
	})
	p.link.Load().self = netip.MustParseAddrPort("127.0.0.1:9")
	if err := p.Send(t.Context(), frames(1)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"127.0.0.1:10", "127.0.0.2:9"}; !slices.Equal(to, want) {
		t.Errorf("sent to %v, want %v", to, want)
	}
}

func TestSend_EndsWithClose(t *testing.T) {
	waiting := make(chan struct{})
	p := sentThrough(t, Config{}, func(l *link, ms []ipv4.Message) (int, error) {
		close(waiting)
		return full(l, ms)
	})
	result := make(chan error)
	go func() { result <- p.Send(t.Context(), frames(1)) }()
	<-waiting
	p.Close()
	if err := <-result; !errors.Is(err, provider.ErrClosed) {
		t.Errorf("Send that waited when Close came: %v", err)
	}
}

func TestEquals_TakesWhatTheKernelCanCut(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sizes []int
		want  int
	}{
		{"one", []int{100}, 1},
		{"the last is shorter", []int{100, 100, 40, 100}, 3},
		{"none is longer than the first", []int{100, 100, 101}, 2},
		{"an empty one is no part", []int{100, 100, 0}, 2},
		{"the first is empty", []int{0, 0}, 1},
		{"so many", slices.Repeat([]int{10}, 200), maxSegments},
		{"so many bytes", slices.Repeat([]int{20_000}, 10), 3},
		{"alone though large", []int{65_507, 1}, 1},
	} {
		var frames [][]byte
		for _, n := range tt.sizes {
			frames = append(frames, make([]byte, n))
		}
		if got := equals(frames); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestSend_BeforeStartIsAnError(t *testing.T) {
	p := newTest(t, Config{})
	if err := p.Send(t.Context(), frames(1)); err == nil || errors.Is(err, provider.ErrClosed) {
		t.Errorf("Send before Start: %v", err)
	}
}

func TestRead_GoesOnAfterErrors(t *testing.T) {
	var log bytes.Buffer
	p := newTest(t, Config{})
	p.log = slog.New(slog.NewTextHandler(&log, nil))
	heard := make(chan provider.Batch, 10)
	p.env.Deliver = func(b provider.Batch) {
		b.Frames = slices.Clone(b.Frames)
		heard <- b
	}
	l := &link{done: make(chan struct{})}
	calls := 0
	l.inMsg = kernel{read: func(ms []ipv4.Message) (int, error) {
		switch calls++; {
		case calls <= 3:
			return 0, &net.OpError{Op: "read", Err: syscall.ECONNREFUSED}
		case calls == 4:
			ms[0].N = copy(ms[0].Buffers[0], "after errors")
			ms[0].Addr = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}
			return 1, nil
		case calls == 5:
			return 0, os.ErrDeadlineExceeded
		}
		l.closing.Store(true)
		return 0, net.ErrClosed
	}}
	p.wg.Add(1)
	p.newReader(l).run() // returns
	if b := <-heard; string(b.Frames[0]) != "after errors" || b.From != "192.0.2.1:7" {
		t.Errorf("heard %q from %q", b.Frames, b.From)
	}
	if n := strings.Count(log.String(), "receiving failed"); n != 1 {
		t.Errorf("4 errors are %d lines in the log, want 1:\n%s", n, &log)
	}
}

func TestReporter_SpeaksOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var r reporter
		for range 2500 {
			r.add(2, slog.New(slog.NewTextHandler(&log, nil)), "lost")
			time.Sleep(time.Millisecond)
		}
		if n := strings.Count(log.String(), "\n"); n != 3 || !strings.Contains(log.String(), "datagrams=4002") {
			t.Errorf("2.5 s are %d lines:\n%s", n, &log)
		}
	})
}

func TestDeliver_KeepsSourcesApart(t *testing.T) {
	p := newTest(t, Config{})
	var got []string
	var lent []bool
	p.env.Deliver = func(b provider.Batch) {
		got = append(got, b.From+" "+string(bytes.Join(b.Frames, []byte(","))))
		lent = append(lent, b.Resume != nil)
	}
	var messages []ipv4.Message
	for i, port := range []int{1, 1, 2, 1, 7, 2} { // 7 is this instance
		messages = append(messages, ipv4.Message{Buffers: [][]byte{{byte('a' + i)}}, N: 1, Addr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: port}})
	}
	r := &reader{p: p, l: &link{self: netip.MustParseAddrPort("192.0.2.1:7")}, names: make(map[netip.AddrPort]string)}
	r.deliver(messages, &turn{resume: func() {}})
	if want := []string{"192.0.2.1:1 a,b", "192.0.2.1:2 c", "192.0.2.1:1 d", "192.0.2.1:2 f"}; !slices.Equal(got, want) {
		t.Errorf("delivered %q, want %q", got, want)
	}
	if want := []bool{false, false, false, true}; !slices.Equal(lent, want) {
		t.Errorf("the goroutine is lent: %v, want %v, as another one would not know what is left to deliver", lent, want)
	}
}

// Much that arrives together is handed over in parts, so that the first of it waits for no more.
func TestDeliver_HandsOverInParts(t *testing.T) {
	p := newTest(t, Config{})
	var parts []int
	p.env.Deliver = func(b provider.Batch) {
		n := 0
		for _, f := range b.Frames {
			n += len(f)
		}
		parts = append(parts, n)
	}
	var messages []ipv4.Message
	for range 10 {
		messages = append(messages, ipv4.Message{Buffers: [][]byte{make([]byte, 40_000)}, N: 40_000, Addr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}})
	}
	r := &reader{p: p, l: new(link), names: make(map[netip.AddrPort]string)}
	r.deliver(messages, new(turn))
	if want := slices.Repeat([]int{80_000}, 5); !slices.Equal(parts, want) {
		t.Errorf("handed over %d bytes, want %d", parts, want)
	}
}

// Strangers can invent as many sources as they like.
func TestDeliver_BoundsTheNamesItRemembers(t *testing.T) {
	p := newTest(t, Config{})
	var batches, heard int
	p.env.Deliver = func(b provider.Batch) { batches++; heard += len(b.Frames) }
	names := make(map[netip.AddrPort]string)
	r := &reader{p: p, l: new(link), names: names}
	for port := range 3000 {
		m := ipv4.Message{Buffers: [][]byte{{1}}, N: 1, Addr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1 + port}}
		r.deliver([]ipv4.Message{m, m, {Buffers: [][]byte{{}}, Addr: m.Addr}}, new(turn))
	}
	if len(names) > maxNames {
		t.Errorf("%d names are remembered, want %d at most", len(names), maxNames)
	}
	if batches != 3000 || heard != 6000 {
		t.Errorf("%d frames in %d batches, want 6000 in 3000: those of one source together, empty datagrams left out", heard, batches)
	}
}
