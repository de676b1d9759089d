package pgbus

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// The server is killed again and again while instances raise events. What the outages swallow is repaired once it
// is back, or told as missed. One instance sends larger frames than the others.
func TestBrokers_LoseNothingInSilenceWhenTheServerIsKilled(t *testing.T) {
	s := startServer(t)
	carillontest.Outages{
		Provider: func(i int) provider.Provider {
			return newTest(t, Config{URL: s.url("postgres"), Prefix: "outages", MaxFrameBytes: []int{0, 0, 32 << 10}[i]})
		},
		Kill:  s.kill,
		Start: func() { s.start(t) },
	}.Run(t)
}

// A server that says nothing holds Send up for as long as its ctx wants, or until Close.
func TestSend_WaitsForTheServerNoLongerThanItsContext(t *testing.T) {
	s := startServer(t)
	way := providertest.NewRelay(t, s.address())
	cfg := Config{URL: urlOf(way.Addr(), "postgres"), Prefix: "waits"}
	a, b := pair(t, cfg, cfg)
	hears(t, a, b, "at first", false)
	way.Hold()

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Provider.Send(ctx, [][]byte{[]byte("with a deadline")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send with a deadline: %v; want context.DeadlineExceeded", err)
	}
	sending := make(chan error, 1)
	go func() { sending <- b.Provider.Send(context.Background(), [][]byte{[]byte("without one")}) }()
	b.Close()
	if err := <-sending; !errors.Is(err, provider.ErrClosed) {
		t.Errorf("Send while Close is called: %v; want ErrClosed", err)
	}

	way.Release()
	cfg.URL = s.url("postgres")
	c, _ := start(t, cfg)
	hears(t, a, c, "afterwards", true)
}

// Without a ctx that ends, Send waits for the server as long as a statement may take.
func TestSend_GivesUpAServerThatSaysNothing(t *testing.T) {
	s := startServer(t)
	way := providertest.NewRelay(t, s.address())
	p := newTest(t, Config{URL: urlOf(way.Addr(), "postgres"), Prefix: "mute"})
	p.times.answer, p.times.quiet = 200*time.Millisecond, time.Hour
	providertest.Start(t, p)
	way.Hold()
	sent := make(chan error, 1)
	go func() { sent <- p.Send(context.Background(), [][]byte{[]byte("never answered")}) }()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case err := <-sent:
		if err == nil || !strings.Contains(err.Error(), "no answer in time") {
			t.Errorf("Send to a server that says nothing: %v", err)
		}
	case <-limit.C:
		t.Error("Send waits for ever")
	}
}

