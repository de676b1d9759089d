package pgbus

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// Whatever is wrong, the operator reads one line that says what to do, without the password.
func TestStart_SaysWhatToDo(t *testing.T) {
	s := startServer(t)
	app := s.newUser(t, "app_start")
	wrong := url.UserPassword("app_start", "wrong"+secret).String()
	banned := s.newUser(t, "app_banned")
	s.do(t, "CREATE DATABASE closed", "REVOKE CONNECT ON DATABASE closed FROM PUBLIC", "CREATE SCHEMA foreigners", "GRANT USAGE ON SCHEMA foreigners TO app_start",
		"ALTER ROLE app_banned CONNECTION LIMIT 0", "CREATE TABLE foreigners.seen (sender bigint, number bigint, made timestamptz, frame bytea)", "GRANT SELECT ON foreigners.seen TO app_start")
	t.Cleanup(func() { s.do(t, "DROP DATABASE closed", "DROP SCHEMA foreigners CASCADE") })
	another, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { another.Close() })
	go func() {
		for {
			c, err := another.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	}()
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; empty: it starts
	}{
		{"the rights that every user has suffice", Config{URL: s.url(app)}, ""},
		{"wrong password", Config{URL: s.url(wrong)}, `the user "app_start" is not let in (password authentication failed for user "app_start"); correct user and password`},
		{"unknown user", Config{URL: s.url(url.UserPassword("app_nobody", secret).String())}, `the user "app_nobody" is not let in`},
		{"no password", Config{URL: s.url("app_start")}, "correct user and password"},
		{"unknown database", Config{URL: strings.Replace(s.url(app), "/postgres?", "/other?", 1)}, `database "other" does not exist; correct the database`},
		{"no right to the database", Config{URL: strings.Replace(s.url(app), "/postgres?", "/closed?", 1)}, `GRANT CONNECT ON DATABASE "closed" TO "app_start"`},
		{"no connection left", Config{URL: s.url(banned)}, "raise max_connections, or the limit of the role"},
		{"unknown host", Config{URL: urlOf("host.invalid", app)}, `the host "host.invalid" is not known`},
		{"nobody listens", Config{URL: urlOf("127.0.0.1:1", app)}, "nobody listens there; start the server"},
		{"the first of several hosts", Config{URL: urlOf("127.0.0.1:1,"+s.address(), app)}, ""},
		{"none of several hosts", Config{URL: urlOf("127.0.0.1:1,host.invalid:2", app)}, "another address: nobody listens there"},
		{"a server without TLS", Config{URL: strings.Replace(s.url(app), "sslmode=disable", "sslmode=require", 1)}, "it does not speak TLS"},
		{"another server", Config{URL: urlOf(another.Addr().String(), app)}, "what answers there is no PostgreSQL"},
		{"no right to make the table", Config{URL: s.url(app), Table: "foreigners.frames", MaxFrameBytes: inlineBytes + 1}, `CREATE UNLOGGED TABLE IF NOT EXISTS "foreigners"."frames"`},
		{"no schema for the table", Config{URL: s.url(app), Table: "missing.frames", MaxFrameBytes: inlineBytes + 1}, `schema "missing" does not exist; correct Table`},
		{"no right to the table", Config{URL: s.url(app), Table: "foreigners.seen", MaxFrameBytes: inlineBytes + 1}, `lacks a right to "foreigners"."seen" (INSERT, DELETE); GRANT INSERT, SELECT, DELETE ON "foreigners"."seen" TO "app_start"`},
		{"a table that is not wanted matters not", Config{URL: s.url(app), Table: "foreigners.frames"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == "" {
				start(t, tt.cfg)
				return
			}
			startFails(t, newTest(t, tt.cfg), tt.want)
		})
	}
}

