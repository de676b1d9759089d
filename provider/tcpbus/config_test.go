package tcpbus

import (
	"crypto/tls"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

func TestConfig_ErrorsNameTheField(t *testing.T) {
	withCert := tlsConfig(t)
	old := withCert.Clone()
	old.MaxVersion = tls.VersionTLS12
	for _, tt := range []struct {
		want string
		cfg  Config
	}{
		{"Listen", Config{Listen: "7070"}},
		{"Endpoints", Config{Endpoints: []string{"10.0.0.1:7070", "10.0.0.2"}}},
		{"Endpoints", Config{Endpoints: []string{"10.0.0.2:0"}}},
		{"Endpoints", Config{Endpoints: []string{":7070"}}},
		{"AllowNetworks", Config{AllowNetworks: []netip.Prefix{{}}}},
		{"TLS", Config{TLS: &tls.Config{}}},
		{"TLS", Config{TLS: old}},
		{"MaxFrameBytes", Config{MaxFrameBytes: -1}},
		{"MaxFrameBytes", Config{MaxFrameBytes: maxFrameBytes + 1}},
		{"QueueBytes", Config{QueueBytes: defaultFrameBytes + frameOverhead - 1}},
		{"QueueBytes", Config{QueueBytes: -1}},
		{"DialTimeout", Config{DialTimeout: -1}},
		{"HandshakeTimeout", Config{HandshakeTimeout: -time.Second}},
		{"PeerTimeout", Config{PeerTimeout: -time.Second}},
	} {
		if _, err := New(tt.cfg); err == nil || !strings.HasPrefix(err.Error(), "tcp: "+tt.want) {
			t.Errorf("New(%+v): %v, want an error about %s", tt.cfg, err, tt.want)
		}
	}
}

func TestConfig_ZeroMeansTheDefaults(t *testing.T) {
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := p.cfg
	if c.MaxFrameBytes != 64<<10 || c.QueueBytes != 32<<20 || c.DialTimeout != 2*time.Second ||
		c.HandshakeTimeout != 5*time.Second || c.PeerTimeout != 10*time.Second {
		t.Errorf("defaults: %+v", c)
	}
	want := provider.Capabilities{MaxFrameBytes: 64 << 10, Ordered: true, Prompt: true}
	if got := p.Capabilities(); got != want || p.Name() != "tcp" {
		t.Errorf("%q claims %+v, want %+v", p.Name(), got, want)
	}
}

func TestConfig_IsCopied(t *testing.T) {
	cfg := Config{
		Endpoints: []string{"10.0.0.1:1"}, AllowNetworks: mustPrefixes("10.0.0.0/8"), TLS: tlsConfig(t),
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Endpoints[0], cfg.AllowNetworks[0] = "changed:1", mustPrefixes("0.0.0.0/0")[0]
	if p.cfg.Endpoints[0] != "10.0.0.1:1" || p.cfg.AllowNetworks[0] != mustPrefixes("10.0.0.0/8")[0] || p.cfg.TLS == cfg.TLS {
		t.Error("changing the Config changed the Provider")
	}
	if cfg.TLS.MinVersion != 0 {
		t.Error("New changed the caller's TLS configuration")
	}
}

func TestNetworks_DefaultsArePrivateAndOwn(t *testing.T) {
	local := mustPrefixes("127.0.0.1/8", "203.0.113.10/28", "10.1.2.3/16")
	for _, tt := range []struct {
		route   string
		allowed []string
		refused []string
	}{
		{"", []string{"10.9.9.9", "172.31.0.1", "192.168.1.1", "100.64.0.9", "127.0.0.2", "169.254.1.1", "::1", "fe80::1", "fd12::1", "::ffff:10.0.0.1", "fe80::1%eth0"},
			[]string{"8.8.8.8", "172.32.0.1", "203.0.113.11", "2001:db8::1", "100.128.0.1", "::ffff:8.8.8.8"}},
		{"203.0.113.10", []string{"203.0.113.1", "203.0.113.15", "10.0.0.1"}, []string{"203.0.113.16", "8.8.8.8"}},
		{"198.51.100.7", []string{"198.51.100.7"}, []string{"198.51.100.8"}}, // not ours: translated on the way
	} {
		var route netip.Addr
		if tt.route != "" {
			route = netip.MustParseAddr(tt.route)
		}
		networks := allowed(Config{}, local, route)
		for _, a := range tt.allowed {
			if !contains(networks, netip.MustParseAddr(a)) {
				t.Errorf("route %q: %s is refused", tt.route, a)
			}
		}
		for _, a := range tt.refused {
			if contains(networks, netip.MustParseAddr(a)) {
				t.Errorf("route %q: %s is allowed", tt.route, a)
			}
		}
	}
}

func TestNetworks_EmptyListAllowsNobody(t *testing.T) {
	p, err := New(Config{AllowNetworks: []netip.Prefix{}})
	if err != nil {
		t.Fatal(err)
	}
	networks := allowed(p.cfg, mustPrefixes("10.0.0.1/8"), netip.MustParseAddr("10.0.0.1"))
	if contains(networks, netip.MustParseAddr("10.0.0.2")) || contains(networks, netip.MustParseAddr("127.0.0.1")) {
		t.Error("somebody is allowed")
	}
}

func TestNetworks_MappedPrefixMeansIPv4(t *testing.T) {
	p, err := New(Config{AllowNetworks: mustPrefixes("::ffff:10.0.0.0/104")})
	if err != nil {
		t.Fatal(err)
	}
	if !contains(p.cfg.AllowNetworks, netip.MustParseAddr("10.1.2.3")) || contains(p.cfg.AllowNetworks, netip.MustParseAddr("11.1.2.3")) {
		t.Errorf("networks: %v", p.cfg.AllowNetworks)
	}
}

func TestAdvertised_IsWhatOthersCanReach(t *testing.T) {
	local := mustPrefixes("127.0.0.1/8", "::1/128", "10.1.2.3/16", "203.0.113.10/28", "fe80::5/64", "fd00::5/64")
	for _, tt := range []struct {
		name  string
		cfg   Config
		bound string
		route string
		want  []string
	}{
		{"one address", Config{}, "10.1.2.3:4000", "10.1.2.3", []string{"10.1.2.3:4000"}},
		{"loopback, with an embedded database", Config{}, "127.0.0.1:4000", "127.0.0.1", []string{"127.0.0.1:4000"}},
		{"all addresses: the route", Config{Listen: ":7"}, "[::]:7", "10.1.2.3", []string{"10.1.2.3:7"}},
		{"all addresses, route translated: it first, as its port may be passed on", Config{Listen: ":7"}, "[::]:7", "198.51.100.7",
			[]string{"198.51.100.7:7", "10.1.2.3:7", "[fd00::5]:7"}},
		{"a port of the system's is passed on by nobody", Config{}, "[::]:4000", "198.51.100.7", []string{"10.1.2.3:4000", "[fd00::5]:4000"}},
		{"route unknown", Config{}, "[::]:4000", "", []string{"10.1.2.3:4000", "[fd00::5]:4000"}},
		{"route unknown, IPv4 alone", Config{Listen: "0.0.0.0:0"}, "0.0.0.0:4000", "", []string{"10.1.2.3:4000"}},
		{"within the networks allowed", Config{AllowNetworks: mustPrefixes("203.0.113.0/24")}, "[::]:4000", "", []string{"203.0.113.10:4000"}},
		{"configured host", Config{Advertise: "web-3.example"}, "[::]:4000", "10.1.2.3", []string{"web-3.example:4000"}},
		{"configured host and port", Config{Advertise: "198.51.100.1:99"}, "[::]:4000", "", []string{"198.51.100.1:99"}},
		{"configured host, port chosen", Config{Advertise: "198.51.100.1:0"}, "[::]:4000", "", []string{"198.51.100.1:4000"}},
		{"configured IPv6", Config{Advertise: "2001:db8::7"}, "[::]:4000", "", []string{"[2001:db8::7]:4000"}},
		{"configured IPv6 in brackets", Config{Advertise: "[2001:db8::7]"}, "[::]:4000", "", []string{"[2001:db8::7]:4000"}},
		{"configured IPv6 and port", Config{Advertise: "[2001:db8::7]:9"}, "[::]:4000", "", []string{"[2001:db8::7]:9"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var route netip.Addr
			if tt.route != "" {
				route = netip.MustParseAddr(tt.route)
			}
			networks := tt.cfg.AllowNetworks
			if networks == nil {
				networks = usual()
			}
			got, err := advertised(tt.cfg, netip.MustParseAddrPort(tt.bound), local, route, networks)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("advertised = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	t.Run("nothing else but loopback", func(t *testing.T) {
		got, err := advertised(Config{}, netip.MustParseAddrPort("[::]:4000"), mustPrefixes("127.0.0.1/8", "fe80::5/64"), netip.Addr{}, usual())
		if want := []string{"127.0.0.1:4000"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("advertised = %q, %v, want %q", got, err, want)
		}
	})
	t.Run("nothing at all", func(t *testing.T) {
		if got, err := advertised(Config{}, netip.MustParseAddrPort("[::]:4000"), local, netip.Addr{}, nil); err == nil || !strings.Contains(err.Error(), "Advertise") {
			t.Errorf("advertised = %q, %v, want an error that names Advertise", got, err)
		}
	})
}

// With an embedded database nothing is open to the network.
func TestListen_DefaultIsTheRouteAlone(t *testing.T) {
	in := start(t, Config{}, streamID(1), func(p *Provider, _ *provider.Env, _ *instance) { p.cfg.Listen = "" })
	ap, err := netip.ParseAddrPort(in.ln.Addr().String())
	if err != nil || ap.Addr() != netip.MustParseAddr("127.0.0.1") || ap.Port() == 0 {
		t.Errorf("listening at %v", in.ln.Addr())
	}
	if got := in.Addresses(); len(got) != 1 || got[0] != ap.String() {
		t.Errorf("advertised %q, listening at %v", got, ap)
	}
}

func TestBackoff_GrowsToItsBoundWithJitter(t *testing.T) {
	in := start(t, Config{}, streamID(5), withLimits(func(l *limits) { *l = defaultLimits }))
	in.knows()
	tg := &target{wake: make(chan struct{}, 1)}
	for _, tt := range []struct {
		failures  int
		connected bool
		min, max  time.Duration
	}{
		{0, true, 0, 50 * time.Millisecond},
		{1, true, 25 * time.Millisecond, 50 * time.Millisecond},
		{2, false, 50 * time.Millisecond, 100 * time.Millisecond},
		{7, false, 1600 * time.Millisecond, 3200 * time.Millisecond},
		{8, false, 2500 * time.Millisecond, 5 * time.Second},
		{math.MaxInt, false, 2500 * time.Millisecond, 5 * time.Second},
	} {
		tg.failures, tg.connected = tt.failures, tt.connected
		seen := map[time.Duration]bool{}
		for range 200 {
			need, pause := in.need(tg)
			if !need || pause < tt.min || pause > tt.max {
				t.Fatalf("after %d failures: %v, %v, want true and %v to %v", tt.failures, need, pause, tt.min, tt.max)
			}
			seen[pause] = true
		}
		if len(seen) < 10 {
			t.Errorf("after %d failures: only %d different pauses", tt.failures, len(seen))
		}
	}
}

// A newcomer, whose stream is the larger, knows everybody and is to be connected at once. It
// gets a head start, so that a pair does not dial twice.
func TestBackoff_NewcomersDialFirst(t *testing.T) {
	in := start(t, Config{}, streamID(5), withLimits(func(l *limits) { *l = defaultLimits }))
	in.knows()
	for _, tt := range []struct {
		expected site.StreamID
		want     time.Duration
	}{
		{streamID(4), 0},
		{streamID(6), 250 * time.Millisecond},
		{site.StreamID{}, 0}, // an endpoint
	} {
		if need, pause := in.need(&target{expected: tt.expected, leadsTo: tt.expected}); !need || pause != tt.want {
			t.Errorf("to %v: %v, %v, want true, %v", tt.expected, need, pause, tt.want)
		}
	}
}

func TestReason_NamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for r := Reason(1); r < reasonCount; r++ {
		if s := r.String(); s == "" || strings.HasPrefix(s, "Reason(") || seen[s] {
			t.Errorf("reason %d is called %q", uint8(r), s)
		}
		seen[r.String()] = true
	}
	if s := Reason(0).String(); s != "Reason(0)" {
		t.Errorf("the zero Reason is called %q", s)
	}
}

func TestStreamSet_ForgetsTheOldest(t *testing.T) {
	var s streamSet
	id := func(n int) (id [16]byte) { id[0], id[1] = byte(n>>8), byte(n); return id }
	for n := range maxGone + 10 {
		s.add(id(n))
		s.add(id(n))
	}
	s.remove(id(20))
	if s.contains(id(9)) || !s.contains(id(10)) || s.contains(id(20)) || !s.contains(id(maxGone+9)) {
		t.Error("not the newest are remembered")
	}
	if len(s.in) != maxGone-1 || len(s.order) != maxGone-1 {
		t.Errorf("%d and %d remembered, want %d", len(s.in), len(s.order), maxGone-1)
	}
}
