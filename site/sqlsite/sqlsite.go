// Package sqlsite keeps the site database in a SQL database that the
// application has already: SQLite, PostgreSQL, MySQL or MariaDB. The
// application brings the driver and the [sql.DB]; sqlsite adds five tables,
// whose names begin with "carillon_", and leaves everything else alone.
//
// # Configuration
//
// [New] takes the pool as it is. No pragma, session setting or transaction
// mode is asked of the DSN, and none is left behind on a connection that goes back to
// the pool. [Database.EnsureSite] creates and upgrades the tables, so its first call needs
// the right to create tables; everything later needs to select, insert,
// update and delete in them.
//
// # Connections
//
// A Database holds one connection of the pool from its first use until
// [Database.Close] and dials again when that breaks. So a pool with a limit needs one connection
// more than the application itself uses. From a pool of exactly one
// connection it borrows that one for each call instead, and returns an error
// that wraps [site.ErrBusy] when the application does not give it back within two seconds.
//
// # Limits
//
// Times are the database server's clock, to the millisecond; SQLite has the clock of the process.
// A call that waits for a lock gives up after 15 seconds with [site.ErrBusy],
// and every call ends within 30 seconds even when its context does not.
// A SQLite database in memory exists once per connection, so it needs a pool of one connection, or
// a shared cache.
//
// Reads and writes must reach the primary. A pooler in front of PostgreSQL may work per
// transaction; [Database.ClientAddr] then returns the pooler's address.
//
// # Requirements
//
// SQLite 3.24, PostgreSQL 11, MySQL 8.0 with InnoDB, MariaDB 10.5, or later.
package sqlsite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/carillon-go/carillon/site"
)

// A Database is a [site.Database] in a SQL database. It is safe for concurrent
// use; its calls run one after the other on one connection. Use [New] to make
// one; the zero Database does not work.
type Database struct {
	pool       *sql.DB
	prefix     string
	names      *strings.Replacer // {members} and the like → names of tables
	maxMembers int

	encryption       KeyEncryption
	seal             *wrap   // for secrets that are written; nil: they are plain
	wraps            []*wrap // for secrets that are read
	lowestGeneration uint64

	turn chan struct{} // holds one value while a call runs, which guards the fields below

	dialect Dialect // zero until the server was asked
	conn    *conn   // nil when none is held
	closed  bool
}

var _ site.Database = (*Database)(nil)

// An Option changes how [New] sets up a [Database].
type Option func(*Database)

// WithDialect says what the database speaks, for servers that do not give
// themselves away. Without it the server is asked on the first connection.
func WithDialect(d Dialect) Option {
	return func(db *Database) { db.dialect = d }
}

// WithTablePrefix sets what the tables' names begin with, "carillon_" without it: a
// lower-case letter, then up to 31 lower-case letters, digits and underscores.
// All instances of a site must have the same prefix.
func WithTablePrefix(prefix string) Option {
	return func(db *Database) { db.prefix = prefix }
}

// WithMaxMembers sets how many rows of one site may be open before Join
// returns [site.ErrFull]. Without it the limit is [site.DefaultMaxMembers].
func WithMaxMembers(n int) Option {
	return func(db *Database) { db.maxMembers = n }
}

var goodPrefix = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// New returns a Database on pool. It does not connect: the first call does. The
// caller closes it before pool.
func New(pool *sql.DB, opts ...Option) (*Database, error) {
	d := &Database{pool: pool, prefix: "carillon_", maxMembers: site.DefaultMaxMembers, turn: make(chan struct{}, 1)}
	for _, o := range opts {
		o(d)
	}
	switch {
	case pool == nil:
		return nil, errors.New("sqlsite: the *sql.DB is nil")
	case !goodPrefix.MatchString(d.prefix):
		return nil, fmt.Errorf("sqlsite: the table prefix %q is not a lower-case letter and up to 31 lower-case letters, digits and underscores", d.prefix)
	case d.maxMembers < 1:
		return nil, fmt.Errorf("sqlsite: a limit of %d members lets nobody join", d.maxMembers)
	case d.encryption.Required && d.encryption.Key.IsZero():
		return nil, errors.New("sqlsite: encrypted secrets are required, and there is no key-encryption key")
	case d.dialect >= dialectEnd:
		return nil, fmt.Errorf("sqlsite: %v is no dialect", d.dialect)
	}
	d.setUpEncryption()
	var names []string
	for _, table := range []string{"counters", "keys", "members", "migrations", "sites"} {
		names = append(names, "{"+table+"}", d.prefix+table)
	}
	d.names = strings.NewReplacer(append(names, "{prefix}", d.prefix)...)
	return d, nil
}

// Close gives the connection back and waits for a call that is running. Calls
// after it return an error. Closing twice is fine. The pool stays open.
func (d *Database) Close() error {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	d.closed = true
	if c := d.conn; c != nil {
		d.conn = nil
		c.release()
	}
	return nil
}

// EnsureSite implements [site.Database].
func (d *Database) EnsureSite(ctx context.Context, name string) (site.Site, error) {
	if err := site.CheckName(name); err != nil {
		return site.Site{}, err
	}
	var found site.Site
	err := d.run(ctx, fmt.Sprintf("ensure the site %q", name), func(ctx context.Context, c *conn) error {
		if err := d.migrate(ctx, c); err != nil {
			return err
		}
		if err := d.checkShared(ctx, c); err != nil {
			return err
		}
		if err := d.checkGeneration(ctx, c); err != nil {
			return err
		}
		var err error
		found, err = d.ensure(ctx, c, name)
		return err
	})
	return found, err
}

// Sites implements [site.Database].
func (d *Database) Sites(ctx context.Context) ([]site.Site, error) {
	var sites []site.Site
	err := d.run(ctx, "read the sites", func(ctx context.Context, c *conn) (err error) {
		if err := d.checkGeneration(ctx, c); err != nil {
			return err
		}
		sites, err = d.readSites(ctx, c, "")
		return err
	})
	return sites, err
}

// NextEpoch implements [site.Database].
func (d *Database) NextEpoch(ctx context.Context) (uint64, error) {
	var epoch int64
	err := d.run(ctx, "take an epoch", func(ctx context.Context, c *conn) error {
		return c.write(ctx, func() error {
			if err := c.exec(ctx, `UPDATE {counters} SET epoch = epoch + 1 WHERE id = 1`); err != nil {
				return err
			}
			err := c.queryRow(ctx, `SELECT epoch FROM {counters} WHERE id = 1`).Scan(&epoch)
			if errors.Is(err, sql.ErrNoRows) {
				err = errDamaged
			}
			return err
		})
	})
	return uint64(epoch), err
}
