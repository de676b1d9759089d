package udpbus

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

const patience = 10 * time.Second

// send sends b until every one of to has heard it.
func send(t *testing.T, from *providertest.Endpoint, b []byte, to ...*providertest.Endpoint) {
	t.Helper()
	for _, e := range to {
		if !eventually(func() bool {
			if err := from.Provider.Send(t.Context(), [][]byte{b}); err != nil {
				t.Logf("Send: %v", err)
			}
			return e.Heard(b, 20*time.Millisecond)
		}) {
			t.Fatalf("%q was not heard", b)
		}
	}
}

func TestMulticast_HearsItsOwnGroupOnly(t *testing.T) {
	hearsItsOwnGroupOnly(t, "127.0.0.1", "239.255.0.1", "239.255.0.2")
}

func hearsItsOwnGroupOnly(t *testing.T, on, group1, group2 string) {
	port := freePort(t)
	group := func(s string) *providertest.Endpoint {
		return providertest.Start(t, newTest(t, Config{Group: netip.MustParseAddr(s), Port: port, Interface: on}))
	}
	a1, a2 := group(group1), group(group1)
	b1, b2 := group(group2), group(group2)
	for range 20 {
		send(t, a1, []byte("to group 1"), a2)
		send(t, b1, []byte("to group 2"), b2)
	}
	for _, e := range []*providertest.Endpoint{a1, a2} {
		if e.Heard([]byte("to group 2"), 50*time.Millisecond) {
			t.Error("group 1 heard what was sent to group 2, on the same port")
		}
	}
	if b2.Heard([]byte("to group 1"), 50*time.Millisecond) {
		t.Error("group 2 heard what was sent to group 1, on the same port")
	}
}

func TestMulticast_SetsItsReach(t *testing.T) {
	for ttl, want := range map[int]int{0: 1, 1: 1, 7: 7} {
		p := newTest(t, Config{Interface: "127.0.0.1", Port: freePort(t), TTL: ttl})
		providertest.Start(t, p)
		if got, err := ipv4.NewPacketConn(p.link.Load().out).MulticastTTL(); err != nil || got != want {
			t.Errorf("Config.TTL %d sets %d, %v; want %d", ttl, got, err, want)
		}
	}
}

// What a stranger sends is delivered as it came, because only the Broker can tell; and of
// whatever length.
func TestStranger_IsDeliveredWithItsAddress(t *testing.T) {
	for _, mode := range []Mode{Multicast, Broadcast, Unicast} {
		cfg := Config{Mode: mode, Interface: "127.0.0.1", Port: freePort(t)}
		if mode == Unicast {
			cfg.Peers = []string{"127.0.0.1:9"}
		}
		p := newTest(t, cfg)
		e := providertest.Start(t, p)
		for _, n := range []int{1, 100, 1201, 9000, maxFrameBytes} {
			b := bytes.Repeat([]byte{byte(n)}, n)
			if !eventually(func() bool {
				if err := sayAs(t, p, b); err != nil {
					t.Fatal(err)
				}
				return e.Heard(b, 20*time.Millisecond)
			}) {
				t.Errorf("%s: %d bytes of a stranger did not arrive", mode, n)
			}
		}
		sayAs(t, p, nil)
		sayAs(t, p, []byte("after the empty one"))
		e.Heard([]byte("after the empty one"), patience)
		if e.Heard([]byte{}, 0) {
			t.Errorf("%s: an empty datagram was delivered", mode)
		}
	}
}

// sayAs sends b to where p listens, from a socket of its own.
func sayAs(t testing.TB, p *Provider, b []byte) error {
	l := p.link.Load()
	to := l.group
	if p.cfg.Mode == Unicast {
		to = l.self
	}
	return stranger(to, b)
}

func TestUnicast_ListensEverywhere(t *testing.T) {
	ports := []int{freePort(t), freePort(t), freePort(t)}
	var peers []string
	for _, port := range ports {
		peers = append(peers, netip.AddrPortFrom(localhost(), uint16(port)).String())
	}
	peers = append(peers, peers...) // twice is once
	var all []*providertest.Endpoint
	for _, port := range ports {
		all = append(all, providertest.Start(t, newTest(t, Config{Mode: Unicast, Peers: peers, Port: port})))
	}
	send(t, all[0], []byte("hello"), all[1:]...)
	if all[0].Heard([]byte("hello"), 20*time.Millisecond) {
		t.Error("the instance hears itself")
	}
	count := 0
	for range 100 {
		all[1].Provider.Send(t.Context(), [][]byte{[]byte("once")})
	}
	send(t, all[1], []byte("last"), all[2])
	for _, f := range all[2].Frames() {
		if string(f) == "once" {
			count++
		}
	}
	if count == 0 || count > 100 {
		t.Errorf("100 frames arrived as %d", count)
	}
}

