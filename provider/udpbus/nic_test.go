package udpbus

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// office is a machine with several networks.
func office() ([]nic, error) {
	prefixes := func(all ...string) (p []netip.Prefix) {
		for _, s := range all {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	const up = net.FlagUp | net.FlagRunning
	return []nic{
		{"lo", 1, 65536, up | net.FlagLoopback, prefixes("127.0.0.1/8", "::1/128")},
		{"eth0", 2, 1500, up | net.FlagBroadcast | net.FlagMulticast, prefixes("192.0.2.2/24", "fd00::2/64", "fe80::2/64")},
		{"eth1", 3, 9000, up | net.FlagBroadcast | net.FlagMulticast, prefixes("198.51.100.7/25", "198.51.100.8/25")},
		{"eth2", 4, 1500, net.FlagBroadcast | net.FlagMulticast, prefixes("203.0.113.1/24")},
		{"eth3", 5, 1500, net.FlagUp | net.FlagBroadcast | net.FlagMulticast, prefixes("203.0.113.2/24")}, // no carrier
		{"wg0", 6, 1420, up | net.FlagPointToPoint, prefixes("10.9.0.1/32")},
		{"eth6", 7, 1500, up | net.FlagBroadcast | net.FlagMulticast, prefixes("fd06::1/64")},
	}, nil
}

func TestChoose_FindsTheInterface(t *testing.T) {
	v6 := netip.MustParseAddr("ff15::4352")
	for _, tt := range []struct {
		name  string
		cfg   Config
		route string // of Env; "" if unknown
		want  string // interface and address
		err   string // in the error
	}{
		{"by name", Config{Interface: "eth1"}, "127.0.0.1", "eth1 198.51.100.7/25", ""},
		{"by address", Config{Interface: "198.51.100.8"}, "127.0.0.1", "eth1 198.51.100.8/25", ""},
		{"that of the route", Config{}, "198.51.100.8", "eth1 198.51.100.8/25", ""},
		{"that of the route, IPv4 in IPv6 clothes", Config{}, "::ffff:192.0.2.2", "eth0 192.0.2.2/24", ""},
		{"loopback if the route is", Config{}, "127.0.0.1", "lo 127.0.0.1/8", ""},
		{"another family than the route", Config{}, "fd00::2", "eth0 192.0.2.2/24", ""},
		{"IPv6 group", Config{Group: v6}, "192.0.2.2", "eth0 fd00::2/64", ""},
		{"IPv6 group by address", Config{Group: v6, Interface: "fe80::2"}, "", "eth0 fe80::2/64", ""},
		{"a route that is not ours", Config{}, "203.0.113.99", "eth0 192.0.2.2/24", ""},
		{"an unknown route", Config{}, "", "eth0 192.0.2.2/24", ""},
		{"unicast listens everywhere", Config{Mode: Unicast, Peers: []string{"a:1"}}, "192.0.2.2", " invalid Prefix", ""},
		{"unicast on IPv6", Config{Mode: Unicast, Peers: []string{"a:1"}, Interface: "fd06::1"}, "", "eth6 fd06::1/64", ""},

		{"no such name", Config{Interface: "eth9"}, "", "", "eth9: no such interface; interfaces with multicast: lo, eth0, eth1, eth3, eth6"},
		{"no such name for broadcast", Config{Interface: "eth9", Mode: Broadcast}, "", "", "interfaces with broadcast: lo, eth0"},
		{"no such address", Config{Interface: "192.0.2.3"}, "", "", "192.0.2.3: no interface has this address; interfaces with multicast: lo"},
		{"down", Config{Interface: "eth2"}, "", "", "eth2: the interface is down"},
		{"no carrier", Config{Interface: "eth3"}, "", "", "eth3: the interface is down"},
		{"no IPv4 address", Config{Interface: "eth6"}, "", "", "eth6: it has no IPv4 address; its addresses: fd06::1/64"},
		{"no IPv6 address", Config{Group: v6, Interface: "eth1"}, "", "", "eth1: it has no IPv6 address; its addresses: 198.51.100.7/25, 198.51.100.8/25"},

		{"frames that just pass", Config{Interface: "eth0", MaxFrameBytes: 1472}, "", "eth0 192.0.2.2/24", ""},
		{"frames that do not", Config{Interface: "eth0", MaxFrameBytes: 1473}, "", "", "MaxFrameBytes is 1473, but its MTU of 1500 leaves room for 1472"},
		{"frames that just pass IPv6", Config{Group: v6, Interface: "eth0", MaxFrameBytes: 1452}, "", "eth0 fd00::2/64", ""},
		{"frames that do not pass IPv6", Config{Group: v6, Interface: "eth0", MaxFrameBytes: 1453}, "", "", "leaves room for 1452"},
		{"jumbo frames", Config{Interface: "eth1", MaxFrameBytes: 8972}, "", "eth1 198.51.100.7/25", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newTest(t, tt.cfg)
			p.interfaces = office
			p.localAddr = func() (netip.Addr, error) {
				if p.cfg.v6() {
					return netip.MustParseAddr("fd00::2"), nil
				}
				return netip.MustParseAddr("192.0.2.2"), nil
			}
			if tt.route != "" {
				p.env.Route = netip.MustParseAddr(tt.route)
			}
			where, err := p.choose()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("choose: %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := where.name + " " + where.local.String(); got != tt.want {
				t.Errorf("chose %q, want %q", got, tt.want)
			}
		})
	}
}

func TestChoose_SaysThatNoInterfaceLeadsThere(t *testing.T) {
	p := newTest(t, Config{})
	p.interfaces = office
	p.localAddr = func() (netip.Addr, error) { return netip.Addr{}, errors.New("network is unreachable") }
	_, err := p.choose()
	if want := "network is unreachable; name one in Interface; interfaces with multicast: lo, "; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("choose: %v, want an error with %q", err, want)
	}
}

