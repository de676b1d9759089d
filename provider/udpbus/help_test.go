package udpbus

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// newTest is New with a fast look at the interface.
func newTest(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	p.poll = 5 * time.Millisecond
	return p
}

// freePort returns a port that nobody used a moment ago, and that is none of the last it returned: the system lends a port that was
// closed to whoever asks next, so that two instances of a test would get the same.
func freePort(tb testing.TB) int {
	tb.Helper()
	for {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		port := conn.LocalAddr().(*net.UDPAddr).Port
		conn.Close()
		if ports.take(port) {
			return port
		}
	}
}

var ports recentPorts

// recentPorts are those that freePort returned last, of more instances than any test has.
type recentPorts struct {
	mu   sync.Mutex
	last [32]int
	next int // of last is the oldest
}

// take reports whether port is none of them, and makes it one.
func (r *recentPorts) take(port int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.last[:], port) {
		return false
	}
	r.last[r.next] = port
	r.next = (r.next + 1) % len(r.last)
	return true
}

// switches makes interfaces look as if they were down, for one Provider each.
type switches struct {
	mu  sync.Mutex
	off map[*Provider]bool
}

// wire makes p see its interfaces through s.
func (s *switches) wire(p *Provider) {
	system := p.interfaces
	p.interfaces = func() ([]nic, error) {
		nics, err := system()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.off[p] {
			for i := range nics {
				nics[i].flags &^= net.FlagUp | net.FlagRunning
			}
		}
		return nics, err
	}
}

// set switches the interfaces of p off or on and waits until p has noticed.
func (s *switches) set(tb testing.TB, p *Provider, off bool) {
	s.mu.Lock()
	if s.off == nil {
		s.off = make(map[*Provider]bool)
	}
	s.off[p] = off
	s.mu.Unlock()
	if !eventually(func() bool { return (p.link.Load() == nil) == off }) {
		tb.Errorf("the provider did not notice that its interface is off: %v", off)
	}
}

// eventually polls cond until it is true, and returns false when that takes longer than patience.
func eventually(cond func() bool) bool { return providertest.Eventually(patience, cond) }

// harness makes networks on the loopback interface. cfg is that of all instances; in unicast mode
// their ports and the list of peers are added.
func harness(cfg Config) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		s := new(switches)
		// More than the kernel keeps for a receiver that stands still.
		network := &providertest.Network{Lossy: true, FloodBytes: 12 << 20}
		ports := make([]int, n)
		cfg := cfg
		cfg.Port = freePort(tb)
		for i := range ports {
			if ports[i] = cfg.Port; cfg.Mode == Unicast {
				ports[i] = freePort(tb)
				cfg.Peers = append(cfg.Peers, netip.AddrPortFrom(localhost(), uint16(ports[i])).String())
			}
		}
		var all []*Provider
		for _, port := range ports {
			cfg := cfg
			cfg.Port = port
			p := newTest(tb, cfg)
			s.wire(p)
			all = append(all, p)
			network.Providers = append(network.Providers, p)
		}
		network.Cut = func(i int) { s.set(tb, all[i], true) }
		network.Heal = func(i int) { s.set(tb, all[i], false) }
		network.Garbage = func(i int, b []byte) error {
			to := all[i].link.Load().group
			if cfg.Mode == Unicast {
				to = netip.AddrPortFrom(localhost(), uint16(ports[i]))
			}
			return stranger(to, b)
		}
		network.Broken = func() provider.Provider {
			cfg := cfg
			if cfg.Interface = "no-such-if0"; cfg.Mode == Unicast { // its port is taken
				cfg.Interface, cfg.Port = "127.0.0.1", ports[0]
			}
			return newTest(tb, cfg)
		}
		if cfg.Mode == Unicast {
			network.Silent = func() provider.Provider {
				cfg := cfg
				cfg.Peers = []string{"a-name-server-that-does-not-answer:7"}
				p := newTest(tb, cfg)
				p.lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) { <-ctx.Done(); return nil, ctx.Err() }
				return p
			}
		}
		return network
	})
}

func localhost() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// env returns what a Provider needs in order to fail, or to be alone.
func env(tb testing.TB) provider.Env {
	return providertest.NewEndpoint(tb, nil, provider.Env{}).Env()
}

// stranger sends a datagram from a socket of its own, on the loopback interface.
func stranger(to netip.AddrPort, b []byte) error {
	nics, err := systemInterfaces()
	if err != nil {
		return err
	}
	lo, ok := holder(nics, localhost())
	if !ok {
		return errors.New("no interface has 127.0.0.1")
	}
	ifi, network, at := &net.Interface{Index: lo.index}, "udp4", "127.0.0.1:0"
	if to.Addr().Is6() {
		network, at = "udp6", "[::1]:0"
	}
	conn, err := net.ListenPacket(network, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	if to.Addr().IsMulticast() {
		if to.Addr().Is6() {
			err = ipv6.NewPacketConn(conn).SetMulticastInterface(ifi)
		} else {
			err = ipv4.NewPacketConn(conn).SetMulticastInterface(ifi)
		}
		if err != nil {
			return err
		}
	}
	_, err = conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}