// With the address unspecified, only this machine's own addresses make a source its own.
func TestLink_KnowsItsOwnDatagrams(t *testing.T) {
	at := netip.MustParseAddrPort
	everywhere := &link{self: at("0.0.0.0:7"), selfAnywhere: map[netip.Addr]bool{localhost(): true}}
	bound := &link{self: at("127.0.0.1:7")}
	for _, tt := range []struct {
		l    *link
		from string
		want bool
	}{
		{everywhere, "127.0.0.1:7", true}, {everywhere, "127.0.0.1:8", false}, {everywhere, "192.0.2.1:7", false},
		{bound, "127.0.0.1:7", true}, {bound, "127.0.0.1:8", false}, {bound, "127.0.0.2:7", false},
	} {
		if got := tt.l.own(at(tt.from)); got != tt.want {
			t.Errorf("at %v, own(%s) = %v", tt.l.self, tt.from, got)
		}
	}
}

func TestUnicast_SaysThatThePortIsTaken(t *testing.T) {
	cfg := Config{Mode: Unicast, Peers: []string{"127.0.0.1:9"}, Interface: "127.0.0.1", Port: freePort(t)}
	providertest.Start(t, newTest(t, cfg))
	p := newTest(t, cfg)
	err := p.Start(t.Context(), env(t))
	p.Close()
	if err == nil || !strings.Contains(err.Error(), "give each instance on a machine a Port of its own") {
		t.Errorf("Start on a port that is taken: %v", err)
	}
}

// directory is a name server.
type directory struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
	asked int
}

func (d *directory) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if addrs, ok := d.names[host]; ok {
		return addrs, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host}
}

func (d *directory) set(host string, addrs ...netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(addrs) == 0 {
		delete(d.names, host)
		return
	}
	d.names[host] = addrs
}

func TestUnicast_LooksNamesUpAgain(t *testing.T) {
	d := &directory{names: make(map[string][]netip.Addr)}
	addr := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
	p := newTest(t, Config{Mode: Unicast, Peers: []string{"web:7", "192.0.2.1:7", "late:8"}, Interface: "127.0.0.1", Port: freePort(t)})
	p.lookup, p.refresh = d.lookup, time.Millisecond
	d.set("web", addr(3), addr(2), addr(3))
	providertest.Start(t, p)
	is := func(want ...string) func() bool {
		return func() bool {
			var got []string
			for _, ap := range *p.peers.Load() {
				got = append(got, ap.String())
			}
			return slices.Equal(got, want)
		}
	}
	if !is("192.0.2.1:7", "192.0.2.2:7", "192.0.2.3:7")() {
		t.Errorf("after Start the peers are %v", *p.peers.Load())
	}
	d.set("late", addr(9))
	d.set("web", addr(4))
	if want := is("192.0.2.1:7", "192.0.2.4:7", "192.0.2.9:8"); !eventually(want) {
		t.Errorf("after the names had changed the peers are %v", *p.peers.Load())
	}
	d.set("web") // the name server is away
	d.mu.Lock()
	asked := d.asked
	d.mu.Unlock()
	eventually(func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.asked > asked+5 })
	if !is("192.0.2.1:7", "192.0.2.4:7", "192.0.2.9:8")() {
		t.Errorf("after a name had lost its addresses the peers are %v", *p.peers.Load())
	}
}

