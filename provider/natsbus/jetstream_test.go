package natsbus

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// keeping returns the part of a configuration that lets a server keep streams, in a folder of the test's.
func keeping(tb testing.TB, more string) string {
	return fmt.Sprintf("jetstream { store_dir: %q\n%s }\n", tb.TempDir(), more)
}

func newJetStream(tb testing.TB, cfg JetStreamConfig) *JetStream {
	tb.Helper()
	p, err := NewJetStream(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}

func at(url string) JetStreamConfig { return JetStreamConfig{Config: Config{URLs: []string{url}}} }

// jetStreamHarness makes networks on one server, with a stream for each.
func jetStreamHarness(s *testServer) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		prefix := fmt.Sprintf("test.network-%d", networks.Add(1))
		var relays []*providertest.Relay
		var providers []*JetStream
		network := &providertest.Network{
			Restart: s.restart,
			Garbage: func(i int, b []byte) error {
				stranger, err := nats.Connect(s.url())
				if err != nil {
					return err
				}
				defer stranger.Close()
				of := providers[i].site(providers[i].keeper.Env().Site)
				for _, subject := range []string{of.kept(), of.to(providers[i].members.Load().self)} {
					if err := stranger.Publish(subject, b); err != nil {
						return err
					}
				}
				return stranger.Flush()
			},
			Broken: func() provider.Provider { return newJetStream(tb, at("nats://127.0.0.1:1")) },
			Silent: func() provider.Provider {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { l.Close() })
				return newJetStream(tb, at("nats://"+l.Addr().String()))
			},
		}
		for range n {
			r := providertest.NewRelay(tb, s.address)
			cfg := at("nats://" + r.Addr())
			cfg.Prefix = prefix
			p := newJetStream(tb, cfg)
			relays, providers = append(relays, r), append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		network.Cut = func(i int) { relays[i].Cut() }
		network.Heal = func(i int) { relays[i].Heal() }
		tb.Cleanup(func() { removeStreams(tb, s, strings.ReplaceAll(prefix, ".", "=")) })
		return network
	})
}

// removeStreams removes the streams whose names begin so, with what they hold.
func removeStreams(tb testing.TB, s *testServer, prefix string) {
	conn, err := nats.Connect(s.url())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		if strings.HasPrefix(name, prefix+"=") {
			if err := js.DeleteStream(ctx, name); err != nil {
				tb.Error(err)
			}
		}
	}
	if err := names.Err(); err != nil {
		tb.Error(err)
	}
}

func TestJetStream_KeepsTheContract(t *testing.T) {
	providertest.Run(t, jetStreamHarness(startServer(t, keeping(t, ""))))
	if newJetStream(t, JetStreamConfig{Memory: true}).Capabilities().Durable {
		t.Error("what is in memory is claimed to be durable")
	}
}

func TestJetStream_LosesNothingSilentlyWhenItsServerIsKilled(t *testing.T) {
	s := startServer(t, keeping(t, ""))
	carillontest.Outages{
		Provider: func(int) provider.Provider { return newJetStream(t, at(s.url())) },
		Kill:     s.kill,
		Start:    s.start,
	}.Run(t)
}

