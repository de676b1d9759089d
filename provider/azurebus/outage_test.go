package azurebus

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
)

func TestProvider_LosesNothingSilentlyInOutages(t *testing.T) {
	e := startEmulator(t, emulator.Options{LockDuration: time.Second})
	carillontest.Outages{
		Provider: func(int) provider.Provider { return newProvider(t, config(e)) },
		Kill:     e.Kill,
		Start:    func() { start(t, e) },
	}.Run(t)
	t.Logf("%+v", e.Operations())
}

// An instance that is cut off for longer than it tries again, several times, has what waited for it, and was told.
func TestProvider_HasWhatWaitedForIt(t *testing.T) {
	e := startEmulator(t, emulator.Options{LockDuration: time.Second})
	relay := providertest.NewRelay(t, e.Addr())
	cfg := config(e)
	cfg.ConnectionString = e.ConnectionStringOf(relay.Addr(), emulator.KeyName, emulator.Key)
	away := providertest.Start(t, newProvider(t, cfg))
	other := providertest.Start(t, newProvider(t, config(e)))
	refused := 0
	relay.Cut()
	eventually(t, "several attempts have failed", func() bool {
		if away.Provider.Send(t.Context(), [][]byte{[]byte("lost")}) != nil {
			refused++
		}
		return refused > 400 // of one each 5 ms: two seconds
	})
	frames := [][]byte{[]byte("one"), []byte("two"), []byte("three")}
	for _, f := range frames {
		if err := other.Provider.Send(t.Context(), [][]byte{f}); err != nil {
			t.Fatal(err)
		}
	}
	relay.Heal()
	for _, f := range frames {
		if !away.Heard(f, 15*time.Second) {
			t.Errorf("%q did not wait", f)
		}
	}
	eventually(t, "it is told", func() bool { return away.Reconnects() > 0 })
}
