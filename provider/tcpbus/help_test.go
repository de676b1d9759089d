package tcpbus

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// patience bounds what must happen. It costs time only where something is wrong.
const patience = 20 * time.Second

// eventually waits for what real sockets make true.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	if !providertest.Eventually(patience, cond) {
		tb.Fatalf("after %v: not %s", patience, what)
	}
}

// noLeaks fails the test if a goroutine of this package outlives it. Call it
// before anything that is closed by Cleanup.
func noLeaks(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		t.Helper()
		eventually(t, "without goroutines of this package", func() bool {
			return goroutines("tcpbus.(*Provider)") == 0 && goroutines("tcpbus.(*conn)") == 0
		})
	})
}

// goroutines returns how many have this text in their stack.
func goroutines(text string) int {
	buf := make([]byte, 1<<20)
	n := 0
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, text) {
			n++
		}
	}
	return n
}

var testSite = site.ID{'t', 'c', 'p', 'b', 'u', 's'}

const testKey = site.KeyID(7)

func streamID(n byte) site.StreamID { return site.NewStreamID(uint64(n), 0xc0ffee) }

// An instance is a started Provider and what was delivered to it.
type instance struct {
	*Provider
	stream site.StreamID

	mu         sync.Mutex
	got        [][]byte
	reconnects int
	onBatch    func(provider.Batch)
}

// option changes an instance before it starts.
type option func(*Provider, *provider.Env, *instance)

func withLimits(f func(*limits)) option {
	return func(p *Provider, _ *provider.Env, _ *instance) { f(&p.lim) }
}
func withKeys(k provider.Keys) option {
	return func(_ *Provider, e *provider.Env, _ *instance) { e.Keys = k }
}
func withSites(s ...site.ID) option {
	return func(_ *Provider, e *provider.Env, _ *instance) { e.Sites = s }
}
func withDeliver(f func(provider.Batch)) option {
	return func(_ *Provider, _ *provider.Env, in *instance) { in.onBatch = f }
}

func newTest(t testing.TB, cfg Config) *Provider {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A curious handler asks the Provider that logs, which it may: the Provider calls
// nobody while it holds a lock.
type curious struct {
	slog.Handler
	in *instance
}

func (c curious) Handle(ctx context.Context, r slog.Record) error {
	c.in.Peers()
	return c.Handler.Handle(ctx, r)
}

func (c curious) WithAttrs(a []slog.Attr) slog.Handler {
	return curious{c.Handler.WithAttrs(a), c.in}
}

// start starts an instance that is closed when the test ends.
func start(t testing.TB, cfg Config, stream site.StreamID, opts ...option) *instance {
	t.Helper()
	in := &instance{Provider: newTest(t, cfg), stream: stream}
	log := slog.New(curious{slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}), in}).With("me", stream.String())
	env := provider.Env{
		Site: testSite, Sites: []site.ID{testSite},
		Route:       netip.MustParseAddr("127.0.0.1"),
		Logger:      log,
		Deliver:     in.deliver,
		Reconnected: func() { in.mu.Lock(); defer in.mu.Unlock(); in.reconnects++ },
		Keys:        testKeys(),
	}
	in.lim.headStart = 0 // both ends of a pair dial at once, which is harder
	for _, o := range opts {
		o(in.Provider, &env, in)
	}
	if err := in.Start(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

func (in *instance) deliver(b provider.Batch) {
	if in.onBatch != nil {
		in.onBatch(b)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, b.Frames...)
}

func (in *instance) frames() [][]byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([][]byte(nil), in.got...)
}

func (in *instance) reconnected() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.reconnects
}

func (in *instance) member() site.Member {
	return site.Member{
		Site: testSite, Stream: in.stream, State: site.MemberOpen, Role: site.RolePublish | site.RoleSubscribe,
		Addresses: map[string][]string{"tcp": in.Addresses()},
	}
}

// knows tells in that these are the members.
func (in *instance) knows(others ...*instance) {
	m := provider.Members{Self: in.stream}
	for _, o := range others {
		m.Others = append(m.Others, o.member())
	}
	in.SetMembers(m)
}

// introduce tells all of all.
func introduce(all ...*instance) {
	for i, in := range all {
		others := append(append([]*instance(nil), all[:i]...), all[i+1:]...)
		in.knows(others...)
	}
}

func (in *instance) address() string { return in.Addresses()[0] }

// peer returns what in knows of stream.
func (in *instance) peer(stream site.StreamID) (Peer, bool) {
	for _, pe := range in.Peers() {
		if pe.Stream == stream {
			return pe, true
		}
	}
	return Peer{}, false
}

func (in *instance) connectedTo(o *instance) bool {
	pe, _ := in.peer(o.stream)
	return pe.Connected
}

func (in *instance) conn(o *instance) *conn {
	in.Provider.mu.Lock()
	defer in.Provider.mu.Unlock()
	if pe := in.peers[o.stream]; pe != nil {
		return pe.cur
	}
	return nil
}

func awaitConnected(t testing.TB, a, b *instance) {
	t.Helper()
	eventually(t, "connected", func() bool { return a.connectedTo(b) && b.connectedTo(a) })
}

// send sends frames and fails the test if they are not taken.
func (in *instance) send(t testing.TB, frames ...[]byte) {
	t.Helper()
	if err := in.Send(context.Background(), frames); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// numbered returns a frame of this length that holds n.
func numbered(n uint64, length int) []byte {
	f := make([]byte, max(length, 8))
	binary.BigEndian.PutUint64(f, n)
	return f
}

// numbers returns what numbered put into frames.
func numbers(t testing.TB, frames [][]byte) []uint64 {
	t.Helper()
	ns := make([]uint64, len(frames))
	for i, f := range frames {
		if len(f) < 8 {
			t.Fatalf("frame %d has %d bytes: %q", i, len(f), f)
		}
		ns[i] = binary.BigEndian.Uint64(f)
	}
	return ns
}

// exactly returns what is wrong if ns is not 0, 1, …, n-1.
func exactly(ns []uint64, n int) error {
	for i, got := range ns {
		if got != uint64(i) {
			return fmt.Errorf("at %d: frame %d, want %d, of %d frames", i, got, i, len(ns))
		}
	}
	if len(ns) != n {
		return fmt.Errorf("%d frames, want %d", len(ns), n)
	}
	return nil
}

// awaitExactly waits for n frames and fails unless they are those numbered 0 to
// n-1 in order.
func (in *instance) awaitExactly(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d frames", n), func() bool { return len(in.frames()) >= n })
	if err := exactly(numbers(t, in.frames()), n); err != nil {
		t.Fatal(err)
	}
}

func (in *instance) awaitRefused(t testing.TB, r Reason, n uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d refused for %v", n, r), func() bool { return in.Refused()[r] >= n })
}

// dialRaw connects to in as a stranger would.
func dialRaw(t testing.TB, in *instance) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", in.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return nc.(*net.TCPConn)
}
