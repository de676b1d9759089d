package pgbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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
	u := a.Provider.(provider.Unicaster)
	old, next := b.Stream(), site.NewStreamID(77, 1)
	if !eventually(func() bool {
		if err := u.SendTo(t.Context(), old, [][]byte{[]byte("to the first stream")}); err != nil {
			t.Fatal(err)
		}
		return b.Heard([]byte("to the first stream"), 10*time.Millisecond)
	}) {
		t.Fatal("what was sent to the first stream is not heard")
	}
	b.Provider.(provider.MemberWatcher).SetMembers(provider.Members{Self: next, Others: []site.Member{a.Member()}})
	both := b.Member()
	both.Stream = next
	a.Provider.(provider.MemberWatcher).SetMembers(provider.Members{Self: a.Stream(), Others: []site.Member{b.Member(), both}})
	hears(t, a, b, "whoever hears this has followed", false)
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

// Where nothing is heard, nothing but SetMembers itself makes an instance listen to its channel.
func TestSetMembers_IsFollowedWhereNothingIsHeard(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "lonely"}
	a, _ := start(t, cfg)
	p := newTest(t, cfg)
	p.times.quiet = time.Hour
	b := providertest.Start(t, p)
	hears(t, a, b, "so that it waits for more", false)
	providertest.Introduce(a, b)
	if !eventually(func() bool {
		if err := a.Provider.(provider.Unicaster).SendTo(t.Context(), b.Stream(), [][]byte{[]byte("to one")}); err != nil {
			t.Fatal(err)
		}
		return b.Heard([]byte("to one"), 10*time.Millisecond)
	}) {
		t.Error("what was sent to the instance is not heard")
	}
}

// Whoever hears a frame knows more than before, and so may the one who sent it: what was said by SetMembers before it arrives is followed before it is delivered.
func TestSetMembers_IsFollowedBeforeTheNextDelivery(t *testing.T) {
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: "next"}
	a, _ := start(t, cfg)
	p := newTest(t, cfg)
	p.times.quiet = time.Hour
	b := providertest.Start(t, p)
	providertest.Introduce(a, b)
	hears(t, a, b, "at first", false)
	// As when SetMembers comes in the moment in which the wait has ended with a notification.
	next := b.Member()
	next.Stream = site.NewStreamID(79, 1)
	p.members.Store(&members{self: next.Stream})
	p.changed.mu.Lock()
	p.changed.pending = true
	p.changed.mu.Unlock()
	a.Provider.(provider.MemberWatcher).SetMembers(provider.Members{Self: a.Stream(), Others: []site.Member{next}})
	hears(t, a, b, "then", false)
	if err := a.Provider.(provider.Unicaster).SendTo(t.Context(), next.Stream, [][]byte{[]byte("to one")}); err != nil {
		t.Fatal(err)
	}
	if !b.Heard([]byte("to one"), patience) {
		t.Error("what was sent to the new stream, after something was heard, is not heard")
	}
}

// What is committed after the link was replaced, through which it was sent, is still an echo.
func TestEcho_OfTheLinkBeforeIsFiltered(t *testing.T) {
	s := startServer(t)
	cfg := inSchema(t, s, "echo")
	a, p := start(t, cfg)
	b, _ := start(t, cfg)
	hears(t, a, b, large("at first"), false)
	locks := s.connect(t)
	defer locks.Close(context.Background())
	if _, err := locks.Exec(t.Context(), "BEGIN; LOCK TABLE echo.frames IN EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	late := []byte(large("committed late"))
	sending := make(chan error, 1)
	go func() { sending <- a.Provider.Send(context.Background(), [][]byte{late}) }()
	if !eventually(func() bool { return ask[bool](t, s, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)") }) {
		t.Fatal("nobody waits for the table")
	}
	l, _ := p.keeper.Link()
	s.do(t, fmt.Sprintf("SELECT pg_terminate_backend(%d)", l.conn.PgConn().PID()))
	if !eventually(func() bool { return a.Reconnects() > 0 }) {
		t.Fatal("Reconnected was not called")
	}
	if err := <-sending; err == nil {
		t.Error("Send succeeded, and nothing was committed")
	}
	if _, err := locks.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if !b.Heard(late, patience) {
		t.Fatal("what was committed late is not heard by the other instance")
	}
	hears(t, b, a, "all is there that was sent", false)
	if a.Heard(late, 0) {
		t.Error("an instance hears itself")
	}
}

func TestStart_TellsHowMuchMayBeOnItsWay(t *testing.T) {
	s := startServer(t)
	p := newTest(t, Config{URL: s.url("postgres"), Prefix: "buffer"})
	env := providertest.NewEndpoint(t, p, provider.Env{}).Env()
	told := 0
	env.ReceiveBuffer = func(bytes int) { told = bytes }
	if err := p.Start(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	if told != receiveBufferBytes {
		t.Errorf("when Start returned, ReceiveBuffer had been told %d, want %d", told, receiveBufferBytes)
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
