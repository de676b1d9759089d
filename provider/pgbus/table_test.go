package pgbus

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// inSchema makes a schema for a test, and returns a Config with a table in it.
func inSchema(t *testing.T, s *server, name string) Config {
	t.Helper()
	s.do(t, "CREATE SCHEMA "+name)
	t.Cleanup(func() { s.do(t, "DROP SCHEMA "+name+" CASCADE") })
	return Config{URL: s.url("postgres"), Prefix: name, Table: name + ".frames", MaxFrameBytes: 10_000}
}

// All instances of a site that is new may start at once.
func TestTable_IsMadeOnceByMany(t *testing.T) {
	s := startServer(t)
	cfg := inSchema(t, s, "many")
	const n = 12
	var eps []*providertest.Endpoint
	for range n {
		eps = append(eps, providertest.NewEndpoint(t, newTest(t, cfg), provider.Env{}))
	}
	var starting sync.WaitGroup
	for _, e := range eps {
		starting.Go(func() {
			if err := e.Start(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	hears(t, eps[0], eps[n-1], large("in the table"), false)
	if kind := ask[string](t, s, "SELECT relpersistence::text FROM pg_class WHERE oid = 'many.frames'::regclass"); kind != "u" {
		t.Errorf("the table is of kind %q, want u, unlogged", kind)
	}
	if n := ask[int](t, s, "SELECT count(*) FROM pg_index WHERE indrelid = 'many.frames'::regclass"); n != 2 {
		t.Errorf("the table has %d indexes, want 2", n)
	}
}

// Old rows go, whoever left them; young ones stay.
func TestTable_RowsAreRemovedWhenTheyAreOld(t *testing.T) {
	s := startServer(t)
	cfg := inSchema(t, s, "ages")
	a, b := pair(t, cfg, cfg)
	hears(t, a, b, large("young"), false)
	l, _ := a.Provider.(*Provider).keeper.Link()
	s.do(t, fmt.Sprintf("INSERT INTO ages.frames SELECT 7, n, now() - interval '121 s', 'old' FROM generate_series(1, %d) n", 2*sweepBatch+50),
		"INSERT INTO ages.frames SELECT 8, 1, now() - interval '100 s', 'not old yet'")
	count := func() int { return ask[int](t, s, "SELECT count(*) FROM ages.frames") }
	if err := l.table.sweep(t.Context()); err != nil || count() != 2 {
		t.Errorf("after a sweep, which ended with %v, %d rows are left; want the 2 that are not old", err, count())
	}
	p := newTest(t, cfg)
	p.times.sweep = 20 * time.Millisecond
	providertest.Start(t, p)
	s.do(t, "UPDATE ages.frames SET made = now() - interval '121 s'")
	if !eventually(func() bool { return count() == 0 }) {
		t.Errorf("%d rows are left, want none: all are old now", count())
	}
}

// A table that somebody removes is made anew.
func TestTable_IsMadeAnewWhenItIsGone(t *testing.T) {
	s := startServer(t)
	cfg := inSchema(t, s, "gone")
	a, b := pair(t, cfg, cfg)
	hears(t, a, b, large("at first"), false)
	s.do(t, "DROP TABLE gone.frames")
	hears(t, a, b, large("anew"), true)
}

// What is announced and not there is counted, and keeps nothing else from arriving. What no instance stores is not read.
func TestTable_MissingRowsAreCounted(t *testing.T) {
	s := startServer(t)
	cfg := inSchema(t, s, "missing")
	e, p := start(t, cfg)
	stranger := tag{9}
	payload := func(number uint32, items func(w *payloadWriter)) string {
		w := payloadWriter{next: func() head { return head{stranger, number} }}
		w.begin()
		items(&w)
		w.flush()
		return w.payloads[0]
	}
	s.do(t, fmt.Sprintf("INSERT INTO missing.frames (sender, number, frame) VALUES (%d, 2, 'stored'), (%d, 3, decode(repeat('00', %d), 'hex'))", stranger.sender(), stranger.sender(), maxFrameBytes+1))
	s.do(t, fmt.Sprintf("SELECT pg_notify('%s', '%s')", p.cfg.toAll(e.Env().Site), payload(1, func(w *payloadWriter) {
		w.row(1)
		w.frame([]byte("before"))
		w.row(2)
		w.row(3)
		w.frame([]byte("after"))
	})))
	if !e.Heard([]byte("after"), patience) {
		t.Fatal("what is beside the missing rows is not heard")
	}
	if got := e.Frames(); len(got) != 3 || !bytes.Equal(got[1], []byte("stored")) {
		t.Errorf("frames %q, want the two of the payload and the one that is stored and not too large", got)
	}
	if p.Lost() != 2 {
		t.Errorf("Lost is %d, want 2: one row that is not there and one that is too large", p.Lost())
	}
}