func TestUnicast_BoundsItsPeers(t *testing.T) {
	p := newTest(t, Config{Mode: Unicast, Peers: []string{"many:7"}, Interface: "127.0.0.1", Port: freePort(t)})
	p.lookup = func(context.Context, string) (all []netip.Addr, err error) {
		for i := range 2000 {
			all = append(all, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
		}
		return all, nil
	}
	providertest.Start(t, p)
	if n := len(*p.peers.Load()); n != maxPeers {
		t.Errorf("a name with 2000 addresses makes %d peers, want %d", n, maxPeers)
	}
}

// An interface with a new address has forgotten the group, and the source of datagrams
// is another one.
func TestProvider_FollowsTheAddressOfItsInterface(t *testing.T) {
	var mu sync.Mutex
	local := netip.MustParsePrefix("127.0.0.1/8")
	port := freePort(t)
	p := newTest(t, Config{Interface: "lo", Port: port})
	system := p.interfaces
	p.interfaces = func() ([]nic, error) {
		nics, err := system()
		for i := range nics {
			if nics[i].flags&net.FlagLoopback != 0 {
				mu.Lock()
				nics[i].name, nics[i].addrs = "lo", []netip.Prefix{local}
				mu.Unlock()
			}
		}
		return nics, err
	}
	a := providertest.Start(t, p)
	b := providertest.Start(t, newTest(t, Config{Interface: "127.0.0.1", Port: port}))
	send(t, a, []byte("before"), b)
	mu.Lock()
	local = netip.MustParsePrefix("127.0.0.2/8")
	mu.Unlock()
	if !eventually(func() bool { return a.Reconnects() == 1 }) {
		t.Fatalf("Reconnected was called %d times, want once", a.Reconnects())
	}
	send(t, a, []byte("after"), b)
	send(t, b, []byte("back"), a)
	if got := p.link.Load().self.Addr(); got != netip.MustParseAddr("127.0.0.2") {
		t.Errorf("it sends from %v", got)
	}
}

func TestSend_SaysThatTheInterfaceIsAway(t *testing.T) {
	s := new(switches)
	p := newTest(t, Config{Interface: "127.0.0.1", Port: freePort(t)})
	s.wire(p)
	e := providertest.Start(t, p)
	s.set(t, p, true)
	if err := p.Send(t.Context(), frames(1)); !errors.Is(err, errAway) {
		t.Errorf("Send while the interface is down: %v", err)
	}
	if e.Reconnects() != 0 {
		t.Error("Reconnected was called while the interface was down")
	}
	s.set(t, p, false)
	if !eventually(func() bool { return e.Reconnects() == 1 }) {
		t.Error("Reconnected was not called when the interface was back")
	}
	if err := p.Send(t.Context(), frames(1)); err != nil {
		t.Errorf("Send after the interface was back: %v", err)
	}
}

// The last Deliver of the old sockets comes before the first of the new ones, and both may be
// for datagrams of one source.
func TestProvider_DeliversOneAfterTheOtherAcrossLinks(t *testing.T) {
	s := new(switches)
	port := freePort(t)
	p := newTest(t, Config{Interface: "127.0.0.1", Port: port})
	s.wire(p)
	e := providertest.Start(t, p)
	other := providertest.Start(t, newTest(t, Config{Interface: "127.0.0.1", Port: port}))
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	e.OnBatch(func(provider.Batch) { <-gate })
	send(t, other, []byte("held"), e)
	s.set(t, p, true)
	s.mu.Lock()
	s.off[p] = false
	s.mu.Unlock()
	settle := time.NewTimer(50 * time.Millisecond)
	<-settle.C
	if e.Reconnects() != 0 || p.link.Load() != nil {
		t.Error("new sockets are read while a Deliver of the old ones runs")
	}
	open()
	if !eventually(func() bool { return e.Reconnects() == 1 }) {
		t.Error("Reconnected was not called")
	}
	send(t, other, []byte("after"), e)
}

// Close comes while watch opens new sockets: it has looked at the link already, and watch puts another
// one in place.
func TestClose_MeetsAnInterfaceThatComesBack(t *testing.T) {
	s := new(switches)
	p := newTest(t, Config{Interface: "127.0.0.1", Port: freePort(t)})
	s.wire(p)
	wired := p.interfaces
	var closing atomic.Bool
	looking := make(chan struct{}, 1)
	p.interfaces = func() ([]nic, error) {
		if !closing.Load() {
			return wired()
		}
		select {
		case looking <- struct{}{}:
		default:
		}
		if !eventually(func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.state == stateClosed
		}) {
			t.Error("Close does not begin")
		}
		return wired()
	}
	e := providertest.Start(t, p)
	s.set(t, p, true)
	s.mu.Lock()
	s.off[p] = false
	closing.Store(true)
	s.mu.Unlock()
	<-looking
	closed := make(chan struct{})
	go func() { defer close(closed); e.Close() }()
	if !eventually(func() bool {
		select {
		case <-closed:
			return true
		default:
			return false
		}
	}) {
		p.link.Load().close()
		t.Fatal("Close does not return")
	}
	if e.Reconnects() != 0 {
		t.Error("Reconnected was called by a Provider that closes")
	}
}

func TestStart_LogsTheReceiveBuffer(t *testing.T) {
	var log syncBuffer
	p := newTest(t, Config{Interface: "127.0.0.1", Port: freePort(t)})
	e := env(t)
	e.Logger = slog.New(slog.NewTextHandler(&log, nil))
	if err := p.Start(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l := p.link.Load()
	if l.granted <= 0 {
		t.Errorf("the kernel granted %d bytes", l.granted)
	}
	for _, want := range []string{"asked_bytes=4194304", "granted_bytes=", "interface=lo", "group=239.255.67.82"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log.String())
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestProvider_IsStartedOnce(t *testing.T) {
	p := newTest(t, Config{Interface: "127.0.0.1", Port: freePort(t)})
	providertest.Start(t, p)
	if err := p.Start(t.Context(), env(t)); err == nil || errors.Is(err, provider.ErrClosed) {
		t.Errorf("a second Start: %v", err)
	}
}
