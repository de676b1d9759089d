package drivers

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// wantError fails unless err wraps want, if that is not nil, and says all of texts.
func wantError(t testing.TB, what string, err, want error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	if want != nil && !errors.Is(err, want) {
		t.Errorf("%s: error %q does not wrap %q", what, err, want)
	}
	if want != site.ErrGone && errors.Is(err, site.ErrGone) {
		t.Errorf("%s: error %q wraps ErrGone, which it must not", what, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %q does not say %q", what, err, text)
		}
	}
}

func TestDatabase_WorksAgainAfterTheServerWasAway(t *testing.T) {
	for _, c := range []struct {
		e     engine
		begin func(testing.TB) *server
	}{
		{engines[1], postgres},
		{engines[2], mariadb},
	} {
		t.Run(c.e.name, func(t *testing.T) {
			s := c.begin(t)
			store := newStore(t, c.e)
			pool := openPool(t, c.e.driver, store.dsn)
			db := openSite(t, pool, sqlsite.WithTablePrefix(store.prefix))
			m := mustJoin(t, db, mustEnsure(t, db))
			r := site.Renewal{Mark: site.Mark{Frame: 1, Next: 1}, Lease: time.Hour}

			s.kill()
			wantError(t, "Renew without a server", db.Renew(t.Context(), m.Stream, r), nil, "renew")
			_, err := db.Changes(t.Context(), 0)
			wantError(t, "Changes without a server", err, nil, "connect", "connection refused")

			if err := s.start(); err != nil {
				t.Fatal(err)
			}
			if err := db.Renew(t.Context(), m.Stream, r); err != nil {
				t.Errorf("Renew after the server is back: %v", err)
			}

			// A connection that broke while nobody used it costs the caller nothing.
			s.kill()
			if err := s.start(); err != nil {
				t.Fatal(err)
			}
			snap, err := db.Snapshot(t.Context(), m.Stream, []site.ID{m.Site})
			if err != nil || len(snap.Members) != 1 {
				t.Errorf("Snapshot after a restart in between = %+v, %v", snap, err)
			}
		})
	}
}

func TestDatabase_SaysWhenThePoolIsUsedUp(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		for _, size := range []int{1, 2} {
			store := newStore(t, e)
			mustEnsure(t, store.Open(t))
			pool := openPool(t, e.driver, store.dsn)
			pool.SetMaxOpenConns(size)
			db := openSite(t, pool, sqlsite.WithTablePrefix(store.prefix))

			var held []*sql.Conn
			for range size {
				c, err := pool.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, c)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, err := db.Sites(ctx)
			if ctx.Err() != nil {
				t.Errorf("with a pool of %d held by the application, Sites waited for its context", size)
			}
			cancel()
			wantError(t, "Sites with a held pool", err, site.ErrBusy, "SetMaxOpenConns")

			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, err = db.Sites(ctx)
			cancel()
			wantError(t, "Sites with a held pool and a short context", err, context.DeadlineExceeded, "SetMaxOpenConns")

			held[0].Close()
			if sites, err := db.Sites(t.Context()); err != nil || len(sites) != 1 {
				t.Errorf("once a connection is free: %d sites, %v", len(sites), err)
			}
			for _, c := range held[1:] {
				c.Close()
			}
		}
	})
}

