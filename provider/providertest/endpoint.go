package providertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// An Endpoint is a Provider with an environment that remembers what it is
// told. It is safe for concurrent use.
type Endpoint struct {
	Provider provider.Provider

	env  provider.Env
	logs *logs

	mu          sync.Mutex // guards the fields below; not held while calling out
	stream      site.StreamID
	addresses   []string // as the Provider advertised them after Start
	frames      [][]byte // everything delivered, in order of delivery, unless forget is set
	count       int      // how many frames were delivered
	reconnects  int
	away        error                // of Disconnected; nil: it was not called, or Reconnected was since
	buffer      int                  // what the Provider told of its receive buffer last; 0: nothing
	bufferLate  bool                 // it told of one for the first time when Start had returned
	forget      bool                 // frames are counted and given to tally only
	tally       func(frame []byte)   // called for every frame with mu held; may be nil
	hook        func(provider.Batch) // called for every batch with mu not held; nil calls Done
	running     map[string]int       // Deliver calls that run, by Batch.From
	overlapping map[string]bool      // addresses whose batches were delivered concurrently
	late        int                  // calls that began after Close had returned
	changed     chan struct{}        // closed and replaced whenever something above changes

	begun  atomic.Bool // set when Start has succeeded
	closed atomic.Bool // set when Close has returned
}

// NewEndpoint returns an Endpoint for p, which is not started yet. env is what
// Start will be given; its Deliver, Disconnected, Reconnected, ReceiveBuffer and, if they are unset, Site, Sites,
// Route, Keys and Logger are filled in. Logger writes to the output of tb.
func NewEndpoint(tb testing.TB, p provider.Provider, env provider.Env) *Endpoint {
	e := &Endpoint{
		Provider:    p,
		stream:      newStream(),
		running:     make(map[string]int),
		overlapping: make(map[string]bool),
		changed:     make(chan struct{}),
		logs:        &logs{to: tb.Output()},
	}
	tb.Cleanup(e.logs.stop)
	if env.Site == (site.ID{}) {
		env.Site = testSite()
	}
	if env.Sites == nil {
		env.Sites = []site.ID{env.Site}
	}
	if !env.Route.IsValid() {
		env.Route = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if env.Keys == nil {
		env.Keys = NewKeys(env.Site, 1, []byte("the same in every endpoint"))
	}
	if env.Logger == nil {
		env.Logger = slog.New(slog.NewTextHandler(e.logs, &slog.HandlerOptions{Level: slog.LevelDebug})).
			With("endpoint", e.stream.String())
	}
	env.Deliver, env.Disconnected, env.Reconnected, env.ReceiveBuffer = e.deliver, e.disconnected, e.reconnected, e.receiveBuffer
	e.env = env
	return e
}

// Start makes an Endpoint for p with an environment of its own, starts it, and closes it
// when the test ends. A failure is fatal.
func Start(tb testing.TB, p provider.Provider) *Endpoint {
	tb.Helper()
	e := NewEndpoint(tb, p, provider.Env{})
	if err := e.Start(tb.Context()); err != nil {
		tb.Fatalf("start %q: %v", p.Name(), err)
	}
	tb.Cleanup(func() { e.Close() })
	return e
}

// testSite is the site of endpoints that name none.
func testSite() site.ID { return site.ID([]byte("carillon testing")) }

// newStream returns a stream with a small epoch, which is easy to read in logs.
func newStream() site.StreamID {
	var b [10]byte
	rand.Read(b[:])
	return site.NewStreamID(1+uint64(binary.BigEndian.Uint16(b[8:])), binary.BigEndian.Uint64(b[:8]))
}

// Start starts the Provider and asks for its addresses.
func (e *Endpoint) Start(ctx context.Context) error {
	if err := e.Provider.Start(ctx, e.env); err != nil {
		return err
	}
	e.begun.Store(true)
	if a, ok := e.Provider.(provider.Advertiser); ok {
		addresses := a.Addresses()
		e.mu.Lock()
		e.addresses = slices.Clone(addresses)
		e.mu.Unlock()
	}
	return nil
}

// Close closes the Provider. What the Provider calls afterwards is remembered as
// a fault.
func (e *Endpoint) Close() error {
	err := e.Provider.Close()
	e.closed.Store(true)
	return err
}

func (e *Endpoint) started() bool { return e.begun.Load() }

// Env returns what Start gives to the Provider.
func (e *Endpoint) Env() provider.Env { return e.env }

// Stream returns the stream of this instance.
func (e *Endpoint) Stream() site.StreamID {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stream
}

// Member returns the row of this instance in the site database.
func (e *Endpoint) Member() site.Member {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := site.Member{
		Site:        e.env.Site,
		Stream:      e.stream,
		Server:      "server-" + e.stream.String(),
		Application: "providertest",
		Role:        site.RolePublish | site.RoleSubscribe,
		State:       site.MemberOpen,
	}
	if len(e.addresses) > 0 {
		m.Addresses = map[string][]string{e.Provider.Name(): slices.Clone(e.addresses)}
	}
	return m
}

// Introduce tells each endpoint that watches members of all the others, as the
// Broker does when their rows are committed.
func Introduce(endpoints ...*Endpoint) {
	for _, e := range endpoints {
		w, ok := e.Provider.(provider.MemberWatcher)
		if !ok {
			continue
		}
		m := provider.Members{Self: e.Stream()}
		for _, other := range endpoints {
			if other != e {
				m.Others = append(m.Others, other.Member())
			}
		}
		w.SetMembers(m)
	}
}

// Frames returns everything that was delivered, in the order in which it was.
func (e *Endpoint) Frames() [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.frames)
}

