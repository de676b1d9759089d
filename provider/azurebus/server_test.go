package azurebus

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
)

// startEmulator starts one that ends with the test.
func startEmulator(tb testing.TB, o emulator.Options) *emulator.Emulator {
	tb.Helper()
	e, err := emulator.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Close)
	return e
}

// restart restarts e.
func restart(tb testing.TB, e *emulator.Emulator) {
	tb.Helper()
	e.Kill()
	start(tb, e)
}

// start lets clients in again, as soon as the system has the ports free.
func start(tb testing.TB, e *emulator.Emulator) {
	tb.Helper()
	eventually(tb, "the emulator starts again", func() bool { return e.Start() == nil })
}

// ofEmulator reports whether a goroutine, given as its stack trace, is one of the emulator.
func ofEmulator(stack string) bool { return strings.Contains(stack, "azurebus/emulator.") }

// prefixes counts those that were given away.
var prefixes atomic.Int64

// newPrefix returns one for a network that shares an emulator with others.
func newPrefix() string { return fmt.Sprintf("net%d", prefixes.Add(1)) }

func newProvider(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// config returns that of an instance on e.
func config(e *emulator.Emulator) Config {
	return Config{ConnectionString: e.ConnectionString(), HTTP: e.Administration()}
}

// eventually polls cond until it is true, and fails the test when that takes too long.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	if !providertest.Eventually(20*time.Second, cond) {
		tb.Fatalf("it does not happen that %s", what)
	}
}