func TestDatabase_LeavesAPoolOfOneToTheApplication(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store := newStore(t, e)
		pool := openPool(t, e.driver, store.dsn)
		pool.SetMaxOpenConns(1)
		db := openSite(t, pool, sqlsite.WithTablePrefix(store.prefix))
		m := mustJoin(t, db, mustEnsure(t, db))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := pool.Conn(ctx)
		if err != nil {
			t.Fatalf("the application cannot have its only connection: %v", err)
		}
		c.Close()
		// Nothing of ours is left on the connection that both use.
		if e.driver == "mysql" {
			pool := openPool(t, e.driver, store.dsn+"?autocommit=0")
			pool.SetMaxOpenConns(1)
			mustEnsure(t, openSite(t, pool, sqlsite.WithTablePrefix(store.prefix)))
			var same bool
			if err := pool.QueryRow(`SELECT @@session.autocommit = 0 AND @@session.wait_timeout = @@global.wait_timeout`).Scan(&same); err != nil || !same {
				t.Errorf("the session of the application's connection has changed, %v", err)
			}
		}
		if _, err := db.Snapshot(t.Context(), m.Stream, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestDatabase_CloseGivesTheConnectionBack(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store := newStore(t, e)
		pool := openPool(t, e.driver, store.dsn)
		db := openSite(t, pool, sqlsite.WithTablePrefix(store.prefix))
		mustEnsure(t, db)
		if n := pool.Stats().InUse; n != 1 {
			t.Errorf("an open Database uses %d connections, want 1", n)
		}
		for range 2 {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
		if n := pool.Stats().InUse; n != 0 {
			t.Errorf("a closed Database uses %d connections, want 0", n)
		}
		if e.driver == "mysql" {
			var same bool
			if err := pool.QueryRow(`SELECT @@session.wait_timeout = @@global.wait_timeout`).Scan(&same); err != nil || !same {
				t.Errorf("the pool got a connection back whose session was changed, %v", err)
			}
		}
		_, err := db.Sites(t.Context())
		wantError(t, "Sites after Close", err, nil, "closed")
		if err := pool.Ping(); err != nil {
			t.Errorf("after Close the pool itself fails: %v", err)
		}
	})
}

func TestEnsureSite_RefusesAMemoryThatNobodyElseSees(t *testing.T) {
	pool := openPool(t, "sqlite", ":memory:")
	_, err := openSite(t, pool).EnsureSite(t.Context(), "app")
	wantError(t, "a private database in memory", err, nil, "in memory", "SetMaxOpenConns(1)")

	one := openPool(t, "sqlite", ":memory:")
	one.SetMaxOpenConns(1)
	a, b := openSite(t, one), openSite(t, one)
	if first, second := mustEnsure(t, a), mustEnsure(t, b); first.ID != second.ID {
		t.Errorf("two users of one connection got the sites %v and %v", first.ID, second.ID)
	}

	// To drop that connection, even after a call that was cut short, would be to drop the data.
	ctx, cancel := context.WithCancel(t.Context())
	cut := openHooked(t, engines[0], ":memory:", func(query string, _ []driver.NamedValue) error {
		if strings.HasPrefix(query, "INSERT INTO carillon_members") {
			cancel()
		}
		return nil
	})
	cut.SetMaxOpenConns(1)
	a = openSite(t, cut)
	s := mustEnsure(t, a)
	wantError(t, "Join that is cut short", a.Join(ctx, newMember(s), time.Hour), context.Canceled)
	if again := mustEnsure(t, a); again.ID != s.ID {
		t.Errorf("after a call that was cut short the site is %v, before it was %v", again.ID, s.ID)
	}

	shared := openPool(t, "sqlite", "file:shared?mode=memory&cache=shared")
	a, b = openSite(t, shared), openSite(t, shared)
	if first, second := mustEnsure(t, a), mustEnsure(t, b); first.ID != second.ID {
		t.Errorf("two users of a shared cache got the sites %v and %v", first.ID, second.ID)
	}
}

func TestDatabase_SaysWhatIsWrongWithTheFile(t *testing.T) {
	file := sqliteFile(t)
	s := mustEnsure(t, openSite(t, openPool(t, "sqlite", file)))

	readOnly := openSite(t, openPool(t, "sqlite", "file:"+file+"?mode=ro"))
	if got, err := readOnly.EnsureSite(t.Context(), "app"); err != nil || got.ID != s.ID {
		t.Errorf("a site that exists, in a read-only file: %v, %v", got.ID, err)
	}
	_, err := readOnly.EnsureSite(t.Context(), "other")
	wantError(t, "a new site in a read-only file", err, nil, `ensure the site "other"`, "may not write")
	wantError(t, "Join in a read-only file", readOnly.Join(t.Context(), newMember(s), time.Hour), nil, "may not write")

	_, err = openSite(t, openPool(t, "sqlite", filepath.Join(t.TempDir(), "missing", "site.db"))).EnsureSite(t.Context(), "app")
	wantError(t, "a folder that does not exist", err, nil, "the folder exists")

	text := filepath.Join(t.TempDir(), "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = openSite(t, openPool(t, "sqlite", text)).EnsureSite(t.Context(), "app")
	wantError(t, "a file that is no database", err, nil, "no intact SQLite database")

	small := openSite(t, openPool(t, "sqlite", "file:"+sqliteFile(t)+"?_pragma=max_page_count(16)"))
	s = mustEnsure(t, small)
	for err = nil; err == nil; {
		m := newMember(s)
		m.Server = strings.Repeat("x", site.MaxTextLen)
		err = small.Join(t.Context(), m, time.Hour)
	}
	wantError(t, "Join on a full disk", err, nil, "no space left")
	if _, err := small.Changes(t.Context(), 0); err != nil {
		t.Errorf("reading from a full disk: %v", err)
	}
}

func TestDatabase_WaitsForWhoHoldsTheFile(t *testing.T) {
	file := sqliteFile(t)
	db := openSite(t, openPool(t, "sqlite", file))
	s := mustEnsure(t, db)
	application := openPool(t, "sqlite", file)
	c, err := application.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ExecContext(t.Context(), `BEGIN EXCLUSIVE`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err = db.Join(ctx, newMember(s), time.Hour)
	wantError(t, "Join while the application holds the file", err, site.ErrBusy)
	wantError(t, "Join while the application holds the file", err, context.DeadlineExceeded)

	joined := make(chan error, 1)
	go func() { joined <- db.Join(t.Context(), newMember(s), time.Hour) }()
	if _, err := c.ExecContext(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	if err := <-joined; err != nil {
		t.Errorf("Join that began while the application held the file: %v", err)
	}
}

func TestEnsureSite_RefusesNewerTables(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store := newStore(t, e)
		mustEnsure(t, store.Open(t))
		mustExec(t, store.admin, "INSERT INTO "+store.prefix+"migrations (version, applied_ms) VALUES (99, 0)")
		_, err := store.Open(t).EnsureSite(t.Context(), "app")
		wantError(t, "EnsureSite on newer tables", err, site.ErrSchema, "99", "update the program")
	})
}

func TestEnsureSite_CarriesOnWhereAMigrationStopped(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		for _, at := range []string{
			"CREATE TABLE IF NOT EXISTS %smembers", "INSERT INTO %scounters", "INSERT INTO %smigrations",
			"ALTER TABLE %skeys ADD COLUMN changed_generation", "ALTER TABLE %scounters", "UPDATE %scounters SET generation",
		} {
			store := newStore(t, e)
			stopped := errors.New("the power failed")
			pool := openHooked(t, e, store.dsn, func(query string, _ []driver.NamedValue) error {
				if strings.HasPrefix(query, fmt.Sprintf(at, store.prefix)) {
					return stopped
				}
				return nil
			})
			_, err := openSite(t, pool, sqlsite.WithTablePrefix(store.prefix)).EnsureSite(t.Context(), "app")
			wantError(t, "EnsureSite that is stopped at "+at, err, stopped)
			db := store.Open(t)
			mustJoin(t, db, mustEnsure(t, db))
		}
	})
}

