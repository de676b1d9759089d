package rabbitbus

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// networks counts those that share the server; each has a prefix of its own.
var networks atomic.Int64

func newPrefix() string { return fmt.Sprint("test-", networks.Add(1)) }

// harness makes networks of instances that each reach the server through a relay. cfg is theirs, but for the URL and the prefix.
func harness(cfg Config) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		s := theBroker(tb)
		cfg := cfg
		cfg.Prefix = newPrefix()
		stranger := s.channel(tb)
		var relays []*providertest.Relay
		var providers []*Provider
		network := &providertest.Network{
			FloodBytes: 24 << 20,         // three times what a queue of 8 MiB and those who send ahead keep
			Patience:   20 * time.Second, // the server takes some of them to start
			Cut:        func(i int) { relays[i].Cut() },
			Heal:       func(i int) { relays[i].Heal() },
			Garbage: func(i int, b []byte) error {
				p := providers[i]
				keys := []string{keyAll}
				if m := p.members.Load(); m != nil {
					keys = append(keys, keyOne(m.self))
				}
				for _, key := range keys {
					if err := stranger.PublishWithContext(context.Background(), p.exchange(p.keeper.Env().Site), key, false, false, amqp.Publishing{Body: b}); err != nil {
						return err
					}
				}
				return nil
			},
			Broken: func() provider.Provider { return newTest(tb, Config{URLs: []string{"amqp://127.0.0.1:1"}}) },
			Silent: func() provider.Provider {
				mute, err := net.Listen("tcp", "127.0.0.1:0") // the system accepts, and nobody answers
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { mute.Close() })
				return newTest(tb, Config{URLs: []string{"amqp://" + mute.Addr().String()}})
			},
		}
		if cfg.Persistent { // the one claim that a restart proves; what floods and cuts prove, they have proven without it
			network.Restart = func() { s.kill(); s.startAgain(tb) }
			network.FloodBytes, network.Cut, network.Garbage = 2<<20, nil, nil
		}
		for range n {
			r := providertest.NewRelay(tb, s.address)
			c := cfg
			c.URLs = []string{"amqp://" + r.Addr()}
			p := newTest(tb, c)
			relays, providers = append(relays, r), append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		return network
	})
}

func TestProvider_KeepsTheContract(t *testing.T) {
	providertest.Run(t, harness(Config{QueueBytes: 8 << 20}))
}

func BenchmarkProvider(b *testing.B) { providertest.RunBenchmarks(b, harness(Config{})) }

// newTest makes a Provider that the test closes.
func newTest(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}
