package kafkabus

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/carillon-go/carillon/provider/providertest"
)

// The versions that the package says it works with, as far as kfake behaves like them.
func TestProvider_WithOlderBrokers(t *testing.T) {
	for name, version := range map[string]*kversion.Versions{
		"2.4": kversion.V2_4_0(), "2.8": kversion.V2_8_0(), "3.0": kversion.V3_0_0(), "4.0": kversion.V4_0_0(),
	} {
		t.Run(name, func(t *testing.T) {
			c := startCluster(t, 1, kfake.MaxVersions(version), kfake.DefaultNumPartitions(3))
			r := providertest.NewRelay(t, c.ListenAddrs()[0])
			a, b := pair(t, Config{Brokers: c.ListenAddrs()}, Config{Brokers: c.ListenAddrs(), Options: through(r)})
			hears(t, a, b, "there")
			hears(t, b, a, "and back")
			r.Cut()
			refused(t, b, "kafka: ")
			meanwhile := newFrame("meanwhile")
			if err := a.Provider.Send(t.Context(), [][]byte{meanwhile}); err != nil {
				t.Fatal(err)
			}
			r.Heal()
			if !b.Heard(meanwhile, patience) || count(b, meanwhile) != 1 {
				t.Errorf("what was sent meanwhile was heard %d times", count(b, meanwhile))
			}
			hearsAgain(t, b, a, "afterwards")
		})
	}
}