func TestDatabase_SaysThatTablesAreMissing(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store := newStore(t, e)
		db := store.Open(t)
		_, err := db.NextEpoch(t.Context())
		wantError(t, "NextEpoch without tables", err, nil, "take an epoch", "EnsureSite makes them")
		s := mustEnsure(t, db)
		mustExec(t, store.admin, "DELETE FROM "+store.prefix+"counters")
		_, err = db.NextEpoch(t.Context())
		wantError(t, "NextEpoch without its counter", err, nil, "counters is missing")
		wantError(t, "Join without the counters", db.Join(t.Context(), newMember(s), time.Hour), nil, "counters is missing")
		_, err = db.Changes(t.Context(), 0)
		wantError(t, "Changes without the counters", err, nil, "counters is missing")
	})
}

func TestDatabase_SaysThatRightsAreMissing(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) {
		s := postgres(t)
		mustExec(t, openPool(t, "pgx", s.dsn("")), `CREATE ROLE nobody LOGIN`)
		dsn := strings.Replace(s.dsn("postgres"), "postgres@", "nobody@", 1)
		_, err := openSite(t, openPool(t, "pgx", dsn), sqlsite.WithTablePrefix("rights_")).EnsureSite(t.Context(), "app")
		wantError(t, "EnsureSite without the right to create tables", err, nil, "create tables")
	})
	t.Run("MariaDB", func(t *testing.T) {
		s := mariadb(t)
		admin := openPool(t, "mysql", s.dsn("main"))
		mustExec(t, admin, `CREATE USER nobody`)
		mustExec(t, admin, `GRANT SELECT ON main.* TO nobody`)
		dsn := strings.Replace(s.dsn("main"), "root@", "nobody@", 1)
		_, err := openSite(t, openPool(t, "mysql", dsn), sqlsite.WithTablePrefix("rights_")).EnsureSite(t.Context(), "app")
		wantError(t, "EnsureSite without the right to create tables", err, nil, "create tables")
	})
}