// What an operator is told to run is enough.
func TestStart_TheTableCanBeMadeByHand(t *testing.T) {
	s := startServer(t)
	app := s.newUser(t, "app_hand")
	s.do(t, "CREATE SCHEMA byhand", "GRANT USAGE ON SCHEMA byhand TO app_hand")
	t.Cleanup(func() { s.do(t, "DROP SCHEMA byhand CASCADE") })
	cfg := Config{URL: s.url(app), Table: "byhand.frames", MaxFrameBytes: 10_000, Prefix: "byhand"}
	p := newTest(t, cfg)
	err := p.Start(t.Context(), providertest.NewEndpoint(t, p, provider.Env{}).Env())
	if err == nil {
		t.Fatal("it started without a table")
	}
	_, statements, ok := strings.Cut(err.Error(), "run: ")
	if !ok {
		t.Fatalf("error %v, want one that says what to run", err)
	}
	s.do(t, statements)
	a, b := pair(t, cfg, cfg)
	hears(t, a, b, large("in the table"), false)
}

// A pooler that shares connections among transactions loses what is listened to. Start finds out, in whichever way
// statements are run.
func TestStart_RefusesAPoolerThatSharesConnections(t *testing.T) {
	s := startServer(t)
	const want = "PgBouncer with pool_mode=transaction"
	shares := beginBouncer(t, s, "transaction")
	for _, mode := range []string{"cache_statement", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			p := newTest(t, Config{URL: shares.url("postgres") + "&default_query_exec_mode=" + mode})
			p.times.hear = 300 * time.Millisecond
			startFails(t, p, want)
		})
	}
	t.Run("listening past it is fine", func(t *testing.T) {
		pool, err := pgxpool.New(t.Context(), shares.url("postgres")+"&default_query_exec_mode=simple_protocol")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		cfg := Config{URL: s.url("postgres"), Pool: pool, MaxFrameBytes: 10_000, Prefix: "past"}
		a, b := pair(t, cfg, cfg)
		hears(t, a, b, "in a payload", false)
		hears(t, a, b, large("in the table"), false)
	})
	t.Run("session mode is fine", func(t *testing.T) {
		cfg := Config{URL: beginBouncer(t, s, "session").url("postgres"), MaxFrameBytes: 10_000, Prefix: "session"}
		a, b := pair(t, cfg, cfg)
		hears(t, a, b, "in a payload", false)
		hears(t, b, a, large("in the table"), false)
	})
}

// A pool that leads elsewhere is not heard where the instance listens.
func TestStart_RefusesAPoolOfAnotherDatabase(t *testing.T) {
	s := startServer(t)
	s.do(t, "CREATE DATABASE elsewhere")
	pool, err := pgxpool.New(t.Context(), strings.Replace(s.url("postgres"), "/postgres?", "/elsewhere?", 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close(); s.do(t, "DROP DATABASE elsewhere") })
	p := newTest(t, Config{URL: s.url("postgres"), Pool: pool})
	p.times.hear = 300 * time.Millisecond
	startFails(t, p, "as Pool leads to another database")
}

// A right that is taken away while the instance runs shows in Send, and is enough again when it is given back.
func TestSend_RightsRevokedAndGranted(t *testing.T) {
	s := startServer(t)
	app, other := s.newUser(t, "app_rights"), s.newUser(t, "app_reader")
	s.do(t, "CREATE SCHEMA rights")
	t.Cleanup(func() { s.do(t, "DROP SCHEMA rights CASCADE") })
	s.do(t, "GRANT USAGE, CREATE ON SCHEMA rights TO app_rights", "GRANT USAGE ON SCHEMA rights TO app_reader")
	cfg := Config{URL: s.url(app), Table: "rights.frames", MaxFrameBytes: 10_000, Prefix: "rights"}
	a, _ := start(t, cfg)
	cfg.URL, cfg.MaxFrameBytes = s.url(other), 0
	b, reader := start(t, cfg)
	providertest.Introduce(a, b)

	hears(t, a, b, "in a payload", false)
	if err := a.Provider.Send(t.Context(), [][]byte{[]byte(large("unreadable")), []byte("beside it")}); err != nil {
		t.Fatal(err)
	}
	if !b.Heard([]byte("beside it"), patience) || reader.Lost() != 1 {
		t.Errorf("who may not read the table lost %d frames, want 1, and what is in the payload arrives", reader.Lost())
	}
	s.do(t, "GRANT SELECT ON rights.frames TO app_reader")
	hears(t, a, b, large("readable"), false)

	s.do(t, "REVOKE INSERT ON rights.frames FROM app_rights")
	err := a.Provider.Send(t.Context(), [][]byte{[]byte(large("without the right"))})
	if err == nil || !strings.Contains(err.Error(), `GRANT INSERT, SELECT, DELETE ON "rights"."frames" TO "app_rights"`) {
		t.Errorf("Send without the right to write: %v", err)
	}
	if errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge) {
		t.Errorf("Send without the right to write: %v, which is final", err)
	}
	hears(t, a, b, "small ones need no right", false)
	s.do(t, "GRANT INSERT ON rights.frames TO app_rights")
	hears(t, a, b, large("with it again"), false)

	// Who may not connect keeps his connections, until they end.
	before := a.Reconnects()
	s.do(t, "ALTER ROLE app_rights NOLOGIN", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app_rights'")
	if !eventually(func() bool {
		err = a.Provider.Send(t.Context(), [][]byte{[]byte("locked out")})
		return err != nil && strings.Contains(err.Error(), "is not let in")
	}) {
		t.Errorf("Send of who is locked out: %v", err)
	}
	s.do(t, "ALTER ROLE app_rights LOGIN")
	hears(t, a, b, "let in again", true)
	if !eventually(func() bool { return a.Reconnects() > before }) {
		t.Error("Reconnected was not called")
	}
}

