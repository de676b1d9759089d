package tcpbus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

func TestMesh_EveryoneHearsEveryoneElseInOrder(t *testing.T) {
	noLeaks(t)
	const n, frames = 5, 300
	var all []*instance
	for i := range n {
		all = append(all, start(t, Config{}, streamID(byte(i+1))))
	}
	introduce(all...)
	var wg sync.WaitGroup
	for i, in := range all {
		wg.Go(func() {
			for k := range frames {
				f := numbered(uint64(k), 20+k%50)
				f[8] = byte(i)
				in.send(t, f)
			}
		})
	}
	wg.Wait()
	for i, in := range all {
		eventually(t, "all frames", func() bool { return len(in.frames()) >= frames*(n-1) })
		bySender := map[byte][][]byte{}
		for _, f := range in.frames() {
			bySender[f[8]] = append(bySender[f[8]], f)
		}
		for j := range byte(n) {
			want := frames
			if int(j) == i {
				want = 0 // nobody hears itself
			}
			if err := exactly(numbers(t, bySender[j]), want); err != nil {
				t.Errorf("instance %d, from %d: %v", i, j, err)
			}
		}
	}
}

// Both ends dial at the same moment, and both send while they do.
func TestMesh_SimultaneousDialLeavesOneConnection(t *testing.T) {
	noLeaks(t)
	const rounds, frames = 200, 20
	crossed := uint64(0)
	for round := range rounds {
		a := start(t, Config{}, streamID(1))
		b := start(t, Config{}, streamID(2))
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for _, pair := range [][2]*instance{{a, b}, {b, a}} {
			wg.Go(func() {
				<-begin
				pair[0].knows(pair[1])
				for i := range frames {
					pair[0].send(t, numbered(uint64(i), 8))
				}
			})
		}
		close(begin)
		wg.Wait()
		awaitConnected(t, a, b)
		a.awaitExactly(t, frames)
		b.awaitExactly(t, frames)
		crossed += a.Refused()[ReasonDuplicate] + b.Refused()[ReasonDuplicate]

		// It is one and the same connection, and the only one there ever was.
		pa, _ := a.peer(b.stream)
		pb, _ := b.peer(a.stream)
		ca, cb := a.conn(b), b.conn(a)
		if pa.Connections != 1 || pb.Connections != 1 || pa.Dialled == pb.Dialled ||
			ca.raw.LocalAddr().String() != cb.raw.RemoteAddr().String() || ca.raw.RemoteAddr().String() != cb.raw.LocalAddr().String() {
			t.Fatalf("round %d: %+v and %+v", round, pa, pb)
		}
		if a.reconnected()+b.reconnected() != 0 {
			t.Errorf("round %d: reported as reconnected", round)
		}
		a.Close()
		b.Close()
	}
	t.Logf("in %d rounds, %d connections gave way to another", rounds, crossed)
	if crossed == 0 {
		t.Error("no two connections ever crossed, so this test shows nothing")
	}
}

// relay is a listener whose connections are carried on to target, once hold is closed.
type relay struct {
	ln   net.Listener
	mu   sync.Mutex
	open []*net.TCPConn
}

// startRelay carries connections on to target; pass decides about each, with what it
// has carried so far toward the target.
func startRelay(t testing.TB, target string, pass func(r *relay, n int, toTarget bool, b []byte) bool) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln}
	t.Cleanup(func() { ln.Close(); r.reset() })
	go func() {
		for n := 0; ; n++ {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", target)
			if err != nil {
				nc.Close()
				continue
			}
			in, out := nc.(*net.TCPConn), back.(*net.TCPConn)
			r.mu.Lock()
			r.open = append(r.open, in, out)
			r.mu.Unlock()
			go r.carry(out, in, n, true, pass)
			go r.carry(in, out, n, false, pass)
		}
	}()
	return r
}