func TestDatabase_KnowsAReplica(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) {
		if testing.Short() {
			t.Skip("a second server is too much for a short test")
		}
		primary := postgres(t)
		db := openSite(t, openPool(t, "pgx", primary.dsn("postgres")), sqlsite.WithTablePrefix("replica_"))
		m := mustJoin(t, db, mustEnsure(t, db))
		standby := beginStandby(t, primary)
		replica := openSite(t, openPool(t, "pgx", standby.dsn("postgres")), sqlsite.WithTablePrefix("replica_"))
		checkReplica(t, replica, m)
		wantError(t, "Join on a replica", replica.Join(t.Context(), newMember(site.Site{ID: m.Site}), time.Hour), nil, "connect to the primary")
	})
	t.Run("MariaDB", func(t *testing.T) {
		s := mariadb(t)
		admin := openPool(t, "mysql", s.dsn("main"))
		db := openSite(t, admin, sqlsite.WithTablePrefix("replica_"))
		m := mustJoin(t, db, mustEnsure(t, db))
		mustExec(t, admin, `SET GLOBAL read_only = 1`)
		defer mustExec(t, admin, `SET GLOBAL read_only = 0`)
		checkReplica(t, db, m)
	})
}

func checkReplica(t *testing.T, replica site.Database, m site.Member) {
	t.Helper()
	_, err := replica.Snapshot(t.Context(), m.Stream, []site.ID{m.Site})
	wantError(t, "Snapshot from a replica", err, site.ErrStale, "replica")
	_, err = replica.Changes(t.Context(), 0)
	wantError(t, "Changes from a replica", err, site.ErrStale, "replica")
}

func TestDatabase_IsFullAtItsLimit(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store := newStore(t, e)
		db := openSite(t, store.admin, sqlsite.WithTablePrefix(store.prefix), sqlsite.WithMaxMembers(2))
		s := mustEnsure(t, db)
		mustJoin(t, db, s)
		last := mustJoin(t, db, s)
		wantError(t, "Join as the third of two", db.Join(t.Context(), newMember(s), time.Hour), site.ErrFull)
		other, err := db.EnsureSite(t.Context(), "other")
		if err != nil {
			t.Fatal(err)
		}
		mustJoin(t, db, other)
		if err := db.Leave(t.Context(), last.Stream, site.Mark{}); err != nil {
			t.Fatal(err)
		}
		mustJoin(t, db, s)
	})
}

// failOn returns a hook that answers the nth statement that begins with text, and
// counts those that do.
func failOn(text string, nth int64, err error) (hook, *atomic.Int64) {
	var seen atomic.Int64
	return func(query string, _ []driver.NamedValue) error {
		if strings.HasPrefix(query, text) && seen.Add(1) == nth {
			return err
		}
		return nil
	}, &seen
}

func TestDatabase_RepeatsWhatABrokenConnectionCannotHaveStored(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		for _, text := range []string{"UPDATE", "INSERT INTO"} {
			store := newStore(t, e)
			s := mustEnsure(t, store.Open(t))
			h, seen := failOn(text, 1, driver.ErrBadConn)
			db := openSite(t, openHooked(t, e, store.dsn, h), sqlsite.WithTablePrefix(store.prefix))
			if err := db.Join(t.Context(), newMember(s), time.Hour); err != nil || seen.Load() != 2 {
				t.Errorf("a connection that broke at %s: Join tried %d times, %v; want 2 and no error", text, seen.Load(), err)
			}
		}
	})
}

func TestJoin_IsNotRepeatedWhenNobodyKnowsWhetherItIsStored(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store := newStore(t, e)
		s := mustEnsure(t, store.Open(t))
		h, seen := failOn("COMMIT", 1, driver.ErrBadConn)
		db := openSite(t, openHooked(t, e, store.dsn, h), sqlsite.WithTablePrefix(store.prefix))
		wantError(t, "Join whose commit has no answer", db.Join(t.Context(), newMember(s), time.Hour), nil, "commit")
		if n := seen.Load(); n != 1 {
			t.Errorf("the commit was tried %d times, want once", n)
		}
		mustJoin(t, db, s)
	})
}

