package membus_test

import (
	"testing"

	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/providertest"
)

// harness makes networks that are a Bus each.
type harness struct{}

func (harness) Network(_ testing.TB, n int) *providertest.Network {
	bus := membus.New()
	net := new(providertest.Network)
	on := make([]*membus.Provider, n)
	for i := range on {
		on[i] = bus.Provider()
		net.Providers = append(net.Providers, on[i])
	}
	net.Cut = func(i int) { on[i].Cut() }
	net.Heal = func(i int) { on[i].Heal() }
	return net
}

func TestProvider_KeepsTheContract(t *testing.T) { providertest.Run(t, harness{}) }

func BenchmarkProvider(b *testing.B) { providertest.RunBenchmarks(b, harness{}) }
