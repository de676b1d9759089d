package redisbus

import (
	"context"
	"net"
	"testing"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// harness makes networks of instances that each reach a server of the network through a relay. keep is Config.Keep.
func harness(keep int) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		s := startServer(tb)
		stranger := s.client()
		tb.Cleanup(stranger.Close)
		network := &providertest.Network{
			FloodBytes: 48 << 20, // more than a server with default limits keeps
			Restart:    s.restart,
			Broken:     func() provider.Provider { return newTest(tb, Config{URL: "redis://127.0.0.1:1"}) },
			Silent: func() provider.Provider {
				mute, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { mute.Close() })
				return newTest(tb, Config{URL: "redis://" + mute.Addr().String()})
			},
		}
		var relays []*providertest.Relay
		var providers []*Provider
		for range n {
			r := providertest.NewRelay(tb, s.address)
			p := newTest(tb, Config{URL: "redis://" + r.Addr(), Keep: keep})
			relays, providers = append(relays, r), append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		network.Cut = func(i int) { relays[i].Cut() }
		network.Heal = func(i int) { relays[i].Heal() }
		network.Garbage = func(i int, b []byte) error {
			if keep > 0 {
				key := providers[i].toAll(providers[i].keeper.Env().Site)
				cmd := stranger.B().Xadd().Key(key).Id("*").FieldValue().FieldValue(frameField, rueidis.BinaryString(b)).FieldValue("more", "").Build()
				return stranger.Do(context.Background(), cmd).Error()
			}
			cmd := stranger.B().Publish().Channel(providers[i].toAll(providers[i].keeper.Env().Site)).Message(rueidis.BinaryString(b)).Build()
			return stranger.Do(context.Background(), cmd).Error()
		}
		return network
	})
}

func TestProvider_KeepsTheContract(t *testing.T) { providertest.Run(t, harness(0)) }

func TestProvider_KeepsTheContractWithStreams(t *testing.T) { providertest.Run(t, harness(testKeep)) }

func BenchmarkProvider(b *testing.B) { providertest.RunBenchmarks(b, harness(0)) }
