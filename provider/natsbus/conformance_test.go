package natsbus

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// networks counts those that share a server; each has a prefix of its own.
var networks atomic.Int64

// harness makes networks on one server. brought says whether the connections are the application's, and how they are made; relayed,
// whether they go through a relay that can be cut.
func harness(s *testServer, relayed bool, brought func(tb testing.TB) *nats.Conn) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		prefix := fmt.Sprintf("test.network-%d", networks.Add(1))
		var providers []*Provider
		var relays []*providertest.Relay
		network := &providertest.Network{
			Restart: s.restart,
			Garbage: func(i int, b []byte) error {
				stranger, err := nats.Connect(s.url())
				if err != nil {
					return err
				}
				defer stranger.Close()
				site := providers[i].site(providers[i].env.Site)
				subjects := []string{site.all()}
				if m := providers[i].members.Load(); m != nil {
					subjects = append(subjects, site.to(m.self))
				}
				for _, subject := range subjects {
					if err := stranger.Publish(subject, b); err != nil {
						return err
					}
				}
				return stranger.Flush()
			},
			Broken: func() provider.Provider { return newProvider(tb, Config{URLs: []string{"nats://127.0.0.1:1"}}) },
			Silent: func() provider.Provider {
				l, err := net.Listen("tcp", "127.0.0.1:0") // the system accepts, and nobody answers
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { l.Close() })
				return newProvider(tb, Config{URLs: []string{"nats://" + l.Addr().String()}})
			},
			// A connection of the application has other goroutines after the server was restarted.
			IgnoreGoroutine: func(stack string) bool {
				return brought != nil && !strings.Contains(stack, "waitForMsgs") && !strings.Contains(stack, "natsbus.")
			},
		}
		for range n {
			cfg := Config{URLs: []string{s.url()}, Prefix: prefix}
			switch {
			case brought != nil:
				cfg = Config{Conn: brought(tb), Prefix: prefix}
			case relayed:
				r := providertest.NewRelay(tb, s.address)
				relays = append(relays, r)
				cfg.URLs = []string{"nats://" + r.Addr()}
			}
			p := newProvider(tb, cfg)
			providers = append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		if relayed {
			network.Cut = func(i int) { relays[i].Cut() }
			network.Heal = func(i int) { relays[i].Heal() }
		}
		return network
	})
}

func newProvider(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestProvider_KeepsTheContract(t *testing.T) {
	s := startServer(t, "")
	t.Run("through a network that breaks", func(t *testing.T) { providertest.Run(t, harness(s, true, nil)) })
	t.Run("on connections of the application", func(t *testing.T) {
		providertest.Run(t, harness(s, false, func(tb testing.TB) *nats.Conn { return s.stranger(tb, nats.NoEcho(), nats.ReconnectBufSize(-1)) }))
	})
	t.Run("on connections with echo", func(t *testing.T) {
		providertest.Run(t, harness(s, false, func(tb testing.TB) *nats.Conn { return s.stranger(tb, nats.ReconnectBufSize(-1)) }))
	})
}

func BenchmarkProvider(b *testing.B) {
	providertest.RunBenchmarks(b, harness(startServer(b, ""), false, nil))
}
