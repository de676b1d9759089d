//go:build linux

package database

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/chaos/internal/labtest"
)

func open(t *testing.T, kind Kind, diskBytes int) (*Database, *sql.DB) {
	t.Helper()
	d, err := Open(labtest.New(t, lab.Config{Nodes: 1}), kind, diskBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	pool, err := sql.Open(d.Driver, d.own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	must(t, pool, "CREATE TABLE notes (line VARCHAR(10000))")
	return d, pool
}

func must(t *testing.T, pool *sql.DB, statement string) {
	t.Helper()
	if _, err := pool.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestDatabase_KillKeepsWhatWasCommitted(t *testing.T) {
	for _, kind := range []Kind{PostgreSQL, MariaDB} {
		t.Run(string(kind), func(t *testing.T) {
			d, pool := open(t, kind, 0)
			must(t, pool, "INSERT INTO notes VALUES ('kept')")
			if err := d.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := pool.Ping(); err == nil {
				t.Error("a killed server answers")
			}
			if err := d.Restore(); err != nil {
				t.Fatal(err)
			}
			if err := answers(d.Driver, d.own, startTimeout, nil); err != nil {
				t.Fatal(err)
			}
			var line string
			if err := eventuallyScan(pool, &line); err != nil || line != "kept" {
				t.Errorf("read %q, %v", line, err)
			}
		})
	}
}

// eventuallyScan tries again where the pool still has connections that broke.
func eventuallyScan(pool *sql.DB, line *string) (err error) {
	for range 5 {
		if err = pool.QueryRow("SELECT line FROM notes").Scan(line); err == nil {
			return nil
		}
	}
	return err
}

func TestDatabase_LockKeepsWritersOut(t *testing.T) {
	d, pool := open(t, SQLite, 0)
	unlock, err := d.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec("INSERT INTO notes VALUES ('too early')"); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("while it is locked: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	must(t, pool, "INSERT INTO notes VALUES ('in time')")
}

func TestDatabase_FillLeavesNoRoom(t *testing.T) {
	d, pool := open(t, SQLite, 1<<20)
	free, err := d.Fill()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec("INSERT INTO notes VALUES (?)", strings.Repeat("x", 10000)); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("on a full disk: %v", err)
	}
	if err := free(); err != nil {
		t.Fatal(err)
	}
	must(t, pool, "INSERT INTO notes VALUES ('in time')")
}
