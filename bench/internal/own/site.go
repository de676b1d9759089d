package own

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver sqlite

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/keyring"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// A Database is the site database of a run, opened by one instance.
type Database struct {
	*sqlsite.Database
	pool *sql.DB
}

// OpenDatabase opens the site database in a folder. The settings are those that applications on SQLite use.
func OpenDatabase(dir string) (*Database, error) {
	q := url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)"},
		"_txlock": {"immediate"},
	}
	pool, err := sql.Open("sqlite", "file:"+(&url.URL{Path: filepath.Join(dir, "site.db")}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db, err := sqlsite.New(pool)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &Database{db, pool}, nil
}

// Close closes the Database and its pool.
func (d *Database) Close() error { return errors.Join(d.Database.Close(), d.pool.Close()) }

// createSite makes the site with a key of the suite wanted; zero: as it is.
func createSite(ctx context.Context, dir string, suite site.Suite) error {
	db, err := OpenDatabase(dir)
	if err != nil {
		return err
	}
	defer db.Close()
	s, err := db.EnsureSite(ctx, Application)
	if err != nil || suite == 0 || s.Active().Suite == suite {
		return err
	}
	// Another suite is had as an operator has it. Nobody is there who would still use
	// the first key.
	_, err = keyring.Rotate(ctx, db, Application, keyring.Options{Suite: suite, Overlap: time.Millisecond, Poll: time.Millisecond})
	return err
}