func (r *relay) carry(to, from *net.TCPConn, n int, toTarget bool, pass func(*relay, int, bool, []byte) bool) {
	buf := make([]byte, 32<<10)
	for {
		k, err := from.Read(buf)
		if k > 0 && (pass != nil && !pass(r, n, toTarget, buf[:k])) {
			to.Close()
			from.Close()
			return
		}
		if k > 0 {
			if _, err := to.Write(buf[:k]); err != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			to.CloseWrite()
			return
		}
	}
}

// reset breaks all connections, as a network that fails does.
func (r *relay) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		c.SetLinger(0)
		c.Close()
	}
	r.open = nil
}

// via is the row of in, leading through r.
func (r *relay) via(in *instance) site.Member {
	m := in.member()
	m.Addresses = map[string][]string{"tcp": {r.ln.Addr().String()}}
	return m
}

func setMembers(in *instance, rows ...site.Member) {
	in.SetMembers(provider.Members{Self: in.stream, Others: rows})
}

// One end's proof is under way, and the other dials meanwhile: whichever it
// is, the connection dialled by the smaller stream stays.
func TestMesh_OfTwoConnectionsTheSmallerDiallersStays(t *testing.T) {
	for _, tt := range []struct {
		name string
		held byte // the stream whose proof is held up
		want byte // who dialled the connection that stays
	}{
		{"smaller held up", 1, 1},
		{"larger held up", 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			small, large := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2))
			slow, fast := small, large
			if tt.held == 2 {
				slow, fast = large, small
			}
			proofSeen, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			r := startRelay(t, fast.address(), func(_ *relay, n int, toTarget bool, b []byte) bool {
				if n == 0 && toTarget && len(b) == proofLen {
					once.Do(func() { close(proofSeen) })
					<-release
				}
				return true
			})
			setMembers(fast) // it accepts
			setMembers(slow, r.via(fast))
			<-proofSeen
			setMembers(fast, slow.member()) // it dials too, and sends its proof
			if tt.held == 1 {
				slow.awaitRefused(t, ReasonDuplicate, 1) // the smaller insists on its own
				if slow.connectedTo(fast) {
					t.Error("connected, although the smaller has a connection under way")
				}
			} else {
				eventually(t, "connected at the smaller", func() bool { return fast.connectedTo(slow) })
			}
			close(release)
			awaitConnected(t, small, large)
			if tt.held == 2 {
				fast.awaitRefused(t, ReasonDuplicate, 1) // the proof that was held up comes too late
			}
			pe, _ := small.peer(large.stream)
			if pe.Dialled != (tt.want == 1) {
				t.Errorf("dialled by the smaller: %v", pe.Dialled)
			}
			for i := range 50 {
				small.send(t, numbered(uint64(i), 8))
				large.send(t, numbered(uint64(i), 8))
			}
			small.awaitExactly(t, 50)
			large.awaitExactly(t, 50)
			if a, b := small.conn(large), large.conn(small); a == nil || b == nil {
				t.Error("the connection did not last")
			}
		})
	}
}

// From SetMembers on, Send queues for a member that is not connected yet.
func TestMesh_QueuesForMembersThatAreNotConnected(t *testing.T) {
	noLeaks(t)
	a := start(t, Config{}, streamID(1))
	late := newTest(t, Config{})
	row := site.Member{Site: testSite, Stream: streamID(2), State: site.MemberOpen}
	// A port that nobody listens at until the late one does.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	row.Addresses = map[string][]string{"tcp": {ln.Addr().String()}}
	late.cfg.Listen = ln.Addr().String()
	ln.Close()
	setMembers(a, row)
	for i := range 100 {
		a.send(t, numbered(uint64(i), 1000))
	}
	pe, ok := a.peer(row.Stream)
	if !ok || pe.Connected || !pe.Listed || pe.QueuedFrames != 100 || pe.QueuedBytes != 100*(1000+frameOverhead) {
		t.Errorf("peer: %+v, %v", pe, ok)
	}
	b := start(t, Config{Listen: late.cfg.Listen}, streamID(2))
	b.knows()
	b.awaitExactly(t, 100)
	eventually(t, "an empty queue", func() bool { pe, _ := a.peer(b.stream); return pe.QueuedFrames == 0 && pe.QueuedBytes == 0 })
	if a.reconnected() != 0 {
		t.Error("a first connection was reported as made again")
	}
}

