package natsbus

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// A logText is what was logged. It is safe for concurrent use.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestProvider_CountsWhatItDrops(t *testing.T) {
	s := startServer(t, "")
	var log logText
	slow := providertest.NewEndpoint(t, newProvider(t, Config{URLs: []string{s.url()}, ReceiveBytes: 256 << 10}),
		provider.Env{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := slow.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	p := slow.Provider.(*Provider)
	gate := make(chan struct{})
	slow.OnBatch(func(provider.Batch) { <-gate })
	sender := providertest.Start(t, newProvider(t, Config{URLs: []string{s.url()}}))
	const sent = 100
	frame := make([]byte, 16<<10)
	for range sent {
		if err := sender.Provider.Send(t.Context(), [][]byte{frame}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "something is dropped", func() bool { return p.Dropped() > 0 })
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "receive buffer full, frames dropped") })
	slow.OnBatch(nil)
	close(gate)
	eventually(t, "every frame was delivered or dropped", func() bool { return uint64(len(slow.Frames()))+p.Dropped() == sent })
	dropped := p.Dropped()
	if slow.Close(); p.Dropped() != dropped {
		t.Errorf("%d frames dropped, %d after Close", dropped, p.Dropped())
	}
	t.Logf("%d frames delivered, %d dropped", len(slow.Frames()), p.Dropped())
}

// The server closes the connection of a process that stands still, and forgets what waited for it.
func TestProvider_TellsThatTheServerGaveItUp(t *testing.T) {
	s := startServer(t, "max_pending: 1048576\nwrite_deadline: \"1s\"")
	r := providertest.NewRelay(t, s.address)
	slow := providertest.Start(t, newProvider(t, Config{URLs: []string{"nats://" + r.Addr()}}))
	sender := providertest.Start(t, newProvider(t, Config{URLs: []string{s.url()}}))
	r.HoldAnswers()
	frames := [][]byte{make([]byte, 32<<10)}
	eventually(t, "the server finds it slow", func() bool {
		for range 64 {
			if err := sender.Provider.Send(t.Context(), frames); err != nil {
				t.Fatalf("Send while another stands still: %v", err)
			}
		}
		return strings.Contains(s.log(), "Slow Consumer")
	})
	r.Release()
	eventually(t, "it is told", func() bool { return slow.Reconnects() > 0 })
	if err := sender.Provider.Send(t.Context(), [][]byte{[]byte("after")}); err != nil {
		t.Fatal(err)
	}
	if !slow.Heard([]byte("after"), 10*time.Second) {
		t.Error("it hears nothing afterwards")
	}
}

func TestProvider_LeavesTheApplicationItsConnection(t *testing.T) {
	s := startServer(t, users(`{allow: ">", deny: "secret.>"}`, `">"`))
	heard := make(chan error, 10)
	conn, err := nats.Connect(s.url(), nats.UserInfo("app", password), nats.NoEcho(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { heard <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e := providertest.Start(t, newProvider(t, Config{Conn: conn}))
	if err := conn.Publish("secret.x", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-heard; !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("the application's handler heard %v", err)
	}
	if err := e.Provider.Send(t.Context(), [][]byte{[]byte("frame")}); err != nil {
		t.Errorf("Send after the application may not publish to a subject of its own: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if !conn.IsConnected() || conn.NumSubscriptions() != 0 {
		t.Errorf("after Close the connection is %v and has %d subscriptions", conn.Status(), conn.NumSubscriptions())
	}
	if newProvider(t, Config{Conn: conn}).Capabilities().Echoes {
		t.Error("Echoes is claimed on a connection without echo")
	}
}

func siteID(b byte) site.ID { return site.ID{15: b} }

// Brokers of one site with other sites accepted hear those as well.
func TestProvider_HearsTheSitesThatAreAccepted(t *testing.T) {
	s := startServer(t, "")
	cfg := Config{URLs: []string{s.url()}}
	mine, other, third := siteID(1), siteID(2), siteID(3)
	start := func(env provider.Env) *providertest.Endpoint {
		e := providertest.NewEndpoint(t, newProvider(t, cfg), env)
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		return e
	}
	here := start(provider.Env{Site: mine, Sites: []site.ID{mine, other}})
	there := start(provider.Env{Site: other, Sites: []site.ID{other}})
	stranger := start(provider.Env{Site: third, Sites: []site.ID{third}})
	providertest.Introduce(here, there, stranger)
	for _, e := range []*providertest.Endpoint{stranger, there} {
		if err := e.Provider.Send(t.Context(), [][]byte{[]byte(e.Env().Site.String())}); err != nil {
			t.Fatal(err)
		}
	}
	if !here.Heard([]byte(other.String()), 10*time.Second) {
		t.Error("a frame of a site that is accepted did not arrive")
	}
	if here.Heard([]byte(third.String()), 50*time.Millisecond) {
		t.Error("a frame of a site that is not accepted arrived")
	}
	// An answer to one reaches it under its own site.
	if err := here.Provider.(provider.Unicaster).SendTo(t.Context(), there.Stream(), [][]byte{[]byte("answer")}); err != nil {
		t.Fatal(err)
	}
	if !there.Heard([]byte("answer"), 10*time.Second) {
		t.Error("what was sent to one of another site did not arrive")
	}
}
