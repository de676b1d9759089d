package drivers

import (
	"database/sql"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sitetest"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// store is tables of their own in a database that may have others.
type store struct {
	driver, dsn, prefix string
	admin               *sql.DB
}

func newStore(t testing.TB, e engine) *store {
	s := &store{driver: e.driver, dsn: e.shared(t), prefix: fmt.Sprintf("t%d_", lastDatabase.Add(1))}
	s.admin = openPool(t, s.driver, s.dsn)
	s.dsn += e.settings
	return s
}

func (s *store) Open(t testing.TB) site.Database {
	return openSite(t, openPool(t, s.driver, s.dsn), sqlsite.WithTablePrefix(s.prefix))
}

func (s *store) Advance(t testing.TB, d time.Duration) {
	t.Helper()
	ms := d.Milliseconds()
	mustExec(t, s.admin, fmt.Sprintf(`UPDATE %smembers SET joined_ms = joined_ms - %d, seen_ms = seen_ms - %d, lease_until_ms = lease_until_ms - %d, closed_ms = closed_ms - %d`,
		s.prefix, ms, ms, ms, ms))
	mustExec(t, s.admin, fmt.Sprintf(`UPDATE %skeys SET until_ms = until_ms - %d`, s.prefix, ms))
}

func TestDatabase_KeepsTheContract(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		sitetest.Run(t, func(t testing.TB) sitetest.Store { return newStore(t, e) })
	})
}

// TestDatabase_KeepsTheContractWithAwkwardSettings runs the suite on pools as some
// applications have them. What they change, the tables must not notice.
func TestDatabase_KeepsTheContractWithAwkwardSettings(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite runs with plain settings already")
	}
	with := func(e engine, settings string) engine {
		e.settings = settings
		return e
	}
	for name, e := range map[string]engine{
		"SQLite, write-ahead log, own waiting":      with(engines[0], "?_pragma=journal_mode(wal)&_pragma=busy_timeout(20)&_txlock=exclusive"),
		"SQLite, journal truncated":                 with(engines[0], "?_pragma=journal_mode(truncate)&_pragma=synchronous(0)"),
		"PostgreSQL, serializable, simple protocol": with(engines[1], "&default_transaction_isolation=serializable&default_query_exec_mode=simple_protocol&timezone=Asia/Kathmandu"),
		"PostgreSQL, repeatable read, no cache":     with(engines[1], "&default_transaction_isolation=repeatable%20read&default_query_exec_mode=exec"),
		"MariaDB, no autocommit, serializable":      with(engines[2], "?autocommit=0&tx_isolation=%27SERIALIZABLE%27&time_zone=%27%2B05:45%27&sql_mode=ANSI"),
		"MariaDB, read committed, interpolated":     with(engines[2], "?tx_isolation=%27READ-COMMITTED%27&interpolateParams=true&parseTime=true&clientFoundRows=true"),
	} {
		t.Run(name, func(t *testing.T) {
			sitetest.Run(t, func(t testing.TB) sitetest.Store { return newStore(t, e) })
		})
	}
}

func TestClientAddr_IsWhatTheServerSees(t *testing.T) {
	// An address of this machine that no client has by itself.
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77)}}
	check := func(t *testing.T, pool *sql.DB, want string) {
		t.Helper()
		t.Cleanup(func() { pool.Close() })
		if got, err := openSite(t, pool).ClientAddr(t.Context()); err != nil || got.String() != want {
			t.Errorf("ClientAddr() = %v, %v; want %s", got, err, want)
		}
	}
	t.Run("SQLite", func(t *testing.T) { check(t, openPool(t, "sqlite", sqliteFile(t)), "127.0.0.1") })
	t.Run("PostgreSQL", func(t *testing.T) {
		s := postgres(t)
		check(t, openPool(t, "pgx", s.dsn("postgres")), "127.0.0.1")
		check(t, openPool(t, "pgx", fmt.Sprintf("host=%s port=%d user=postgres", s.sockets, s.port)), "127.0.0.1")
		config, err := pgx.ParseConfig(s.dsn("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		config.DialFunc = dialer.DialContext
		check(t, stdlib.OpenDB(*config), "127.0.0.77")
	})
	t.Run("MariaDB", func(t *testing.T) {
		s := mariadb(t)
		mustExec(t, openPool(t, "mysql", s.dsn("main")), `CREATE USER far@'127.0.0.77'`)
		mustExec(t, openPool(t, "mysql", s.dsn("main")), `GRANT ALL ON main.* TO far@'127.0.0.77'`)
		check(t, openPool(t, "mysql", s.dsn("main")), "127.0.0.1")
		check(t, openPool(t, "mysql", fmt.Sprintf("root@unix(%s)/main", filepath.Join(s.sockets, "socket"))), "127.0.0.1")
		config, err := mysql.ParseDSN(s.dsn("main"))
		if err != nil {
			t.Fatal(err)
		}
		config.User = "far"
		config.DialFunc = dialer.DialContext
		connector, err := mysql.NewConnector(config)
		if err != nil {
			t.Fatal(err)
		}
		check(t, sql.OpenDB(connector), "127.0.0.77")
	})
}