// A connection that breaks is made again, what was queued meanwhile arrives, and the
// Broker of each end hears of it.
func TestMesh_MakesABrokenConnectionAgain(t *testing.T) {
	noLeaks(t)
	a, b := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2))
	r := startRelay(t, b.address(), nil)
	setMembers(a, r.via(b))
	setMembers(b)
	awaitConnected(t, a, b)
	a.send(t, numbered(0, 8))
	b.awaitExactly(t, 1)
	for round := 1; round <= 5; round++ {
		r.reset()
		eventually(t, "lost at both", func() bool {
			pa, _ := a.peer(b.stream)
			pb, _ := b.peer(a.stream)
			return !pa.Connected && !pb.Connected || pa.Connections > uint64(round)
		})
		a.send(t, numbered(uint64(round), 8))
		b.awaitExactly(t, round+1)
		eventually(t, "reported", func() bool { return a.reconnected() == round && b.reconnected() == round })
	}
}

// What the kernel did not take whole is sent again on the next connection, and what it did
// is not: nothing twice, nothing out of order, whatever is lost.
func TestMesh_BreakingConnectionsNeverRepeatsOrReorders(t *testing.T) {
	noLeaks(t)
	for _, secured := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS=%v", secured), func(t *testing.T) {
			var cfg Config
			if secured {
				cfg.TLS = tlsConfig(t)
			}
			often := withLimits(func(l *limits) { l.stable = 0 }) // a connection that breaks soon was fine
			a, b := start(t, cfg, streamID(1), often), start(t, cfg, streamID(2), often)
			rA := startRelay(t, b.address(), nil)
			rB := startRelay(t, a.address(), nil)
			setMembers(a, rA.via(b))
			setMembers(b, rB.via(a))
			awaitConnected(t, a, b)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				defer close(stop)
				for range 15 {
					na, nb := len(a.frames()), len(b.frames())
					eventually(t, "frames again", func() bool { return len(a.frames()) > na+50 && len(b.frames()) > nb+50 })
					rA.reset()
					rB.reset()
				}
			})
			n := uint64(0)
			for running := true; running; n++ {
				select {
				case <-stop:
					running = false
				default:
					a.send(t, numbered(n, 1+int(n*7919%20_000)))
					b.send(t, numbered(n, 1+int(n*7919%20_000)))
					eventually(t, "taken", func() bool { // what is lost is lost on the way, not in the queue
						pa, _ := a.peer(b.stream)
						pb, _ := b.peer(a.stream)
						return pa.QueuedFrames < 100 && pb.QueuedFrames < 100
					})
				}
			}
			wg.Wait()
			last := numbered(n, 8)
			a.send(t, last)
			b.send(t, last)
			for _, in := range []*instance{a, b} {
				eventually(t, "the last frame", func() bool {
					got := in.frames()
					return len(got) > 0 && slices.Equal(got[len(got)-1], last)
				})
				ns := numbers(t, in.frames())
				for i := 1; i < len(ns); i++ {
					if ns[i] <= ns[i-1] {
						t.Fatalf("frame %d after frame %d", ns[i], ns[i-1])
					}
				}
				t.Logf("%d of %d frames arrived, reported %d times", len(ns), n+1, in.reconnected())
				if uint64(len(ns)) < n+1 && in.reconnected() == 0 {
					t.Error("frames were lost and nobody was told")
				}
			}
		})
	}
}

// The other end dials anew while this end still believes in the old connection, which is silent.
func TestMesh_ReplacesAConnectionThatTheOtherEndLost(t *testing.T) {
	noLeaks(t)
	in := start(t, Config{}, streamID(2)) // the larger, and neither has dialled
	in.knows()
	old := call(t, in, streamID(1))
	old.connect()
	old.write(encodeFrames(numbered(0, 8)))
	in.awaitExactly(t, 1)
	old.write(encodeFrames(numbered(1, 8))) // perhaps not read yet
	next := call(t, in, streamID(1))
	next.connect()
	next.write(encodeFrames(numbered(2, 8), numbered(3, 8)))
	in.awaitExactly(t, 4)
	in.send(t, []byte("to the new one"))
	if got := next.read(4 + 14); string(got[4:]) != "to the new one" {
		t.Errorf("read %q", got)
	}
	old.hungUp()
	eventually(t, "reported", func() bool { return in.reconnected() == 1 })
}