// What the server has too little of shows in Send, which works again when there is enough. The queue of notifications would take 8 GB to
// fill; a function of the same name, first in the path, answers as a server does whose queue is full.
func TestSend_QuotaErrors(t *testing.T) {
	s := startServer(t)
	app := s.newUser(t, "app_quota")
	s.do(t, "CREATE SCHEMA quota", "GRANT USAGE, CREATE ON SCHEMA quota TO app_quota")
	t.Cleanup(func() { s.do(t, "DROP SCHEMA quota CASCADE") })
	a, b := pair(t, Config{URL: s.url(app) + "&search_path=quota,pg_catalog&default_query_exec_mode=exec", Prefix: "quota"}, Config{URL: s.url(app), Prefix: "quota"})
	hears(t, a, b, "at first", false)

	s.do(t, `CREATE FUNCTION quota.pg_notify(text, text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
		BEGIN RAISE EXCEPTION 'too many notifications in the NOTIFY queue' USING ERRCODE = 'program_limit_exceeded'; END $$`)
	err := a.Provider.Send(t.Context(), [][]byte{[]byte("the queue is full")})
	if err == nil || !strings.Contains(err.Error(), "its queue of notifications is full") || !strings.Contains(err.Error(), "idle in transaction") {
		t.Errorf("Send while the queue is full: %v", err)
	}
	if errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge) {
		t.Errorf("Send while the queue is full: %v, which is final", err)
	}
	s.do(t, "DROP FUNCTION quota.pg_notify(text, text)")
	hears(t, a, b, "when there is room", false)

	s.do(t, "ALTER ROLE app_quota CONNECTION LIMIT 0", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app_quota'")
	if !eventually(func() bool {
		err = a.Provider.Send(t.Context(), [][]byte{[]byte("no connection left")})
		return err != nil && strings.Contains(err.Error(), "has no room for another connection")
	}) {
		t.Errorf("Send while the role may have no connection: %v", err)
	}
	s.do(t, "ALTER ROLE app_quota CONNECTION LIMIT -1")
	hears(t, a, b, "when there is one", true)
}

func TestExplain_AnswersThatNoTestServerGives(t *testing.T) {
	s := settings{server: "h:5432", user: "u", database: "d", table: `"t"`}
	for _, tt := range []struct{ code, message, want string }{
		{"57P03", "the database system is starting up", "wait until it is up"},
		{"53100", "could not extend file \"base/1\": No space left on device", "make room on its disk"},
		{"57014", "canceling statement due to statement timeout", "raise statement_timeout"},
		{"57P05", "terminating connection due to idle-session timeout", "idle_session_timeout"},
		{"25006", "cannot execute NOTIFY during recovery", "it is a standby"},
		{"XX000", "something new\nin two lines", "something new (SQLSTATE XX000); see the log"},
	} {
		line := s.explain(notifying, &pgconn.PgError{Code: tt.code, Message: tt.message}).Error()
		if !strings.Contains(line, tt.want) || strings.Contains(line, "\n") {
			t.Errorf("%s is explained as %q, want one line with %q", tt.code, line, tt.want)
		}
	}
}
