package kafkabus

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// networks counts those that share a server; each has a prefix of its own.
var networks atomic.Int64

// harness makes networks on one server, with a relay before each instance.
func harness(s *server) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		prefix := fmt.Sprintf("test.%d", networks.Add(1))
		var relays []*providertest.Relay
		var providers []*Provider
		network := &providertest.Network{
			Cut:     func(i int) { relays[i].Cut() },
			Heal:    func(i int) { relays[i].Heal() },
			Restart: s.restart,
			Garbage: func(i int, b []byte) error {
				cl, err := kgo.NewClient(kgo.SeedBrokers(s.address), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
				if err != nil {
					return err
				}
				defer cl.Close()
				p := providers[i]
				topic := p.topic(p.keeper.Env().Site)
				like := newRecord(topic, []byte("like one of ours"), &tag{1}, b)
				other := &kgo.Record{Topic: topic, Value: b, Key: b, Headers: []kgo.RecordHeader{{Key: tagKey, Value: b}}}
				return cl.ProduceSync(tb.Context(), like, other, &kgo.Record{Topic: topic, Value: b}).FirstErr()
			},
			Broken: func() provider.Provider { return newTest(tb, Config{Brokers: []string{"127.0.0.1:1"}}) },
			Silent: func() provider.Provider {
				l, err := net.Listen("tcp", "127.0.0.1:0") // the system accepts, and nobody answers
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { l.Close() })
				return newTest(tb, Config{Brokers: []string{l.Addr().String()}})
			},
			// franz-go starts goroutines all the time, so while an instance runs there are new ones, and they are no leak. The suite looks
			// again when all are closed; and what a failed Start leaves is looked at in a test of its own, where nobody else runs.
			IgnoreGoroutine: func(stack string) bool {
				running := slices.ContainsFunc(providers, func(p *Provider) bool { _, ok := p.keeper.Link(); return ok })
				return running && (strings.Contains(stack, "franz-go/pkg/kgo.") || strings.Contains(stack, "kafkabus.(*link)"))
			},
		}
		for range n {
			r := providertest.NewRelay(tb, s.address)
			p := newTest(tb, Config{Brokers: []string{s.address}, Prefix: prefix, Options: through(r)})
			relays, providers = append(relays, r), append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		return network
	})
}

func TestProvider_KeepsTheContract(t *testing.T) {
	providertest.Run(t, harness(startServer(t)))
}

func BenchmarkProvider(b *testing.B) { providertest.RunBenchmarks(b, harness(startServer(b))) }

// The broker is killed again and again while instances raise events.
func TestBrokers_LoseNothingInSilenceWhenTheServerIsKilled(t *testing.T) {
	s := startServer(t)
	carillontest.Outages{
		Provider: func(int) provider.Provider { return newTest(t, Config{Brokers: []string{s.address}}) },
		Kill:     s.kill,
		Start:    s.start,
	}.Run(t)
}
