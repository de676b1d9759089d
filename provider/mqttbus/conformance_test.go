package mqttbus

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eclipse/paho.golang/paho"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// networks counts those that share a server; each has a prefix of its own.
var networks atomic.Int64

// harness makes networks on one server. relayed says that instances reach it through relays, which can be cut.
func harness(s *server, cfg Config, relayed bool) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		cfg := cfg
		cfg.Prefix = fmt.Sprintf("test/network-%d", networks.Add(1))
		var stranger *paho.Client
		network := &providertest.Network{
			Restart: s.restart,
			Broken: func() provider.Provider {
				cfg.URLs = []string{"mqtt://127.0.0.1:1"}
				return newTest(tb, cfg)
			},
			Silent: func() provider.Provider {
				mute, err := net.Listen("tcp", "127.0.0.1:0") // the system accepts, and nobody answers
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { mute.Close() })
				cfg.URLs = []string{"mqtt://" + mute.Addr().String()}
				return newTest(tb, cfg)
			},
			IgnoreGoroutine: func(stack string) bool {
				return strings.Contains(stack, "(*server)") || stranger != nil && strings.Contains(stack, "paho.")
			},
		}
		var providers []*Provider
		var relays []*providertest.Relay
		for range n {
			cfg.URLs = []string{s.url()}
			if relayed {
				r := providertest.NewRelay(tb, s.address)
				relays = append(relays, r)
				cfg.URLs = []string{"mqtt://" + r.Addr()}
			}
			p := newTest(tb, cfg)
			providers = append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		if relayed {
			network.Cut = func(i int) { relays[i].Cut() }
			network.Heal = func(i int) { relays[i].Heal() }
		}
		network.Garbage = func(i int, b []byte) error {
			if stranger == nil {
				stranger = s.stranger(tb, "")
			}
			p := providers[i]
			topics := []string{p.toAll(p.keeper.Env().Site)}
			if m := p.members.Load(); m != nil {
				topics = append(topics, p.toOne(p.keeper.Env().Site, m.self))
			}
			for k, topic := range topics {
				if _, err := stranger.Publish(context.Background(), &paho.Publish{Topic: topic, QoS: byte(k % 2), Payload: b}); err != nil {
					return err
				}
			}
			return nil
		}
		return network
	})
}

// stranger returns a client of its own, with a name or without, that the test ends.
func (s *server) stranger(tb testing.TB, clientID string) *paho.Client {
	tb.Helper()
	var client *paho.Client
	if !eventually(func() bool { // there may be no room yet after another one
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return false
		}
		client = paho.NewClient(paho.ClientConfig{Conn: c})
		_, err = client.Connect(tb.Context(), &paho.Connect{ClientID: clientID, CleanStart: true, KeepAlive: 30})
		return err == nil
	}) {
		tb.Fatalf("a client cannot connect to %s: %s", s.address, s.said())
	}
	tb.Cleanup(func() { client.Disconnect(new(paho.Disconnect)) })
	return client
}

// A server that keeps sessions on its disk, so that what waits in them outlives an orderly restart. Without delay, since the kernel
// that would have to acknowledge at once is that of a relay.
func TestProvider_KeepsTheContract(t *testing.T) {
	s := startServer(t, "persistence true", "set_tcp_nodelay true")
	providertest.Run(t, harness(s, Config{Durable: true}, true))
}

func BenchmarkProvider(b *testing.B) {
	providertest.RunBenchmarks(b, harness(startServer(b), Config{}, false))
}
