package azurebus

import (
	"net"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
)

func TestProvider_KeepsTheContract(t *testing.T) {
	e := startEmulator(t, emulator.Options{LockDuration: time.Second})
	providertest.Run(t, providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		var relays []*providertest.Relay
		var providers []*Provider
		network := &providertest.Network{
			Restart: func() { restart(tb, e) },
			Garbage: func(i int, b []byte) error { return write(tb, e, providers[i], b) },
			Broken: func() provider.Provider {
				return newProvider(tb, Config{ConnectionString: e.ConnectionStringOf("127.0.0.1:1", emulator.KeyName, emulator.Key), HTTP: e.Administration()})
			},
			Silent: func() provider.Provider {
				l, err := net.Listen("tcp", "127.0.0.1:0") // the system accepts, and nobody answers
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { l.Close() })
				return newProvider(tb, Config{ConnectionString: e.ConnectionStringOf(l.Addr().String(), emulator.KeyName, emulator.Key), HTTP: e.Administration()})
			},
			IgnoreGoroutine: ofEmulator,
		}
		prefix := newPrefix()
		for range n {
			r := providertest.NewRelay(tb, e.Addr())
			cfg := config(e)
			cfg.Prefix = prefix
			cfg.ConnectionString = e.ConnectionStringOf(r.Addr(), emulator.KeyName, emulator.Key)
			p := newProvider(tb, cfg)
			relays, providers = append(relays, r), append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		network.Cut = func(i int) { relays[i].Cut() }
		network.Heal = func(i int) { relays[i].Heal() }
		return network
	}))
}

// write sends what a stranger with the right to send could.
func write(tb testing.TB, e *emulator.Emulator, to *Provider, body []byte) error {
	c, err := azservicebus.NewClientFromConnectionString(e.ConnectionString(), nil)
	if err != nil {
		return err
	}
	defer c.Close(tb.Context())
	s, err := c.NewSender(topicOf(to.cfg.prefix, to.keeper.Env().Site), nil)
	if err != nil {
		return err
	}
	for _, properties := range []map[string]any{nil, {propertyFrom: "stranger"}, {propertyFrom: 7, propertyTo: to.cfg.subscription}} {
		if err := s.SendMessage(tb.Context(), &azservicebus.Message{Body: body, ApplicationProperties: properties}, nil); err != nil {
			return err
		}
	}
	return nil
}