// What the others send while the connection is away waits in the stream.
func TestJetStream_HearsAfterwardsWhatWasSentMeanwhile(t *testing.T) {
	s := startServer(t, keeping(t, ""))
	r := providertest.NewRelay(t, s.address)
	away := providertest.Start(t, newJetStream(t, at("nats://"+r.Addr())))
	sender := providertest.Start(t, newJetStream(t, at(s.url())))
	send := func(text string) {
		t.Helper()
		if err := sender.Provider.Send(t.Context(), [][]byte{[]byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	send("before")
	if !away.Heard([]byte("before"), 10*time.Second) {
		t.Fatal("nothing arrives")
	}
	r.Cut()
	for n := range 100 {
		send(fmt.Sprint("meanwhile ", n))
	}
	r.Heal()
	for n := range 100 {
		if !away.Heard([]byte(fmt.Sprint("meanwhile ", n)), 20*time.Second) {
			t.Fatalf("message %d of those that were sent meanwhile did not arrive", n)
		}
	}
	eventually(t, "it is told that something may be lost", func() bool { return away.Reconnects() > 0 })
	for _, f := range away.Frames()[1:] {
		if string(f) == "before" {
			t.Error("what had arrived before came again")
		}
	}
	if late := providertest.Start(t, newJetStream(t, at(s.url()))); late.Heard([]byte("meanwhile 99"), 100*time.Millisecond) {
		t.Error("who starts hears what was sent before")
	}
}

// An operator removes the stream; it is made again, and what is in the new one is heard.
func TestJetStream_MakesAStreamAgainThatWasRemoved(t *testing.T) {
	s := startServer(t, keeping(t, ""))
	a, b := providertest.Start(t, newJetStream(t, at(s.url()))), providertest.Start(t, newJetStream(t, at(s.url())))
	for n := range byte(50) {
		if err := a.Provider.Send(t.Context(), [][]byte{{n}}); err != nil {
			t.Fatal(err)
		}
	}
	if !b.Heard([]byte{49}, 10*time.Second) {
		t.Fatal("nothing arrives")
	}
	removeStreams(t, s, defaultPrefix)
	eventually(t, "Send is accepted again", func() bool { return a.Provider.Send(t.Context(), [][]byte{[]byte("again")}) == nil })
	if !b.Heard([]byte("again"), 20*time.Second) {
		t.Error("what was sent to the new stream did not arrive")
	}
}

func TestJetStream_SaysWhatIsWrongInOneLineWithoutSecrets(t *testing.T) {
	core := startServer(t, "")
	small := startServer(t, keeping(t, "max_file_store: 1048576"))
	alone := startServer(t, keeping(t, ""))
	guarded := startServer(t, keeping(t, "")+users(everything, everything))
	with := func(s *testServer, change func(*JetStreamConfig)) JetStreamConfig {
		cfg := at(s.url())
		if change != nil {
			change(&cfg)
		}
		return cfg
	}
	for _, tt := range []struct {
		name string
		cfg  JetStreamConfig
		want string
	}{
		{"a server without JetStream", with(core, nil), "switch JetStream on"},
		{"no room", with(small, nil), "lower MaxBytes"},
		{"more replicas than servers", with(alone, func(c *JetStreamConfig) { c.Replicas = 3 }), "Replicas is more than there are servers"},
		{"no right to the interface of JetStream", with(guarded, func(c *JetStreamConfig) { c.User, c.Password = "app", password }), "no right to "},
		{"wrong password", with(guarded, func(c *JetStreamConfig) { c.User, c.Password = "app", "wrong-"+password }), "check User and Password"},
		{"frames that the server does not take", with(startServer(t, keeping(t, "")+"max_payload: 16000"), nil), "max_payload"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newJetStream(t, tt.cfg)
			e := providertest.NewEndpoint(t, p, provider.Env{})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := e.Start(ctx)
			if err == nil {
				t.Fatal("Start returned nil")
			}
			t.Log(err)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start: %q; want one line with %q", err, tt.want)
			}
			providertest.CheckNoSecret(t, password, err, tt.cfg, p)
		})
	}
}

func TestJetStream_TheRightsThatTheDocumentationNamesSuffice(t *testing.T) {
	keep := keeping(t, "")
	s := startServer(t, keep+users(`["carillon.>", "$JS.API.>", "$JS.FC.>"]`, `["carillon.>", "_INBOX.>"]`))
	cfg := at(s.url())
	cfg.User, cfg.Password = "app", password
	a, b := providertest.Start(t, newJetStream(t, cfg)), providertest.Start(t, newJetStream(t, cfg))
	if err := a.Provider.Send(t.Context(), [][]byte{[]byte("frame")}); err != nil {
		t.Fatal(err)
	}
	if !b.Heard([]byte("frame"), 10*time.Second) {
		t.Fatal("nothing arrives")
	}

	// Rights that are taken away make Send fail with the subject, and it works again when they are back.
	s.reload(keep + users(`["$JS.API.>", "$JS.FC.>"]`, `["carillon.>", "_INBOX.>"]`))
	eventually(t, "Send says which right is missing", func() bool {
		err := a.Provider.Send(t.Context(), [][]byte{[]byte("refused")})
		return err != nil && strings.Contains(err.Error(), "no right to publish to carillon.")
	})
	s.reload(keep + users(`["carillon.>", "$JS.API.>", "$JS.FC.>"]`, `["carillon.>", "_INBOX.>"]`))
	eventually(t, "a frame arrives again", func() bool {
		a.Provider.Send(t.Context(), [][]byte{[]byte("again")})
		return b.Heard([]byte("again"), 10*time.Millisecond)
	})
}

func TestNewJetStream_RefusesWhatCannotWork(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  JetStreamConfig
		want string
	}{
		{"a connection of the application", JetStreamConfig{Config: Config{Conn: new(nats.Conn)}}, "Conn is set"},
		{"too short", JetStreamConfig{MaxAge: time.Millisecond}, "MaxAge"},
		{"too little", JetStreamConfig{MaxBytes: 1000}, "MaxBytes"},
		{"too many", JetStreamConfig{Replicas: 7}, "Replicas"},
		{"what the core refuses", JetStreamConfig{Config: Config{Prefix: "a b"}}, "Prefix"},
		{"nothing", JetStreamConfig{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewJetStream(tt.cfg)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