func TestDatabase_LeavesNoLockWhenTheContextEnds(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		for _, text := range []string{"UPDATE", "SELECT revision", "INSERT INTO", "COMMIT"} {
			store := newStore(t, e)
			other := store.Open(t)
			s := mustEnsure(t, other)
			ctx, cancel := context.WithCancel(t.Context())
			db := openSite(t, openHooked(t, e, store.dsn, func(query string, _ []driver.NamedValue) error {
				if strings.HasPrefix(query, text) {
					cancel()
				}
				return nil
			}), sqlsite.WithTablePrefix(store.prefix))
			// The statement may be over before its context is looked at.
			if err := db.Join(ctx, newMember(s), time.Hour); err != nil {
				wantError(t, "Join cancelled at "+text, err, context.Canceled)
			}
			soon, done := context.WithTimeout(t.Context(), 3*time.Second)
			if err := other.Join(soon, newMember(s), time.Hour); err != nil {
				t.Errorf("after another's Join was cancelled at %s: %v", text, err)
			}
			if err := db.Join(soon, newMember(s), time.Hour); err != nil {
				t.Errorf("after its Join was cancelled at %s: %v", text, err)
			}
			done()
		}
	})
}

func TestEnsureSite_TellsNoSecretInErrors(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store := newStore(t, e)
		mustEnsure(t, store.Open(t))
		create := "CREATE TRIGGER " + store.prefix + "refuse BEFORE INSERT ON " + store.prefix + "keys "
		switch e.driver {
		case "sqlite":
			mustExec(t, store.admin, create+`BEGIN SELECT RAISE(ABORT, 'refused'); END`)
		case "mysql":
			mustExec(t, store.admin, create+`FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'refused'`)
		default: // whose message has the failing row in its details
			mustExec(t, store.admin, "ALTER TABLE "+store.prefix+"keys ADD CHECK (key_id > 1) NOT VALID")
		}
		var secret []byte
		db := openSite(t, openHooked(t, e, store.dsn, func(query string, args []driver.NamedValue) error {
			if strings.Contains(query, "INSERT INTO "+store.prefix+"keys") {
				secret = args[5].Value.([]byte)
			}
			return nil
		}), sqlsite.WithTablePrefix(store.prefix))
		_, err := db.EnsureSite(t.Context(), "other")
		wantError(t, "EnsureSite that cannot store its key", err, nil, `"other"`)
		if len(secret) != site.SecretLen {
			t.Fatalf("the statement had %d bytes as its secret", len(secret))
		}
		for _, form := range []string{"%v", "%+v", "%#v"} {
			for _, s := range []string{string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint(secret)} {
				if strings.Contains(fmt.Sprintf(form, err), strings.Trim(s, "[]")) {
					t.Errorf("printed with %s the error shows the secret", form)
				}
			}
		}
		if sites, err := db.Sites(t.Context()); err != nil || len(sites) != 1 {
			t.Errorf("after a site that could not be stored there are %d, %v; want 1", len(sites), err)
		}
	})
}

func TestJoin_LocksTheFileBeforeItReads(t *testing.T) {
	file := sqliteFile(t)
	s := mustEnsure(t, openSite(t, openPool(t, "sqlite", file)))
	other := openPool(t, "sqlite", file)
	var locked atomic.Bool
	db := openSite(t, openHooked(t, engines[0], file, func(query string, _ []driver.NamedValue) error {
		if strings.HasPrefix(query, "UPDATE") {
			_, err := other.Exec(`BEGIN IMMEDIATE`)
			locked.Store(err != nil)
		}
		return nil
	}))
	if err := db.Join(t.Context(), newMember(s), time.Hour); err != nil || !locked.Load() {
		t.Errorf("Join: %v; another could not lock the file meanwhile: %v, want true", err, locked.Load())
	}
}