// Frames that the old connection still holds are delivered before those of the new one.
func TestMesh_DeliversTheOldConnectionFirst(t *testing.T) {
	noLeaks(t)
	release := make(chan struct{})
	open := sync.OnceFunc(func() { close(release) })
	var first atomic.Bool
	in := start(t, Config{}, streamID(2), withDeliver(func(provider.Batch) {
		if first.CompareAndSwap(false, true) {
			<-release
		}
	}), withLimits(func(l *limits) { l.drain = patience }))
	t.Cleanup(open) // before in is closed
	in.knows()
	old := call(t, in, streamID(1))
	old.connect()
	for i := range 100 {
		old.write(encodeFrames(numbered(uint64(i), 5000)))
	}
	old.nc.Close()
	next := call(t, in, streamID(1))
	next.connect()
	next.write(encodeFrames(numbered(100, 8)))
	in.send(t, []byte("x"))
	next.read(5) // the new connection is in use, in the other direction
	eventually(t, "standing still", first.Load)
	<-time.After(50 * time.Millisecond) // what must not happen
	if n := len(in.frames()); n != 0 {
		t.Errorf("%d frames delivered past those that came first", n)
	}
	open()
	in.awaitExactly(t, 101)
}

func TestMesh_RestartedPeerIsANewOne(t *testing.T) {
	noLeaks(t)
	a := start(t, Config{}, streamID(1))
	b := start(t, Config{}, streamID(2))
	introduce(a, b)
	awaitConnected(t, a, b)
	b.Close()
	again := start(t, Config{Listen: b.address()}, streamID(3)) // the same address
	introduce(a, again)
	awaitConnected(t, a, again)
	for i := range 10 {
		a.send(t, numbered(uint64(i), 8))
	}
	again.awaitExactly(t, 10)
	if n := again.reconnected() + a.reconnected(); n != 0 {
		t.Errorf("reported as reconnected %d times: a new stream lost nothing", n)
	}
	eventually(t, "the old one forgotten", func() bool { _, ok := a.peer(b.stream); return !ok })
}

func TestMesh_NewStreamMakesAllConnectionsAgain(t *testing.T) {
	noLeaks(t)
	a, b, c := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2)), start(t, Config{}, streamID(3))
	introduce(a, b, c)
	awaitConnected(t, a, b)
	awaitConnected(t, a, c)
	old := a.stream
	const before = 100
	for i := range before {
		a.send(t, numbered(uint64(i), 10_000))
	}
	a.stream = streamID(9)
	a.knows(b, c)
	for i := range before {
		a.send(t, numbered(uint64(before+i), 10_000))
	}
	b.knows(a, c)
	c.knows(a, b)
	awaitConnected(t, a, b)
	awaitConnected(t, a, c)
	b.awaitExactly(t, 2*before) // in order, across the change
	c.awaitExactly(t, 2*before)
	for _, in := range []*instance{b, c} {
		eventually(t, "the old stream forgotten", func() bool { _, ok := in.peer(old); return !ok })
	}
}

// The other end hears that the old stream is gone, while it has yet to deliver what came
// under it.
func TestMesh_NewStreamWaitsForWhatTheOldOneSent(t *testing.T) {
	noLeaks(t)
	release := make(chan struct{})
	open := sync.OnceFunc(func() { close(release) })
	var first atomic.Bool
	patient := withLimits(func(l *limits) { l.drain, l.grace = patience, patience })
	a := start(t, Config{}, streamID(1), patient)
	b := start(t, Config{}, streamID(2), patient, withDeliver(func(provider.Batch) {
		if first.CompareAndSwap(false, true) {
			<-release
		}
	}))
	t.Cleanup(open) // before b is closed
	introduce(a, b)
	awaitConnected(t, a, b)
	for i := range 100 {
		a.send(t, numbered(uint64(i), 10_000))
	}
	eventually(t, "standing still", first.Load)
	eventually(t, "an empty queue", func() bool { pe, _ := a.peer(b.stream); return pe.QueuedFrames == 0 })
	a.stream = streamID(9)
	a.knows(b)
	a.send(t, numbered(100, 8))
	b.knows(a)
	// Both want to connect now, and are to wait.
	a.awaitRefused(t, ReasonClosing, 1)
	if n := len(b.frames()); n != 0 {
		t.Errorf("%d frames delivered past those that came first", n)
	}
	open()
	b.awaitExactly(t, 101)
}

