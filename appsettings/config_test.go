package appsettings

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"database/sql/driver"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/provider/udpbus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// load reads settings from one JSON text, in a folder of their own.
func load(t *testing.T, text string, providers map[string]Factory) *Settings {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, "appsettings.json", text)
	s, err := Load(Options{Environ: []string{}, Providers: providers})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConfig_TakesEverySetting(t *testing.T) {
	s := load(t, `{"Carillon": {
		"Application": "shop", "Site": "shop-eu", "Server": "web7", "Version": "1.2", "Role": "subscribe",
		"AcceptSites": [], "TrustSecureChannel": true, "MissedAfter": "7s",
		"Limits": {"HoldBytes": 1, "QueueBytes": 2, "UnsentBytes": 3, "MaxEventBytes": 4, "RingBytes": 5, "RingFrames": 6, "CacheBytes": 10,
			"MaxStall": "7s", "Lease": "80s", "Poll": "9s"}
	}}`, nil)
	db := memsite.New(nil)
	got, err := s.Config(db)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Providers) != 1 || got.Providers[0].Name() != "tcp" {
		t.Errorf("providers %v, want tcp alone", got.Providers)
	}
	closeAll(t, got.Providers)
	got.Providers, got.Standby = nil, nil // functions are not comparable
	want := carillon.Config{
		Application: "shop", Site: "shop-eu", Server: "web7", Version: "1.2", Role: carillon.Subscribe,
		Database: db, AcceptSites: []string{}, TrustSecureChannel: true, MissedAfter: 7 * time.Second,
		HoldBytes: 1, QueueBytes: 2, UnsentBytes: 3, MaxEventBytes: 4, RingBytes: 5, RingFrames: 6, CacheBytes: 10,
		MaxStall: 7 * time.Second, Lease: 80 * time.Second, Poll: 9 * time.Second,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	everyFieldIsSet(t, want, "Providers", "Standby", "Logger", "all")
}

// everyFieldIsSet finds a field that was added to v's type and has no setting:
// it is zero here.
func everyFieldIsSet(t *testing.T, v any, except ...string) {
	t.Helper()
	fields := reflect.ValueOf(v)
	for i := range fields.NumField() {
		if name := fields.Type().Field(i).Name; fields.Field(i).IsZero() && !slices.Contains(except, name) {
			t.Errorf("%s.%s has no setting", fields.Type(), name)
		}
	}
}

func TestConfig_MakesWhatIsInUseAndWhatStandsByAgain(t *testing.T) {
	made := map[string]int{}
	bus := membus.New()
	s := load(t, `{"Carillon": {"Application": "shop", "Provider": ["mem", "udp"], "Standby": ["tcp", "Own"], "Own": {"Key": "x"}}}`, map[string]Factory{
		"mem": func(Section) (provider.Provider, error) { made["mem"]++; return bus.Provider(), nil },
		"own": func(s Section) (provider.Provider, error) {
			made["own "+s.Get("key")]++
			return otherName{bus.Provider()}, nil
		},
	})
	cfg, err := s.Config(memsite.New(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, cfg.Providers)
	if got := slices.Sorted(maps.Keys(cfg.Standby)); !slices.Equal(got, []string{"mem", "other", "tcp", "udp"}) {
		t.Fatalf("can be made again: %q, want all of them, by the names that they have themselves", got)
	}
	for name, again := range cfg.Standby {
		p, err := again()
		if err != nil || p.Name() != name {
			t.Errorf("%s: made %v, %v", name, p, err)
			continue
		}
		closeAll(t, []provider.Provider{p})
	}
	if made["mem"] != 2 || made["own x"] != 2 {
		t.Errorf("made %v; want both twice, with their sections", made)
	}
}

// otherName is a provider with another name than the one by which it is configured.
type otherName struct{ *membus.Provider }

func (otherName) Name() string { return "other" }

func TestConfig_TakesEverySettingOfTCP(t *testing.T) {
	s := load(t, `{"Carillon": {"Tcp": {
		"Listen": "127.0.0.1:0", "Advertise": "a:1", "Endpoints": ["b:2"], "AllowNetworks": ["127.0.0.0/8"],
		"MaxFrameBytes": 1000, "QueueBytes": 4000, "DialTimeout": "1s", "HandshakeTimeout": "2s", "PeerTimeout": "3s",
		"Tls": {"CertFile": "a.pem", "KeyFile": "a.key", "CaFile": "ca.pem"}
	}}}`, nil)
	newAuthority(t, "ca.pem").issue(t, "a", "a.example")
	got, err := s.tcpConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := tcpbus.Config{
		Listen: "127.0.0.1:0", Advertise: "a:1", Endpoints: []string{"b:2"}, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		MaxFrameBytes: 1000, QueueBytes: 4000, DialTimeout: time.Second, HandshakeTimeout: 2 * time.Second, PeerTimeout: 3 * time.Second,
		TLS: got.TLS,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	everyFieldIsSet(t, want)
}

func TestConfig_TakesEverySettingOfUDP(t *testing.T) {
	s := load(t, `{"Carillon": {"Udp": {
		"Mode": "Unicast", "Group": "239.1.2.3", "Port": 7, "Interface": "lo", "Ttl": 2, "Peers": ["a:1"], "MaxFrameBytes": 1400
	}}}`, nil)
	want := udpbus.Config{
		Mode: udpbus.Unicast, Group: netip.MustParseAddr("239.1.2.3"), Port: 7, Interface: "lo", TTL: 2, Peers: []string{"a:1"}, MaxFrameBytes: 1400,
	}
	if got := s.udpConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	everyFieldIsSet(t, want)
}

// Two instances with configurations like those of the guide hear each other over
// real sockets.
func TestConfig_CarriesEvents(t *testing.T) {
	for name, section := range map[string]string{
		"tcp":           `"Provider": "tcp", "Tcp": {"Listen": "127.0.0.1:0"}`,
		"tcp with TLS":  `"Provider": "tcp", "Tcp": {"Listen": "127.0.0.1:0", "Tls": {"CertFile": "a.pem", "KeyFile": "a.key", "CaFile": "ca.pem"}}`,
		"udp multicast": `"Provider": "udp", "Udp": {"Interface": "lo", "Port": ` + freePort(t) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := load(t, `{"Carillon": {"Application": "shop", `+section+`}}`, nil)
			newAuthority(t, "ca.pem").issue(t, "a", "a.example")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			db := memsite.New(nil)
			open := func() *carillon.Broker {
				cfg, err := s.Config(db)
				if err != nil {
					t.Fatal(err)
				}
				b, err := carillon.Open(ctx, cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = b.Close() })
				b.Enable()
				return b
			}
			one, two := open(), open()
			id, heard := carillon.NewID(), make(chan any, 1)
			one.Event(id).OnRaised(func(_ context.Context, r carillon.Raised[any]) { heard <- r.Parameter })
			if err := two.Event(id).Raise(ctx, carillon.NewID(), "page 7"); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-heard:
				if got != "page 7" {
					t.Errorf("heard %v", got)
				}
			case <-ctx.Done():
				t.Errorf("nothing was heard; %+v", one.Stats())
			}
		})
	}
}

