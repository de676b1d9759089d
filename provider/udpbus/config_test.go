package udpbus

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestConfig_HasDefaults(t *testing.T) {
	got, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if got.Mode != Multicast || got.Group != netip.MustParseAddr("239.255.67.82") || got.Port != 24482 || got.TTL != 1 || got.MaxFrameBytes != 1200 {
		t.Errorf("the zero Config means %+v", got)
	}
	// RFC 2365, section 6.1: the IPv4 local scope.
	if !netip.MustParsePrefix("239.255.0.0/16").Contains(got.Group) {
		t.Errorf("the default group %v is not in the local scope", got.Group)
	}
}

func TestConfig_FramesAreLargeWhereNoneLeavesTheMachine(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want int
	}{
		{Config{Interface: "127.0.0.1"}, 65000},
		{Config{Interface: "127.9.9.9"}, 65000},
		{Config{Interface: "::1"}, 65000},
		{Config{Interface: loopback(t)}, 65000},
		{Config{Interface: "127.0.0.1", MaxFrameBytes: 1200}, 1200},
		{Config{Interface: "192.0.2.1"}, 1200},
		{Config{Interface: "no-such-if0"}, 1200},
		{Config{}, 1200},
	} {
		p, err := New(tt.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Capabilities().MaxFrameBytes; got != tt.want {
			t.Errorf("Interface %q, MaxFrameBytes %d: frames of %d bytes, want %d", tt.cfg.Interface, tt.cfg.MaxFrameBytes, got, tt.want)
		}
	}
}

// loopback returns the name of the loopback interface.
func loopback(t *testing.T) string {
	nics, err := systemInterfaces()
	if err != nil {
		t.Fatal(err)
	}
	lo, ok := holder(nics, localhost())
	if !ok {
		t.Fatal("no interface has 127.0.0.1")
	}
	return lo.name
}

func TestConfig_RefusesWhatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; empty if there is none
	}{
		{"an unknown mode", Config{Mode: "anycast"}, `Mode "anycast": want "multicast", "broadcast" or "unicast"`},
		{"a group that is none", Config{Group: netip.MustParseAddr("10.0.0.1")}, "Group 10.0.0.1: not a multicast address"},
		{"an IPv4 group in IPv6 clothes", Config{Group: netip.MustParseAddr("::ffff:239.1.2.3")}, ""},
		{"an IPv6 group", Config{Group: netip.MustParseAddr("ff15::4352")}, ""},
		{"a group with a zone", Config{Group: netip.MustParseAddr("ff12::4352%eth0")}, "name the interface in Interface"},
		{"the largest port", Config{Port: 65535}, ""},
		{"a larger port", Config{Port: 65536}, "Port 65536"},
		{"a negative port", Config{Port: -1}, "Port -1"},
		{"the largest TTL", Config{TTL: 255}, ""},
		{"a larger TTL", Config{TTL: 256}, "TTL 256"},
		{"a negative TTL", Config{TTL: -1}, "TTL -1"},
		{"the smallest frame", Config{MaxFrameBytes: 512}, ""},
		{"a smaller frame", Config{MaxFrameBytes: 511}, "MaxFrameBytes 511: want 512 to 65507"},
		{"the largest frame", Config{MaxFrameBytes: 65507}, ""},
		{"a larger frame", Config{MaxFrameBytes: 65508}, "MaxFrameBytes 65508"},
		{"peers that nobody asked for", Config{Peers: []string{"a:1"}}, "Peers are given"},
		{"nobody to send to", Config{Mode: Unicast}, "Peers is empty"},
		{"a peer without port", Config{Mode: Unicast, Peers: []string{"a:1", "b"}}, `Peers "b"`},
		{"a peer with port 0", Config{Mode: Unicast, Peers: []string{"b:0"}}, `Peers "b:0"`},
		{"a peer without host", Config{Mode: Unicast, Peers: []string{":1"}}, `Peers ":1"`},
		{"as many peers as there may be", Config{Mode: Unicast, Peers: slices.Repeat([]string{"a:1"}, 1024)}, ""},
		{"too many peers", Config{Mode: Unicast, Peers: slices.Repeat([]string{"a:1"}, 1025)}, "Peers 1025 of them; at most 1024"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.cfg)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("New: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("New: %v, want an error with %q", err, tt.want)
			}
		})
	}
}