func TestMesh_ForgetsMembersThatAreGone(t *testing.T) {
	noLeaks(t)
	a := start(t, Config{}, streamID(1), withLimits(func(l *limits) { l.grace = 100 * time.Millisecond }))
	b := start(t, Config{}, streamID(2))
	introduce(a, b)
	awaitConnected(t, a, b)
	nobody := site.Member{Site: testSite, Stream: streamID(3), Addresses: map[string][]string{"tcp": {"127.0.0.1:1"}}}
	setMembers(a, b.member(), nobody)
	a.send(t, numbered(0, 8))
	setMembers(a)
	a.send(t, numbered(1, 8)) // not for nobody
	b.awaitExactly(t, 2)
	b.Close()
	eventually(t, "without peers", func() bool { return len(a.Peers()) == 0 })
	if n := a.Dropped(); n != 1 {
		t.Errorf("dropped %d, want the one frame that was queued for nobody", n)
	}
	if err := a.SendTo(context.Background(), nobody.Stream, [][]byte{{1}}); !errors.Is(err, provider.ErrUnreachable) {
		t.Errorf("SendTo: %v, want ErrUnreachable", err)
	}
}

// An instance that was reaped may live. While it is connected nothing changes for
// it, for a while; then it has to come with a new stream.
func TestMesh_KeepsReapedInstancesForAWhile(t *testing.T) {
	noLeaks(t)
	for _, linger := range []time.Duration{patience, 50 * time.Millisecond} {
		a := start(t, Config{}, streamID(1), withLimits(func(l *limits) { l.linger = linger }))
		b := start(t, Config{}, streamID(2))
		introduce(a, b)
		awaitConnected(t, a, b)
		setMembers(a)
		if linger == patience {
			a.send(t, numbered(0, 8))
			b.send(t, numbered(0, 8))
			a.awaitExactly(t, 1)
			b.awaitExactly(t, 1)
			if err := a.SendTo(context.Background(), b.stream, [][]byte{numbered(1, 8)}); err != nil {
				t.Errorf("SendTo: %v", err)
			}
			b.awaitExactly(t, 2)
			continue
		}
		a.awaitRefused(t, ReasonGone, 1) // it tries again
		eventually(t, "forgotten", func() bool { return len(a.Peers()) == 0 })
	}
}

// The others may hear of a new stream before its instance begins to use it.
func TestMesh_NewStreamHearsNothingTwice(t *testing.T) {
	noLeaks(t)
	a, b := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2))
	introduce(a, b)
	awaitConnected(t, a, b)
	b.stream = streamID(3)
	a.knows(b)
	a.send(t, numbered(0, 8))
	b.knows(a)
	awaitConnected(t, a, b)
	a.send(t, numbered(1, 8))
	b.awaitExactly(t, 2)
}

// A row may be missing from one answer and be there again in the next.
func TestMesh_KeepsAMemberThatComesBack(t *testing.T) {
	noLeaks(t)
	a := start(t, Config{}, streamID(1), withLimits(func(l *limits) { l.grace = patience }))
	nobody := site.Member{Site: testSite, Stream: streamID(3), Addresses: map[string][]string{"tcp": {"127.0.0.1:1"}}}
	setMembers(a, nobody)
	a.send(t, numbered(0, 8))
	setMembers(a)
	setMembers(a, nobody)
	if pe, ok := a.peer(nobody.Stream); !ok || !pe.Listed || pe.QueuedFrames != 1 {
		t.Errorf("peer: %+v, %v", pe, ok)
	}
}