// freePort returns a port of UDP that nobody uses.
func freePort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

func TestConfig_LocalEventsNeedNoDatabase(t *testing.T) {
	for _, key := range []string{"EnableEvents", "EnableRemoteEvents"} {
		t.Run(key, func(t *testing.T) {
			s := load(t, `{"Carillon": {"Application": "shop", "`+key+`": false, "Provider": "azure"}}`, nil)
			cfg, err := s.Config(memsite.New(nil))
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Database != nil || len(cfg.Providers) != 0 {
				t.Errorf("database %v and providers %v, want none: events stay in the process", cfg.Database, cfg.Providers)
			}
			ctx := context.Background()
			b, err := carillon.Open(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			b.Enable()
			heard := make(chan any, 1)
			event := b.Event(carillon.NewID())
			event.OnRaised(func(_ context.Context, r carillon.Raised[any]) { heard <- r.Parameter })
			if err := event.Raise(ctx, carillon.NewID(), "page 7"); err != nil {
				t.Fatal(err)
			}
			if got := <-heard; got != "page 7" {
				t.Errorf("the subscriber heard %v", got)
			}
		})
	}
}

func TestConfig_OwnProvider(t *testing.T) {
	bus := membus.New()
	var got Section
	s := load(t, `{"Carillon": {"Application": "shop", "Provider": ["pigeon", "tcp"], "Pigeon": {"Loft": "roof"}}}`, map[string]Factory{
		"Pigeon": func(section Section) (provider.Provider, error) {
			got = section
			return bus.Provider(), nil
		},
		"unused": func(Section) (provider.Provider, error) {
			t.Error("a provider that is not chosen was made")
			return nil, nil
		},
	})
	cfg, err := s.Config(memsite.New(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, cfg.Providers)
	if got.Get("loft") != "roof" {
		t.Errorf("the factory was given %v", got.Keys())
	}
	if len(cfg.Providers) != 2 || cfg.Providers[1].Name() != "tcp" {
		t.Errorf("providers %v, want two in the order written", cfg.Providers)
	}
}

// closeRecorder notes that it was closed.
type closeRecorder struct {
	provider.Provider
	closed bool
}

func (c *closeRecorder) Close() error {
	c.closed = true
	return c.Provider.Close()
}

func TestConfig_ClosesWhatItMadeWhenItFails(t *testing.T) {
	made := closeRecorder{Provider: membus.New().Provider()}
	s := load(t, `{"Carillon": {"Application": "a", "Provider": ["fine", "broken"]}}`, map[string]Factory{
		"fine":   func(Section) (provider.Provider, error) { return &made, nil },
		"broken": func(Section) (provider.Provider, error) { return nil, errors.New("broken") },
	})
	if _, err := s.Config(memsite.New(nil)); err == nil {
		t.Fatal("no error")
	}
	if !made.closed {
		t.Error("the first provider was not closed when the second could not be made")
	}
}

func TestConfig_SaysWhatIsWrong(t *testing.T) {
	broken := errors.New("no pigeons left")
	for _, tt := range []struct {
		name, text string
		change     func(*Settings)
		db         site.Database
		want       string
	}{
		{name: "no application", text: `{}`, want: "configuration: Carillon:Application: is not set"},
		{name: "no database", text: `{"Carillon": {"Application": "a"}}`, want: "configuration: Carillon:Database: there is no site database"},
		{
			name: "role of a flag", text: "{\n\"Carillon\": {\"Application\": \"a\",\n\"Role\": \"both\"}}",
			change: func(s *Settings) { s.Role = "boht" }, want: `configuration: appsettings.json:3: Carillon:Role: "boht": choices`,
		},
		{
			name: "provider of a flag", text: `{"Carillon": {"Application": "a"}}`, db: memsite.New(nil),
			change: func(s *Settings) { s.Providers = []string{"upd"} }, want: `Carillon:Provider: unknown provider "upd"; did you mean "udp"? choices: tcp, udp`,
		},
		{
			name: "a provider refuses its settings", text: "{\n\"Carillon\": {\"Application\": \"a\",\n\"Tcp\": {\"MaxFrameBytes\": 2000,\n \"QueueBytes\": 1000}}}", db: memsite.New(nil),
			want: "configuration: appsettings.json:4: Carillon:Tcp:QueueBytes: 1000: a frame of MaxFrameBytes does not fit",
		},
		{
			name: "a provider refuses an element of a list", text: "{\n\"Carillon\": {\"Application\": \"a\",\n\"Tcp\": {\"AllowNetworks\": [\"10.0.0.0/8\"]}}}", db: memsite.New(nil),
			change: func(s *Settings) { s.TCP.AllowNetworks = append(s.TCP.AllowNetworks, netip.Prefix{}) },
			want:   "configuration: appsettings.json:3: Carillon:Tcp:AllowNetworks: invalid Prefix is not a network",
		},
		{
			name: "a factory's provider refuses a setting that is not written", text: `{"Carillon": {"Application": "a", "Provider": "hen"}}`, db: memsite.New(nil),
			want: "configuration: Carillon:Hen:House: is missing: want a house",
		},
		{
			name: "a factory's provider refuses what is no setting", text: `{"Carillon": {"Application": "a", "Provider": "hen", "Hen": {"House": "x"}}}`, db: memsite.New(nil),
			want: `make provider "hen": hen: Egg is broken`,
		},
		{
			name: "a factory fails", text: `{"Carillon": {"Application": "a", "Provider": ["tcp", "broken"]}}`, db: memsite.New(nil),
			want: `make provider "broken": no pigeons left`,
		},
		{
			name: "a factory returns nothing", text: `{"Carillon": {"Application": "a", "Provider": "nothing"}}`, db: memsite.New(nil),
			want: `make provider "nothing": its factory returned neither a provider nor an error`,
		},
		{
			name: "no certificate", text: `{"Carillon": {"Application": "a", "Tcp": {"Tls": {"CertFile": "a.pem", "KeyFile": "a.key", "CaFile": "ca.pem"}}}}`, db: memsite.New(nil),
			want: `configuration: appsettings.json:1: Carillon:Tcp:Tls:CertFile: load "a.pem" and "a.key": open a.pem: no such file`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := load(t, tt.text, map[string]Factory{
				"broken":  func(Section) (provider.Provider, error) { return nil, broken },
				"nothing": func(Section) (provider.Provider, error) { return nil, nil },
				"hen": func(s Section) (provider.Provider, error) {
					if s.Get("House") == "" {
						return nil, provider.WrongSetting("hen", "HOUSE", "is missing: want a house")
					}
					return nil, provider.WrongSetting("hen", "Egg", "is broken")
				},
			})
			if tt.change != nil {
				tt.change(s)
			}
			cfg, err := s.Config(tt.db)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if len(cfg.Providers) > 0 {
				t.Error("providers are left over")
			}
			if strings.Contains(tt.want, broken.Error()) && !errors.Is(err, broken) {
				t.Error("the factory's error is not wrapped")
			}
		})
	}
}

// Two ends with certificates of one authority talk; one of another authority is
// refused by both.
func TestConfig_TLSAcceptsTheAuthorityAlone(t *testing.T) {
	t.Chdir(t.TempDir())
	ours := newAuthority(t, "ca.pem")
	ours.issue(t, "a", "one.shop.internal")
	ours.issue(t, "b", "two.shop.internal")
	newAuthority(t, "other-ca.pem").issue(t, "x", "one.shop.internal")
	config := func(name, ca, serverName string) *tls.Config {
		s := &Settings{TCP: TCP{TLS: TLS{CertFile: name + ".pem", KeyFile: name + ".key", CAFile: ca, ServerName: serverName}}}
		cfg, err := s.tls()
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	for _, tt := range []struct {
		name              string
		dialler, acceptor *tls.Config
		fails             bool
	}{
		{name: "same authority, no name", dialler: config("a", "ca.pem", ""), acceptor: config("b", "ca.pem", "")},
		{name: "same authority, right name", dialler: config("a", "ca.pem", "two.shop.internal"), acceptor: config("b", "ca.pem", "")},
		{name: "same authority, wrong name", dialler: config("a", "ca.pem", "three.shop.internal"), acceptor: config("b", "ca.pem", ""), fails: true},
		{name: "a stranger dials", dialler: config("x", "ca.pem", ""), acceptor: config("b", "ca.pem", ""), fails: true},
		{name: "a stranger accepts", dialler: config("a", "ca.pem", ""), acceptor: config("x", "ca.pem", ""), fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			left, right := connect(t)
			accepted := make(chan error, 1)
			go func() {
				defer right.Close()
				_, err := tls.Server(right, tt.acceptor).Write([]byte("x"))
				accepted <- err
			}()
			// The dialler hears only when it reads whether its certificate was taken.
			_, dialErr := tls.Client(left, tt.dialler).Read(make([]byte, 1))
			left.Close()
			acceptErr := <-accepted
			if failed := dialErr != nil || acceptErr != nil; failed != tt.fails {
				t.Errorf("dialler: %v, acceptor: %v; want failure %v", dialErr, acceptErr, tt.fails)
			}
		})
	}
}

// connect returns the ends of a connection. Not a pipe: with one, two ends that
// write at once wait for each other.
func connect(t *testing.T) (dialled, accepted net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if dialled, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close() })
	if accepted, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return dialled, accepted
}

