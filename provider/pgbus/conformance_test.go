package pgbus

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// harness makes networks of instances that each reach the server through a relay, with channels of their own.
func harness(maxFrameBytes int) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		s := startServer(tb)
		stranger, err := pgxpool.New(tb.Context(), s.url("postgres"))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(stranger.Close)
		cfg := Config{Prefix: fmt.Sprint("network", lastPrefix.Add(1)), MaxFrameBytes: maxFrameBytes}
		at := func(address string) *Provider {
			cfg := cfg
			cfg.URL = urlOf(address, "postgres")
			return newTest(tb, cfg)
		}
		network := &providertest.Network{
			FloodBytes:      8 << 20, // it drops nothing, however much that is
			IgnoreGoroutine: func(stack string) bool { return strings.Contains(stack, "holdThread") },
			Restart:         func() { s.kill(); s.start(tb) },
			Broken:          func() provider.Provider { return at("127.0.0.1:1") },
			Silent: func() provider.Provider {
				mute, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { mute.Close() })
				return at(mute.Addr().String())
			},
		}
		var relays []*providertest.Relay
		var providers []*Provider
		for range n {
			r := providertest.NewRelay(tb, s.address())
			p := at(r.Addr())
			relays, providers = append(relays, r), append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		network.Cut = func(i int) { relays[i].Cut() }
		network.Heal = func(i int) { relays[i].Heal() }
		network.Garbage = func(i int, b []byte) error {
			channel := providers[i].cfg.toAll(providers[i].keeper.Env().Site)
			// As it is, and as what follows a head that could be an instance's.
			for _, payload := range []string{string(b), base64.RawStdEncoding.EncodeToString(append(make([]byte, headBytes), b...))} {
				if _, err := stranger.Exec(context.Background(), "SELECT pg_notify($1, $2)", channel, payload); err != nil {
					return err
				}
			}
			return nil
		}
		return network
	})
}

func TestProvider_KeepsTheContract(t *testing.T) { providertest.Run(t, harness(0)) }

// Frames of more than a payload take turns with smaller ones.
func TestProvider_KeepsTheContractWithATable(t *testing.T) {
	providertest.Run(t, harness(32<<10))
}

func BenchmarkProvider(b *testing.B) { providertest.RunBenchmarks(b, harness(0)) }

func BenchmarkProviderWithATable(b *testing.B) { providertest.RunBenchmarks(b, harness(32<<10)) }
