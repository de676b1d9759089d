package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// The server is killed again and again while instances raise events. What the outages swallow is repaired once it
// is back, or told as missed.
func TestBrokers_LoseNothingInSilenceWhenTheServerIsKilled(t *testing.T) {
	s := theBroker(t)
	prefix := newPrefix()
	carillontest.Outages{
		Provider: func(int) provider.Provider { return newTest(t, Config{URLs: []string{s.url()}, Prefix: prefix}) },
		Kill:     s.kill,
		Start:    func() { s.startAgain(t) },
	}.Run(t)
}

// While the server is away for long Send says so at once, and keeps nothing for later; the log says it once. Everybody comes back by himself.
func TestSend_FailsWhileTheServerIsAway(t *testing.T) {
	s := theBroker(t)
	ways, a, b := pair(t, s, Config{})
	hears(t, a, b, "at first")
	var err error
	for _, way := range ways {
		way.Cut()
	}
	lost := []byte("while it is away")
	failed := &a.Provider.(*Provider).failed
	for failed.Load() < 3 {
		if err = a.Provider.Send(t.Context(), [][]byte{lost}); errors.Is(err, provider.ErrClosed) {
			t.Fatalf("Send while the server is away: %v; want an error that may pass", err)
		}
		before := failed.Load()
		if !eventually(func() bool { return failed.Load() > before }) {
			t.Fatal("it is not tried again")
		}
	}
	err = a.Provider.Send(t.Context(), [][]byte{lost})
	if err == nil || !strings.Contains(err.Error(), "the server closed the connection") {
		t.Errorf("Send while the server is away: %v; want why", err)
	}
	for _, way := range ways {
		way.Heal()
	}
	hears(t, a, b, "afterwards")
	hears(t, b, a, "and back")
	if b.Heard(lost, 0) {
		t.Error("what Send refused was kept and sent later")
	}
	if b.Reconnects() == 0 {
		t.Error("Reconnected was not called")
	}
}

// A network that carries nothing holds Send up for as long as its ctx wants, or until Close.
func TestSend_WaitsNoLongerThanItsContext(t *testing.T) {
	s := theBroker(t)
	ways, a, b := pair(t, s, Config{})
	hears(t, a, b, "at first")
	ways[0].Hold()
	defer ways[0].Release()
	large := make([][]byte, 1000) // more than the kernel keeps
	for i := range large {
		large[i] = make([]byte, defaultFrameBytes)
	}
	for _, frames := range [][][]byte{{[]byte("with a deadline")}, large} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := a.Provider.Send(ctx, frames); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send of %d frames with a deadline: %v; want context.DeadlineExceeded", len(frames), err)
		}
		cancel()
	}
	sending := make(chan error, 1)
	go func() { sending <- a.Provider.Send(context.Background(), [][]byte{[]byte("without one")}) }()
	a.Close()
	if err := <-sending; !errors.Is(err, provider.ErrClosed) {
		t.Errorf("Send while Close is called: %v; want ErrClosed", err)
	}
}

// pair starts two instances that reach the server each through a relay of its own.
func pair(tb testing.TB, s *broker, cfg Config) (ways [2]*providertest.Relay, a, b *providertest.Endpoint) {
	tb.Helper()
	cfg.Prefix = newPrefix()
	var ends [2]*providertest.Endpoint
	for i := range ends {
		ways[i] = providertest.NewRelay(tb, s.address)
		c := cfg
		c.URLs = []string{"amqp://" + ways[i].Addr()}
		ends[i] = providertest.Start(tb, newTest(tb, c))
	}
	providertest.Introduce(ends[:]...)
	return ways, ends[0], ends[1]
}

// hears sends from a again and again until b hears.
func hears(tb testing.TB, a, b *providertest.Endpoint, when string) {
	tb.Helper()
	n := 0
	var err error
	if !eventually(func() bool {
		n++
		f := fmt.Appendf(nil, "%s, %p to %p, number %d", when, a, b, n)
		err = a.Provider.Send(tb.Context(), [][]byte{f})
		return b.Heard(f, 50*time.Millisecond)
	}) {
		tb.Fatalf("%s: nothing is heard; last error of Send: %v", when, err)
	}
}