// What the library would still do for a connection that nobody answers on, for 15 s, Close ends.
func TestClose_DoesNotWaitForAServerThatSaysNothing(t *testing.T) {
	s := startServer(t)
	way := providertest.NewRelay(t, s.address())
	a, _ := start(t, Config{URL: urlOf(way.Addr(), "postgres"), Prefix: "hung"})
	way.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Provider.Send(ctx, [][]byte{[]byte("never answered")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send with a deadline: %v; want context.DeadlineExceeded", err)
	}
	closed := make(chan struct{})
	go func() { defer close(closed); a.Close() }()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	select {
	case <-closed:
	case <-limit.C:
		t.Error("Close waits for the server")
	}
	way.Release()
	<-closed
}

// While the server is away Send says so at once, and keeps nothing for later.
func TestSend_FailsWhileTheServerIsAway(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "away"}
	a, b := pair(t, cfg, cfg)
	hears(t, a, b, "at first", false)
	s.kill()
	lost := []byte("while it is away")
	var err error
	if !eventually(func() bool {
		err = a.Provider.Send(t.Context(), [][]byte{lost})
		return err != nil && strings.Contains(err.Error(), "nobody listens there")
	}) {
		t.Errorf("Send while the server is away: %v", err)
	}
	s.start(t)
	hears(t, a, b, "afterwards", true)
	if b.Heard(lost, 0) {
		t.Error("what Send refused was kept and sent later")
	}
	if !eventually(func() bool { return b.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
}

// A long outage is one of several attempts, each of which fails.
func TestLink_ComesBackAfterManyAttempts(t *testing.T) {
	s := startServer(t)
	way := providertest.NewRelay(t, s.address())
	behind, err := pgx.ParseConfig(urlOf(way.Addr(), "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	var dials atomic.Int64
	dial := behind.DialFunc
	behind.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, address)
	}
	a, b := pair(t, Config{ConnConfig: behind, Prefix: "attempts"}, Config{URL: s.url("postgres"), Prefix: "attempts"})
	hears(t, b, a, "at first", false)
	way.Cut()
	before := dials.Load()
	if !eventually(func() bool { return dials.Load() > before+5 }) {
		t.Fatalf("only %d attempts to connect", dials.Load()-before)
	}
	if err := b.Provider.Send(t.Context(), [][]byte{[]byte("nobody hears it")}); err != nil {
		t.Errorf("Send of who is not cut off: %v", err)
	}
	way.Heal()
	hears(t, a, b, "back again", true)
	hears(t, b, a, "and hearing", true)
	if a.Reconnects() != 1 || b.Reconnects() != 0 {
		t.Errorf("Reconnected was called %d and %d times, want once for who was cut off", a.Reconnects(), b.Reconnects())
	}
}

// impatient makes a Provider that looks after its connection all the time.
func impatient(t *testing.T, cfg Config) (*providertest.Endpoint, *Provider) {
	t.Helper()
	p := newTest(t, cfg)
	p.times.quiet = 150 * time.Millisecond
	return providertest.Start(t, p), p
}

// A network that drops everything without a word is given up.
func TestLink_ASilentNetworkIsGivenUp(t *testing.T) {
	s := startServer(t)
	way := providertest.NewRelay(t, s.address())
	a, p := impatient(t, Config{URL: urlOf(way.Addr(), "postgres"), Prefix: "silent"})
	b, _ := start(t, Config{URL: s.url("postgres"), Prefix: "silent"})
	hears(t, b, a, "at first", false)
	way.Hold()
	if !eventually(func() bool { _, ok := p.keeper.Link(); return !ok }) {
		t.Fatal("the connection is still used")
	}
	way.Release()
	hears(t, b, a, "afterwards", true)
	if !eventually(func() bool { return a.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
}

// Who does not hear what he notifies any more, though the connection lives, connects anew; who does, stays.
func TestLink_WhoHearsItselfNoLongerConnectsAnew(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "deaf"}
	well, _ := impatient(t, cfg)
	deaf, p := impatient(t, cfg)
	providertest.Introduce(well, deaf)
	hears(t, well, deaf, "there", false)
	hears(t, deaf, well, "and back", false)
	l, _ := p.keeper.Link()
	l.packing.Lock()
	l.number++ // of a payload that comes back to nobody
	l.sent.Store(l.number)
	l.packing.Unlock()
	if !eventually(func() bool { return deaf.Reconnects() == 1 }) {
		t.Errorf("Reconnected was called %d times at who does not hear itself", deaf.Reconnects())
	}
	if well.Reconnects() != 0 {
		t.Error("who hears itself connected anew")
	}
	hears(t, deaf, well, "again", false)
}

// An instance that takes nothing is disconnected, since the server could not empty its queue before it does.
func TestLink_WhoTakesNothingIsDisconnected(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "stuck"}
	a, _ := start(t, cfg)
	p := newTest(t, cfg)
	p.times.stall = time.Second
	b := providertest.Start(t, p)
	l, _ := p.keeper.Link()
	pid := l.conn.PgConn().PID()
	gate := make(chan struct{})
	b.OnBatch(func(provider.Batch) { <-gate })
	frames := make([][]byte, 500)
	for i := range frames {
		frames[i] = make([]byte, inlineBytes)
	}
	gone := func() bool {
		if err := a.Provider.Send(t.Context(), frames); err != nil {
			t.Errorf("Send while another instance takes nothing: %v", err)
		}
		return ask[bool](t, s, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", int32(pid))
	}
	sent := 0
	for began := time.Now(); !gone() && time.Since(began) < patience; sent++ {
	}
	t.Logf("disconnected after %d MB", sent*len(frames)*inlineBytes/1e6)
	if !gone() {
		t.Errorf("who takes nothing is still connected")
	}
	close(gate)
	b.OnBatch(nil)
	hears(t, a, b, "afterwards", true)
	if !eventually(func() bool { return b.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
}