func TestMesh_KeepsPeersWithoutARowWhileConnected(t *testing.T) {
	noLeaks(t)
	in := start(t, Config{}, streamID(1), withLimits(func(l *limits) { l.grace = 50 * time.Millisecond }))
	in.knows()
	c := call(t, in, streamID(2))
	c.connect()
	in.knows() // still without
	in.send(t, []byte("hi"))
	c.read(6)
	if pe, ok := in.peer(streamID(2)); !ok || pe.Listed || !pe.Connected {
		t.Errorf("peer: %+v, %v", pe, ok)
	}
	c.nc.Close()
	eventually(t, "forgotten", func() bool { return len(in.Peers()) == 0 })
}

// The address of a member that runs no TCP provider is nobody's.
func TestMesh_IgnoresMembersOfOtherProviders(t *testing.T) {
	in := start(t, Config{}, streamID(1))
	setMembers(in, site.Member{Site: testSite, Stream: streamID(2), Addresses: map[string][]string{"udp": {"239.0.0.1:7"}}},
		site.Member{Site: testSite, Stream: streamID(1), Addresses: map[string][]string{"tcp": {in.address()}}})
	if n := len(in.Peers()); n != 0 {
		t.Errorf("%d peers, want none: one has no TCP address, one is this instance", n)
	}
}

func TestMesh_DialsNoForeignNetworks(t *testing.T) {
	dialled := make(chan string, 100)
	a := start(t, Config{AllowNetworks: mustPrefixes("192.0.2.0/24")}, streamID(1), func(p *Provider, _ *provider.Env, _ *instance) {
		p.dialWith = func(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
			nc, err := d.DialContext(ctx, "tcp", address)
			if err == nil {
				dialled <- address
			}
			return nc, err
		}
	})
	b := start(t, Config{}, streamID(2))
	b.knows()
	setMembers(a, b.member())
	eventually(t, "tried", func() bool {
		a.Provider.mu.Lock()
		defer a.Provider.mu.Unlock()
		return a.peers[b.stream].target.failures > 0
	})
	if len(dialled) > 0 {
		t.Errorf("dialled %s", <-dialled)
	}
}

// The first address in the row leads nowhere.
func TestMesh_TriesAllAddressesOfARow(t *testing.T) {
	a, b := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2))
	b.knows()
	row := b.member()
	row.Addresses = map[string][]string{"tcp": {"127.0.0.1:1", "not an address", b.address()}}
	setMembers(a, row)
	awaitConnected(t, a, b)
}

func TestMesh_FollowsAnAddressThatChanges(t *testing.T) {
	a, b := start(t, Config{}, streamID(1)), start(t, Config{}, streamID(2))
	b.knows()
	row := b.member()
	row.Addresses = map[string][]string{"tcp": {"127.0.0.1:1"}}
	setMembers(a, row)
	a.send(t, numbered(0, 8))
	setMembers(a, b.member())
	b.awaitExactly(t, 1)
	eventually(t, "one dialler", func() bool { return goroutines("keepConnected") == 1 })
}

func TestMesh_DialsNobodyWhoIsGone(t *testing.T) {
	noLeaks(t)
	a := start(t, Config{}, streamID(1))
	setMembers(a, site.Member{Site: testSite, Stream: streamID(2), Addresses: map[string][]string{"tcp": {"127.0.0.1:1"}}})
	eventually(t, "one dialler", func() bool { return goroutines("keepConnected") == 1 })
	setMembers(a)
	eventually(t, "no dialler", func() bool { return goroutines("keepConnected") == 0 })
}

