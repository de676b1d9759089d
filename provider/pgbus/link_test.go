package pgbus

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// Of equal payloads in a transaction PostgreSQL delivers one.
func TestSend_EqualFramesAllArrive(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "equal", MaxFrameBytes: 10_000}
	a, b := pair(t, cfg, cfg)
	same := bytes.Repeat([]byte("="), inlineBytes) // of which a payload holds one
	stored := []byte(large("the same in the table"))
	if err := a.Provider.Send(t.Context(), [][]byte{same, same, same, stored, stored, []byte("last")}); err != nil {
		t.Fatal(err)
	}
	if !b.Heard([]byte("last"), patience) {
		t.Fatal("the last frame is not heard")
	}
	var times, timesStored int
	for _, f := range b.Frames() {
		if bytes.Equal(f, same) {
			times++
		}
		if bytes.Equal(f, stored) {
			timesStored++
		}
	}
	if times != 3 || timesStored != 2 {
		t.Errorf("of 3 equal frames %d arrived, of 2 in the table %d", times, timesStored)
	}
}

// Frames keep their order, whichever way they take.
func TestSend_PayloadsAndRowsKeepTheirOrder(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "order", MaxFrameBytes: maxFrameBytes}
	a, b := pair(t, cfg, Config{URL: s.url("postgres"), Prefix: "order"})
	var sent [][]byte
	for i := range 200 { // of which more are in the table than are read at once
		f := bytes.Repeat([]byte{byte(i)}, 100)
		if i%2 == 1 {
			f = bytes.Repeat([]byte{byte(i)}, inlineBytes+1+i*50)
		}
		sent = append(sent, f)
	}
	sent = append(sent, bytes.Repeat([]byte("l"), maxFrameBytes))
	if err := a.Provider.Send(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	if !b.Heard(sent[len(sent)-1], patience) {
		t.Fatal("the last frame is not heard")
	}
	got := b.Frames()
	if len(got) != len(sent) {
		t.Fatalf("%d frames arrived, want %d", len(got), len(sent))
	}
	for i := range got {
		if !bytes.Equal(got[i], sent[i]) {
			t.Fatalf("frame %d is not the one that was sent as such", i)
		}
	}
}

// What is sent to a stream that an instance had before goes nowhere.
func TestSetMembers_TheNewStreamIsListenedToAndTheOldOneNoLonger(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "streams"}
	a, b := pair(t, cfg, cfg)
	old, next := b.Stream(), site.NewStreamID(77, 1)
	b.Provider.(provider.MemberWatcher).SetMembers(provider.Members{Self: next, Others: []site.Member{a.Member()}})
	both := b.Member()
	both.Stream = next
	a.Provider.(provider.MemberWatcher).SetMembers(provider.Members{Self: a.Stream(), Others: []site.Member{b.Member(), both}})
	hears(t, a, b, "whoever hears this has followed", false)
	u := a.Provider.(provider.Unicaster)
	for to, frame := range map[site.StreamID]string{old: "to the old stream", next: "to the new stream"} {
		if err := u.SendTo(t.Context(), to, [][]byte{[]byte(frame)}); err != nil {
			t.Errorf("SendTo %v: %v", to, err)
		}
	}
	if !b.Heard([]byte("to the new stream"), patience) {
		t.Error("what was sent to the new stream is not heard")
	}
	hears(t, a, b, "all is there that was sent", false)
	if b.Heard([]byte("to the old stream"), 0) {
		t.Error("what was sent to the old stream is heard")
	}
	if err := u.SendTo(t.Context(), site.NewStreamID(78, 1), [][]byte{[]byte("to nobody")}); !errors.Is(err, provider.ErrUnreachable) {
		t.Errorf("SendTo a stream of nobody: %v, want ErrUnreachable", err)
	}
}

// Instances of another site are heard once there is one, and reached.
func TestSetMembers_OtherSitesAreListenedTo(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "sites"}
	a, _ := start(t, cfg)
	other := site.ID([]byte("another  testing"))
	b := providertest.NewEndpoint(t, newTest(t, cfg), provider.Env{Site: other})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	providertest.Introduce(a, b)
	hears(t, b, a, "from the other site", true)
	hears(t, a, b, "and back", true)
	if err := a.Provider.(provider.Unicaster).SendTo(t.Context(), b.Stream(), [][]byte{[]byte("to one")}); err != nil {
		t.Error(err)
	}
	if !b.Heard([]byte("to one"), patience) {
		t.Error("what was sent to the instance of the other site is not heard")
	}
}

// A pool of the application's is used and left open, with what it does before it connects.
func TestPool_IsTheApplications(t *testing.T) {
	s := startServer(t)
	s.newUser(t, "app_pool")
	cfg, err := pgxpool.ParseConfig(s.url("app_pool"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { c.Password = secret; return nil }
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	mine := Config{Pool: pool, Prefix: "pool", MaxFrameBytes: 10_000, Table: "app_pool.frames"}
	s.do(t, "CREATE SCHEMA app_pool AUTHORIZATION app_pool")
	a, b := pair(t, mine, Config{URL: s.url("postgres"), Prefix: "pool", Table: "app_pool.frames"})
	hears(t, a, b, "in a payload", false)
	hears(t, a, b, large("in the table"), false)
	hears(t, b, a, "and back", false)
	providertest.CheckNoSecret(t, strings.TrimSuffix(secret, "/@:%"), mine, a.Provider)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("after Close the application's pool: %v", err)
	}
}

// Of several addresses the primary's is found, and after a failover that of the new one.
func TestFailover_TheNewPrimaryIsFound(t *testing.T) {
	primary := startServer(t)
	standby := beginStandby(t, primary)
	startFails(t, newTest(t, Config{URL: standby.url("postgres")}), "it is a standby, or only lets read; give the primary's address")

	both := standby.address() + "," + primary.address()
	cfg := Config{URL: urlOf(both, "postgres"), Prefix: "failover", MaxFrameBytes: 10_000}
	a, b := pair(t, cfg, cfg)
	hears(t, a, b, large("before"), false)
	primary.kill()
	if ok := ask[bool](t, standby, "SELECT pg_promote()"); !ok {
		t.Fatal("the standby was not promoted")
	}
	hears(t, a, b, "after", true)
	hears(t, b, a, large("after, in the table"), true)
	if !eventually(func() bool { return a.Reconnects() > 0 && b.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
}
