package carillon_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// bubble runs fn with a fake clock. A goroutine that is left over at its end fails the test.
func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

// note is the parameter of the events of these tests.
type note struct {
	N    int
	Text string
}

func define(opts ...carillon.DefineOption) *carillon.Definition[note] {
	return carillon.Define[note](carillon.NewID(), "note", opts...)
}

// raise raises notes with N from first to last.
func raise(t *testing.T, d *carillon.Definition[note], b *carillon.Broker, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		if err := d.Raise(t.Context(), b, carillon.ID{}, note{N: n}); err != nil {
			t.Fatalf("raise %d: %v", n, err)
		}
	}
}

// numbers returns the N of every note raised.
func numbers(raised []carillon.Raised[note]) []int {
	ns := make([]int, len(raised))
	for i, r := range raised {
		ns[i] = r.Parameter.N
	}
	return ns
}

func span(first, last int) []int {
	var ns []int
	for n := first; n <= last; n++ {
		ns = append(ns, n)
	}
	return ns
}

// local opens a Broker whose events stay in this process.
func local(t testing.TB, change ...func(*carillon.Config)) *carillon.Broker {
	t.Helper()
	cfg := carillon.Config{Application: "test"}
	for _, fn := range change {
		fn(&cfg)
	}
	b, err := carillon.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	b.Enable()
	return b
}

// config returns a configuration for a Broker on db and bus.
func config(db site.Database, p ...provider.Provider) carillon.Config {
	return carillon.Config{Application: "test", Server: "here", Database: db, Providers: p}
}

// mustOpen opens a Broker that is closed when the test ends.
func mustOpen(t testing.TB, cfg carillon.Config) *carillon.Broker {
	t.Helper()
	b, err := carillon.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// site2 is a database and a network.
func site2() (*memsite.Database, *membus.Bus) { return memsite.New(nil), membus.New() }

// logBook is a Logger's memory.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// lines returns the lines that contain all of the texts.
func (l *logBook) lines(texts ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.buf.String()) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// wrap is a Provider that a test looks into or interferes with. A nil function does what the
// Provider inside does.
type wrap struct {
	*membus.Provider
	caps  *provider.Capabilities
	start func(ctx context.Context, env provider.Env) error
	send  func(ctx context.Context, frames [][]byte) error // also instead of SendTo, if sendTo is nil

	sendTo func(ctx context.Context, to site.StreamID, frames [][]byte) error
	close  func()
}

func (w *wrap) Capabilities() provider.Capabilities {
	if w.caps != nil {
		return *w.caps
	}
	caps := w.Provider.Capabilities()
	caps.Prompt = caps.Prompt && w.send == nil && w.sendTo == nil // what stands in for them may wait
	return caps
}

func (w *wrap) Start(ctx context.Context, env provider.Env) error {
	if w.start != nil {
		return w.start(ctx, env)
	}
	return w.Provider.Start(ctx, env)
}

func (w *wrap) Send(ctx context.Context, frames [][]byte) error {
	if w.send != nil {
		return w.send(ctx, frames)
	}
	return w.Provider.Send(ctx, frames)
}

func (w *wrap) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	switch {
	case w.sendTo != nil:
		return w.sendTo(ctx, to, frames)
	case w.send != nil:
		return w.send(ctx, frames)
	}
	return w.Provider.SendTo(ctx, to, frames)
}

func (w *wrap) Close() error {
	if w.close != nil {
		w.close()
	}
	return w.Provider.Close()
}

// bounded returns a context that ends after d.
func bounded(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

var errTest = errors.New("made up by the test")

// wantErr fails the test unless err is all of the errors given.
func wantErr(t *testing.T, what string, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("%s: error %q, want it to be %q", what, err, w)
		}
	}
}

// hookedDB is a database that a test looks into or interferes with: before is called with the
// name of each method, and its error is the method's.
type hookedDB struct {
	site.Database
	before func(ctx context.Context, call string) error
}

func (d *hookedDB) EnsureSite(ctx context.Context, name string) (site.Site, error) {
	if err := d.before(ctx, "EnsureSite"); err != nil {
		return site.Site{}, err
	}
	return d.Database.EnsureSite(ctx, name)
}

func (d *hookedDB) Sites(ctx context.Context) ([]site.Site, error) {
	if err := d.before(ctx, "Sites"); err != nil {
		return nil, err
	}
	return d.Database.Sites(ctx)
}

func (d *hookedDB) NextEpoch(ctx context.Context) (uint64, error) {
	if err := d.before(ctx, "NextEpoch"); err != nil {
		return 0, err
	}
	return d.Database.NextEpoch(ctx)
}

func (d *hookedDB) Join(ctx context.Context, m site.Member, lease time.Duration) error {
	if err := d.before(ctx, "Join"); err != nil {
		return err
	}
	return d.Database.Join(ctx, m, lease)
}

func (d *hookedDB) Snapshot(ctx context.Context, self site.StreamID, sites []site.ID) (site.Snapshot, error) {
	if err := d.before(ctx, "Snapshot"); err != nil {
		return site.Snapshot{}, err
	}
	return d.Database.Snapshot(ctx, self, sites)
}

func (d *hookedDB) Changes(ctx context.Context, since site.Revision) (site.Snapshot, error) {
	if err := d.before(ctx, "Changes"); err != nil {
		return site.Snapshot{}, err
	}
	return d.Database.Changes(ctx, since)
}

func (d *hookedDB) Renew(ctx context.Context, self site.StreamID, r site.Renewal) error {
	if err := d.before(ctx, "Renew"); err != nil {
		return err
	}
	return d.Database.Renew(ctx, self, r)
}

func (d *hookedDB) Leave(ctx context.Context, self site.StreamID, final site.Mark) error {
	if err := d.before(ctx, "Leave"); err != nil {
		return err
	}
	return d.Database.Leave(ctx, self, final)
}

func (d *hookedDB) Reap(ctx context.Context, grace time.Duration) ([]site.StreamID, error) {
	if err := d.before(ctx, "Reap"); err != nil {
		return nil, err
	}
	return d.Database.Reap(ctx, grace)
}

func (d *hookedDB) ClientAddr(ctx context.Context) (netip.Addr, error) {
	if err := d.before(ctx, "ClientAddr"); err != nil {
		return netip.Addr{}, err
	}
	return d.Database.ClientAddr(ctx)
}

// openRows returns the member rows of db that are open.
func openRows(t testing.TB, db site.Database) []site.Member {
	t.Helper()
	snap, err := db.Changes(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(snap.Members, func(m site.Member) bool { return m.State != site.MemberOpen })
}