func TestStart_SaysWhatItTriedWhere(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Interface: "eth9", Port: 7000}, "udp: join 239.255.67.82:7000 on eth9: no such interface; interfaces with multicast: lo, eth0"},
		{Config{Interface: "wg0", Port: 7000, Mode: Broadcast}, "udp: broadcast to port 7000 on wg0 (10.9.0.1): the network 10.9.0.1/32 has no broadcast address"},
	} {
		p := newTest(t, tt.cfg)
		p.interfaces = office
		err := p.Start(t.Context(), env(t))
		p.Close()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Start: %v\nwant an error with %q", err, tt.want)
		}
	}
}

func TestBroadcast_IsTheLastAddressOfTheNetwork(t *testing.T) {
	for network, want := range map[string]string{
		"192.0.2.2/24":    "192.0.2.255",
		"127.0.0.1/8":     "127.255.255.255",
		"198.51.100.7/25": "198.51.100.127",
		"10.1.2.3/30":     "10.1.2.3",
		"10.1.2.3/31":     "none",
		"10.1.2.3/32":     "none",
		"fd00::1/64":      "none",
	} {
		got := "none"
		if a, ok := broadcast(netip.MustParsePrefix(network)); ok {
			got = a.String()
		}
		if got != want {
			t.Errorf("broadcast(%s) = %s, want %s", network, got, want)
		}
	}
}

func TestSystemInterfaces_HoldTheLoopback(t *testing.T) {
	nics, err := systemInterfaces()
	if err != nil {
		t.Fatal(err)
	}
	lo, ok := holder(nics, localhost())
	if !ok || lo.index == 0 || lo.mtu == 0 || lo.flags&net.FlagLoopback == 0 {
		t.Errorf("the interface with 127.0.0.1 is %+v", lo)
	}
	if addr, err := routeTo(netip.AddrPortFrom(localhost(), 9)); err != nil || addr != localhost() {
		t.Errorf("the route to 127.0.0.1 begins at %v, %v", addr, err)
	}
}
