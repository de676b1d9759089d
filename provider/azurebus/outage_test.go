package azurebus

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
)

func TestProvider_LosesNothingSilentlyWhenItsServerIsKilled(t *testing.T) {
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
	var log lines
	away := providertest.NewEndpoint(t, newProvider(t, cfg), provider.Env{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := away.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer away.Close()
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
	for _, want := range []string{"azure: the connection is lost", "cannot connect, trying on", "subscribed again"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
}

// lines are what was logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The SDK closes the connection when the service refuses something. Operators read what that was, not that it was closed.
func TestProvider_SaysWhyTheServiceEndedTheLink(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	var log lines
	ep := providertest.NewEndpoint(t, newProvider(t, config(e)), provider.Env{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := ep.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	e.Disable(true)
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "\n") })
	if line, _, _ := strings.Cut(log.String(), "\n"); !strings.Contains(line, "connection lost") || !strings.Contains(line, "enable it in the portal") {
		t.Errorf("the first line is %s", line)
	}
}