func TestOpenDatabase_SaysWhatIsWrong(t *testing.T) {
	name := t.Name()
	if !slices.Contains(sql.Drivers(), name) { // -count runs a test twice in one process
		sql.Register(name, chattyDriver{})
	}
	for _, tt := range []struct {
		name string
		give Database
		want string
	}{
		{"no driver", Database{}, "Carillon:Database:Driver: is not set; drivers of this program: "},
		{"misspelt driver", Database{Driver: "TestOpenDatabase_SaysWhatIsWrogn", DSN: NewDSN("x")}, `did you mean "` + name + `"?`},
		{"no address", Database{Driver: name}, "Carillon:Database:Dsn: is not set"},
		{"bad address", Database{Driver: name, DSN: NewDSN("tiger")}, "cannot read it (its value is not shown)"},
		{"bad prefix", Database{Driver: name, DSN: NewDSN("good"), TablePrefix: "No"}, "Carillon:Database:TablePrefix: "},
		{"encrypted without a key", Database{Driver: name, DSN: NewDSN("good"), Secrets: "encrypted"}, "Database:KeyEncryptionKeys is not set"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db, err := (&Settings{Database: tt.give}).OpenDatabase()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "tiger") {
				t.Errorf("a secret is shown: %v", err)
			}
			if db != nil {
				t.Error("a database is left over")
			}
		})
	}
	db, err := (&Settings{Database: Database{Driver: name, DSN: NewDSN("good"), TablePrefix: "ev_"}}).OpenDatabase()
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := db.Pool.Ping(); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Close left the pool open: %v", err)
	}
}

// chattyDriver repeats what it cannot read, as some drivers do.
type chattyDriver struct{}

func (chattyDriver) Open(string) (driver.Conn, error) { return nil, errors.New("not reached") }

func (chattyDriver) OpenConnector(dsn string) (driver.Connector, error) {
	if dsn != "good" {
		return nil, errors.New("cannot parse " + dsn)
	}
	return chattyConnector{}, nil
}

type chattyConnector struct{ chattyDriver }

func (chattyConnector) Connect(context.Context) (driver.Conn, error) {
	return nil, errors.New("nobody there")
}
func (chattyConnector) Driver() driver.Driver { return chattyDriver{} }

func closeAll(t *testing.T, providers []provider.Provider) {
	t.Helper()
	for _, p := range providers {
		if err := p.Close(); err != nil {
			t.Errorf("close %s: %v", p.Name(), err)
		}
	}
}

// An authority issues certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, file string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: file}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return authority{cert, key}
}

// issue writes name.pem and name.key.
func (a authority) issue(t *testing.T, name, host string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}