func TestJoin_WaitsForReadersWithoutBeginningAnew(t *testing.T) {
	file := sqliteFile(t)
	s := mustEnsure(t, openSite(t, openPool(t, "sqlite", file)))
	reader, err := openPool(t, "sqlite", file).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reader.QueryRow(`SELECT COUNT(*) FROM carillon_members`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	var begun, commits atomic.Int64
	db := openSite(t, openHooked(t, engines[0], file, func(query string, _ []driver.NamedValue) error {
		switch {
		case strings.HasPrefix(query, "BEGIN"):
			begun.Add(1)
		case query == "COMMIT" && commits.Add(1) == 3:
			return reader.Rollback()
		}
		return nil
	}))
	if err := db.Join(t.Context(), newMember(s), time.Hour); err != nil || begun.Load() != 1 {
		t.Errorf("Join beside a reader: %v, in %d transactions, want 1", err, begun.Load())
	}
}

func TestEnsureSite_WaitsForWhoMigrates(t *testing.T) {
	store := newStore(t, engines[2])
	holder, err := store.admin.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	const name = `CONCAT('carillon ', MD5(CONCAT(DATABASE(), ' ', ?)))`
	var got int
	if err := holder.QueryRowContext(t.Context(), `SELECT GET_LOCK(`+name+`, 0)`, store.prefix).Scan(&got); err != nil || got != 1 {
		t.Fatalf("GET_LOCK = %d, %v", got, err)
	}
	db := store.Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // longer than one wait for the lock
	defer cancel()
	_, err = db.EnsureSite(ctx, "app")
	wantError(t, "EnsureSite while another migrates", err, context.DeadlineExceeded)
	if err := holder.QueryRowContext(t.Context(), `SELECT RELEASE_LOCK(`+name+`)`, store.prefix).Scan(&got); err != nil {
		t.Fatal(err)
	}
	mustEnsure(t, db)
}

// TestSnapshot_IsOneConsistentRead changes a site after the snapshot's first
// statement.
func TestSnapshot_IsOneConsistentRead(t *testing.T) {
	settings := []string{"?_pragma=journal_mode(wal)", "&default_transaction_isolation=read%20committed", "?tx_isolation=%27READ-COMMITTED%27"}
	for i, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			e.settings = settings[i]
			store := newStore(t, e)
			first := store.Open(t)
			s := mustEnsure(t, first)
			m := mustJoin(t, first, s)
			var change sync.Once
			read := func(query string, _ []driver.NamedValue) error {
				if strings.HasPrefix(query, "SELECT s.id") {
					change.Do(func() { mustExec(t, store.admin, "UPDATE "+store.prefix+"sites SET generation = 2") })
				}
				return nil
			}
			db := openSite(t, openHooked(t, e, store.dsn, read), sqlsite.WithTablePrefix(store.prefix))
			for _, want := range []uint64{1, 2} {
				snap, err := db.Snapshot(t.Context(), m.Stream, []site.ID{s.ID})
				if err != nil || len(snap.Sites) != 1 || snap.Sites[0].Generation != want {
					t.Errorf("Snapshot = %+v, %v; want generation %d", snap.Sites, err, want)
				}
			}
		})
	}
}

func TestDatabase_HasOneClockForSessionsOfAllTimeZones(t *testing.T) {
	settings := []string{"", "&timezone=Asia/Kathmandu", "?time_zone=%27%2B05:45%27"}
	for i, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			store := newStore(t, e)
			here := store.Open(t)
			store.dsn += settings[i]
			there := store.Open(t)
			s := mustEnsure(t, here)
			m := mustJoin(t, here, s)
			if streams, err := there.Reap(t.Context(), 0); err != nil || len(streams) != 0 {
				t.Errorf("a lease of an hour was reaped from another time zone: %v, %v", streams, err)
			}
			mustJoin(t, there, s)
			a, err := here.Changes(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			b, err := there.Snapshot(t.Context(), m.Stream, []site.ID{s.ID})
			if err != nil {
				t.Fatal(err)
			}
			if d := b.Now.Sub(a.Now); d < 0 || d > 10*time.Minute {
				t.Errorf("two sessions are %v apart", d)
			}
			if d := time.Since(a.Now); d.Abs() > 10*time.Minute {
				t.Errorf("the clock of a server on this machine is %v off", d)
			}
			for _, m := range append(a.Members, b.Members...) {
				if m.Lapsed || m.Seen.Sub(a.Members[0].Seen).Abs() > 10*time.Minute {
					t.Errorf("the row %+v is of another clock", m)
				}
			}
		})
	}
}

func TestDatabase_DoesNotWaitForASilentServer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections wait in its queue for ever
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, pool := range map[string]*sql.DB{
		"PostgreSQL": openPool(t, "pgx", fmt.Sprintf("postgres://x@%s/x?sslmode=disable", silent.Addr())),
		"MariaDB":    openPool(t, "mysql", fmt.Sprintf("x@tcp(%s)/x", silent.Addr())),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // both only wait
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := openSite(t, pool).EnsureSite(ctx, "app")
			wantError(t, "EnsureSite with a silent server", err, site.ErrBusy, "no connection within")
			if ctx.Err() != nil {
				t.Error("it waited for its context")
			}
		})
	}
}