// Reconnects returns how often the Provider called Reconnected.
func (e *Endpoint) Reconnects() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reconnects
}

// Heard reports whether frame is delivered within patience, or was before.
func (e *Endpoint) Heard(frame []byte, patience time.Duration) bool {
	return e.wait(patience, func() bool {
		return slices.ContainsFunc(e.frames, func(f []byte) bool { return bytes.Equal(f, frame) })
	})
}

// OnBatch makes fn take what is delivered from now on, after it was remembered. fn
// calls Done. Nil restores the default, which calls Done at once.
func (e *Endpoint) OnBatch(fn func(provider.Batch)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hook = fn
}

// wait returns true when cond does, and false when it did not within d. cond is called
// with e.mu held, after every change.
func (e *Endpoint) wait(d time.Duration, cond func() bool) bool {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	for {
		e.mu.Lock()
		ok, changed := cond(), e.changed
		e.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timeout.C:
			return false
		}
	}
}

// changedLocked wakes everybody in wait. e.mu is held.
func (e *Endpoint) changedLocked() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *Endpoint) deliver(b provider.Batch) {
	e.mu.Lock()
	if e.closed.Load() {
		e.late++
	}
	// Without an address nobody can tell which connection it was.
	if b.From != "" {
		e.running[b.From]++
		if e.running[b.From] > 1 {
			e.overlapping[b.From] = true
		}
	}
	e.count += len(b.Frames)
	for _, f := range b.Frames {
		if e.tally != nil {
			e.tally(f)
		}
		if !e.forget {
			e.frames = append(e.frames, f)
		}
	}
	hook := e.hook
	e.changedLocked()
	e.mu.Unlock()

	switch {
	case hook != nil:
		hook(b)
	case b.Done != nil:
		b.Done()
	}

	if b.From != "" {
		e.mu.Lock()
		if e.running[b.From]--; e.running[b.From] == 0 {
			delete(e.running, b.From)
		}
		e.mu.Unlock()
	}
}

func (e *Endpoint) disconnected(why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Load() {
		e.late++
	}
	e.away = why
	e.changedLocked()
}

func (e *Endpoint) reconnected() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Load() {
		e.late++
	}
	e.away = nil
	e.reconnects++
	e.changedLocked()
}

func (e *Endpoint) receiveBuffer(bytes int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bufferLate = e.bufferLate || e.buffer == 0 && e.begun.Load()
	e.buffer = bytes
}

// logs writes to a test's output until the test ends, because writing later
// would panic.
type logs struct {
	mu      sync.Mutex
	to      io.Writer
	stopped bool
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return len(b), nil
	}
	return l.to.Write(b)
}

func (l *logs) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
}