func TestEndpoints_ConnectWithoutRows(t *testing.T) {
	noLeaks(t)
	// Every instance has the same list, itself included.
	var all []*instance
	var list []string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, ln.Addr().String())
		ln.Close()
	}
	for i := range 3 {
		all = append(all, start(t, Config{Listen: list[i], Endpoints: list}, streamID(byte(i+1))))
	}
	for _, in := range all {
		in.knows()
	}
	for i := range all {
		for j := range i {
			awaitConnected(t, all[i], all[j])
		}
	}
	for _, in := range all {
		in.send(t, numbered(0, 8))
	}
	for _, in := range all {
		eventually(t, "a frame of each", func() bool { return len(in.frames()) == 2 })
		if n := in.Refused()[ReasonOwnStream]; n != 0 {
			t.Errorf("refused itself %d times, which is no refusal", n)
		}
	}
	eventually(t, "knowing itself", func() bool {
		in := all[0]
		in.Provider.mu.Lock()
		defer in.Provider.mu.Unlock()
		return in.targets[0].failures == math.MaxInt
	})
}

func TestEndpoints_FollowARestart(t *testing.T) {
	noLeaks(t)
	b := start(t, Config{}, streamID(2))
	b.knows()
	a := start(t, Config{Endpoints: []string{b.address()}}, streamID(1))
	a.knows()
	awaitConnected(t, a, b)
	b.Close()
	again := start(t, Config{Listen: b.address()}, streamID(3))
	again.knows()
	awaitConnected(t, a, again)
}

// With endpoints, rows still say for whom to queue.
func TestEndpoints_QueueForMembers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	ln.Close()
	a := start(t, Config{Endpoints: []string{at}}, streamID(1), func(p *Provider, _ *provider.Env, _ *instance) {
		p.dialWith = func(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
			if address != at {
				t.Errorf("dialled %s", address)
			}
			return d.DialContext(ctx, "tcp", address)
		}
	})
	setMembers(a, site.Member{Site: testSite, Stream: streamID(2), Addresses: map[string][]string{"tcp": {"192.0.2.99:1"}}})
	a.send(t, numbered(0, 8))
	b := start(t, Config{Listen: at}, streamID(2))
	b.knows()
	b.awaitExactly(t, 1)
}

// Many instances of one machine start at once.
func TestMesh_ManyStartAtOnce(t *testing.T) {
	noLeaks(t)
	n := 50
	if testing.Short() {
		n = 10
	}
	var all []*instance
	for i := range n {
		all = append(all, start(t, Config{}, streamID(byte(i+1)), withLimits(func(l *limits) { *l = defaultLimits })))
	}
	begin := time.Now()
	var wg sync.WaitGroup
	for i, in := range all {
		others := slices.Delete(slices.Clone(all), i, i+1)
		wg.Go(func() { in.knows(others...) })
	}
	wg.Wait()
	eventually(t, "all connected", func() bool {
		for _, in := range all {
			for _, pe := range in.Peers() {
				if !pe.Connected {
					return false
				}
			}
		}
		return true
	})
	t.Logf("%d instances are connected after %v", n, time.Since(begin))
	refused := map[Reason]uint64{}
	for _, in := range all {
		in.send(t, numbered(0, 8))
		for r, n := range in.Refused() {
			refused[r] += n
		}
	}
	for _, in := range all {
		eventually(t, "a frame of each", func() bool { return len(in.frames()) == n-1 })
	}
	t.Logf("refused: %v", refused)
}

// Instances of several sites in one database hear each other, whoever dials: both
// use the key of the site that the end that dialled belongs to.
func TestMesh_ConnectsSitesThatAcceptEachOther(t *testing.T) {
	noLeaks(t)
	x, y := secretKeys{site.ID{'x'}, 1, "of x"}, secretKeys{site.ID{'y'}, 2, "of y"}
	both := withSites(x.site, y.site)
	for _, dialler := range []int{0, 1} {
		a := start(t, Config{}, streamID(1), both, withKeys(ring{x, y}))
		b := start(t, Config{}, streamID(2), both, withKeys(ring{y, x}))
		if dialler == 0 {
			a.knows(b)
			b.knows()
		} else {
			a.knows()
			b.knows(a)
		}
		awaitConnected(t, a, b)
		a.send(t, numbered(0, 8))
		b.send(t, numbered(0, 8))
		a.awaitExactly(t, 1)
		b.awaitExactly(t, 1)
	}
}
