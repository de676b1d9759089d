package udpbus

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

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

// freePort returns a port that nobody used a moment ago.
func freePort(tb testing.TB) int {
	tb.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port
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

// eventually polls cond until it is true, for 10 s at most.
func eventually(cond func() bool) bool {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// harness makes networks on the loopback interface. cfg is that of all instances; in unicast mode
// their ports and the list of peers are added.
func harness(cfg Config) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		s := new(switches)
		network := &providertest.Network{Lossy: true}
		ports := make([]int, n)
		cfg := cfg
		cfg.Port = freePort(tb)
		for i := range ports {
			if ports[i] = cfg.Port; cfg.Mode == Unicast {
				ports[i] = freePort(tb)
				cfg.Peers = append(cfg.Peers, netip.AddrPortFrom(localhost, uint16(ports[i])).String())
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
				to = netip.AddrPortFrom(localhost, uint16(ports[i]))
			}
			return stranger(tb, to, b)
		}
		network.Broken = func() provider.Provider {
			cfg := cfg
			if cfg.Interface = "no-such-if0"; cfg.Mode == Unicast {
				cfg.Interface, cfg.Port = "127.0.0.1", ports[0]
			}
			return newTest(tb, cfg)
		}
		return network
	})
}

var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// stranger sends a datagram from a socket of its own, on the loopback interface.
func stranger(tb testing.TB, to netip.AddrPort, b []byte) error {
	tb.Helper()
	p := newTest(tb, Config{Interface: "lo"})
	network, at := "udp4", "127.0.0.1:0"
	if to.Addr().Is6() {
		network, at = "udp6", "[::1]:0"
	}
	conn, err := p.listenAt(network, at, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.WriteToUDPAddrPort(b, to)
	return err
}
