//go:build linux

// Package database keeps the site database of a lab: a SQLite file that the
// processes of all nodes share, or a PostgreSQL or MariaDB server in the lab,
// which can be killed and started again, locked, and starved of disk.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	_ "modernc.org/sqlite"             // the driver sqlite

	"github.com/carillon-go/carillon/chaos/internal/lab"
)

// A Kind is what database it is.
type Kind string

// The kinds.
const (
	SQLite     Kind = "sqlite"
	PostgreSQL Kind = "postgresql"
	MariaDB    Kind = "mariadb"
)

const name = "carillon" // of the database on a server, and of the user

// A Database is the site database of a lab. It is for one goroutine at a time.
type Database struct {
	Driver string // for sql.Open
	DSN    string // for processes in the nodes

	disk   string // folder of the file system with the SQLite file; empty if it has none of its own
	own    string // DSN for this process
	server *server
}

// Open makes the database of this kind, empty, in a folder of l. A disk of diskBytes is made
// for SQLite; 0 means none. Close must be called before the lab is closed.
func Open(l *lab.Lab, kind Kind, diskBytes int) (*Database, error) {
	switch kind {
	case SQLite:
		return openSQLite(l, diskBytes)
	case PostgreSQL:
		return openPostgres(l)
	case MariaDB:
		return openMariaDB(l)
	}
	return nil, fmt.Errorf("database: there is no kind %q; choose %s, %s or %s", kind, SQLite, PostgreSQL, MariaDB)
}

func openSQLite(l *lab.Lab, diskBytes int) (*Database, error) {
	d := &Database{Driver: "sqlite"}
	folder := l.Folder
	if diskBytes > 0 {
		var err error
		if folder, err = l.Disk("database", diskBytes); err != nil {
			return nil, err
		}
		d.disk = folder
	}
	d.DSN = filepath.Join(folder, "site.db")
	d.own = d.DSN
	return d, nil
}

// Kill kills the server as a power failure does. It fails for SQLite, which has none.
func (d *Database) Kill() error {
	if d.server == nil {
		return errors.New("database: SQLite has no server to kill; lock it instead")
	}
	return d.server.kill()
}

// Restore starts the server again after Kill and returns when it answers.
func (d *Database) Restore() error {
	if d.server == nil {
		return errors.New("database: SQLite has no server to start")
	}
	return d.server.start()
}

// Lock locks the whole SQLite file against writers until the function returned is called.
func (d *Database) Lock(ctx context.Context) (unlock func() error, err error) {
	if d.server != nil {
		return nil, fmt.Errorf("database: only a SQLite file can be locked, not %s", d.Driver)
	}
	pool, err := sql.Open(d.Driver, d.own)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Conn(ctx)
	if err == nil {
		_, err = conn.ExecContext(ctx, "PRAGMA busy_timeout = 10000")
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "BEGIN EXCLUSIVE")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database: lock %s: %w", d.own, err), pool.Close())
	}
	return func() error {
		_, err := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return errors.Join(err, conn.Close(), pool.Close())
	}, nil
}

// Fill fills the disk that the SQLite file lies on, until the function returned
// is called.
func (d *Database) Fill() (free func() error, err error) {
	if d.disk == "" {
		return nil, errors.New("database: it has no disk of its own that could be filled")
	}
	path := filepath.Join(d.disk, "filler")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, zeros{}); err == nil {
		return nil, errors.New("database: the disk has no end")
	}
	return func() error { return errors.Join(f.Close(), os.Remove(path)) }, nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Close ends the server, if there is one.
func (d *Database) Close() error {
	if d.server == nil {
		return nil
	}
	return d.server.kill()
}

// exec executes statements in this process.
func exec(driver, dsn string, statements ...string) error {
	pool, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	for _, s := range statements {
		if _, err := pool.Exec(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// answers waits until the server behind a DSN answers.
func answers(driver, dsn string, limit time.Duration, ended <-chan struct{}) error {
	pool, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if err = pool.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ended:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %w", limit, err)
		}
	}
}

var errEnded = errors.New("the server ended")

func postgresDSN(host, database string) string {
	return "postgres://postgres@/" + database + "?sslmode=disable&connect_timeout=3&host=" + url.QueryEscape(host)
}

func mariaDSN(network, addr, user, database string) string {
	c := mysql.NewConfig()
	c.User, c.Net, c.Addr, c.DBName = user, network, addr, database
	c.Timeout = 3 * time.Second
	return c.FormatDSN()
}
