package sqlsite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/carillon-go/carillon/site"
)

const (
	callLimit    = 30 * time.Second // for a call as a whole
	lockLimit    = 15 * time.Second // for what others lock
	connectLimit = 4 * time.Second  // for a new connection
	poolLimit    = 2 * time.Second  // for a connection when the pool has none left
	endLimit     = 2 * time.Second  // for ending a transaction after the caller's context is done

	maxRedials = 3                     // per call; the pool may hold several connections that broke together
	maxPause   = 50 * time.Millisecond // between two attempts at a lock
)

// A conn is the connection that a call uses.
type conn struct {
	*sql.Conn
	site *Database
	// own says that the connection's session was changed, so it must not go back to the pool.
	own bool
	// restore undoes what was changed of the session, or is "".
	restore string
	// unfit says that the connection broke or may still be in a transaction.
	unfit bool
}

// run calls op with a connection, again while it fails only because another
// was quicker, and wraps its error with what was tried. op may run several times.
func (d *Database) run(ctx context.Context, tried string, op func(context.Context, *conn) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sqlsite: %s: %w", tried, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("sqlsite: %s: %w: another call uses the connection: %w", tried, site.ErrBusy, ctx.Err())
	}
	defer func() { <-d.turn }()
	if d.closed {
		return fmt.Errorf("sqlsite: %s: the site database is closed", tried)
	}

	began, redials := time.Now(), 0
	var crowd error // that made the last attempt necessary
	for attempt := 0; ; attempt++ {
		err := d.try(ctx, op)
		if err == nil {
			return nil
		}
		kind := classify(d.dialect, err)
		switch {
		case ctx.Err() != nil:
			if kind == crowded {
				crowd = err
			}
			if crowd != nil {
				err = fmt.Errorf("%w: %w", site.ErrBusy, crowd)
			}
			if !errors.Is(err, ctx.Err()) {
				err = fmt.Errorf("%w: %w", ctx.Err(), err)
			}
		case kind == crowded:
			if time.Since(began) < lockLimit {
				crowd = err
				pause(ctx, attempt)
				continue
			}
			err = fmt.Errorf("%w: no success within %v: %w", site.ErrBusy, lockLimit, err)
		case kind == broken && redials < maxRedials && mayRepeat(err):
			redials++
			continue
		}
		return fmt.Errorf("sqlsite: %s: %w%s", tried, err, hint(d.dialect, err))
	}
}

// try takes a connection, calls op once, and keeps or drops the connection.
func (d *Database) try(ctx context.Context, op func(context.Context, *conn) error) error {
	c := d.conn
	d.conn = nil
	if c == nil {
		var err error
		if c, err = d.connect(ctx); err != nil {
			return &connectError{err}
		}
	}
	err := op(ctx, c)
	// A driver that speaks over a network closes the connection when ctx ends in the middle of
	// an answer; a driver of SQLite does not, and for a database in memory the connection is the
	// database.
	if c.unfit || classify(d.dialect, err) == broken || err != nil && ctx.Err() != nil && d.dialect != SQLite {
		c.discard()
		return err
	}
	if d.borrows() {
		c.release()
		return err
	}
	d.conn = c
	return err
}

// borrows reports whether the pool has one connection only, which nobody may keep.
func (d *Database) borrows() bool { return d.pool.Stats().MaxOpenConnections == 1 }

// connect takes a connection from the pool and makes it fit for use.
func (d *Database) connect(ctx context.Context) (*conn, error) {
	limit := connectLimit
	if d.poolIsUsedUp() {
		limit = poolLimit
	}
	dialCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	raw, err := d.pool.Conn(dialCtx)
	switch {
	case err == nil:
	case dialCtx.Err() != nil && d.poolIsUsedUp():
		return nil, finding("%w: the application holds all %d connections of its pool; allow one more with SetMaxOpenConns, or give them back sooner: %w",
			site.ErrBusy, d.pool.Stats().MaxOpenConnections, err)
	case dialCtx.Err() != nil && ctx.Err() == nil:
		return nil, finding("%w: no connection within %v: %w", site.ErrBusy, limit, err)
	default:
		return nil, err
	}

	c := &conn{Conn: raw, site: d}
	if err := d.prepare(dialCtx, c); err != nil {
		c.discardUnlessSQLite()
		return nil, err
	}
	return c, nil
}

func (d *Database) poolIsUsedUp() bool {
	s := d.pool.Stats()
	return s.MaxOpenConnections > 0 && s.InUse >= s.MaxOpenConnections
}

// prepare learns the dialect if it is not known, and sets up c.
func (d *Database) prepare(ctx context.Context, c *conn) (err error) {
	if d.dialect == 0 {
		if d.dialect, err = ask(ctx, c.Conn); err != nil {
			return err
		}
	}
	if d.dialect != MySQL {
		return nil
	}
	if !d.borrows() {
		c.own = true
		_, err = c.ExecContext(ctx, mysqlSession)
		return err
	}
	var autocommit bool
	if err := c.QueryRowContext(ctx, `SELECT @@session.autocommit`).Scan(&autocommit); err != nil || autocommit {
		return err
	}
	c.restore = `SET SESSION autocommit = 0`
	_, err = c.ExecContext(ctx, `SET SESSION autocommit = 1`)
	return err
}

// release gives c back to the pool, or drops it if nobody else may have it.
func (c *conn) release() {
	if c.restore != "" {
		ctx, cancel := context.WithTimeout(context.Background(), endLimit)
		defer cancel()
		if _, err := c.ExecContext(ctx, c.restore); err != nil {
			c.own = true
		}
	}
	if c.own {
		c.discard()
		return
	}
	c.Close()
}

// discard closes c for good.
func (c *conn) discard() {
	c.Raw(func(any) error { return driver.ErrBadConn }) // database/sql drops what it is told is bad
	c.Close()
}

func (c *conn) discardUnlessSQLite() {
	if c.site.dialect == SQLite {
		c.Close()
		return
	}
	c.discard()
}

// exec runs a statement in which {members} and the like stand for the tables and
// each ? for one of args.
func (c *conn) exec(ctx context.Context, query string, args ...any) error {
	_, err := c.affect(ctx, query, args...)
	return err
}

// affect is exec that returns how many rows changed.
func (c *conn) affect(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := c.ExecContext(ctx, c.sql(query), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (c *conn) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return c.QueryContext(ctx, c.sql(query), args...)
}

func (c *conn) queryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return c.QueryRowContext(ctx, c.sql(query), args...)
}

func (c *conn) sql(query string) string {
	return c.site.dialect.bind(c.site.names.Replace(query))
}

// write runs do in a transaction and commits it, or rolls it back when do
// returns an error.
func (c *conn) write(ctx context.Context, do func() error) error {
	return c.transaction(ctx, c.site.dialect.beginWrite(), do)
}

// read runs do in a transaction whose reads see the same state.
func (c *conn) read(ctx context.Context, do func() error) error {
	return c.transaction(ctx, c.site.dialect.beginRead(), do)
}

func (c *conn) transaction(ctx context.Context, begin []string, do func() error) error {
	for _, s := range begin {
		if _, err := c.ExecContext(ctx, s); err != nil {
			c.rollback(ctx)
			return err
		}
	}
	if err := do(); err != nil {
		c.rollback(ctx)
		return err
	}
	if err := c.commit(ctx); err != nil {
		c.rollback(ctx)
		return &commitError{err}
	}
	return nil
}

// commit ends the transaction. On SQLite it waits for those who still read: the transaction
// stays open meanwhile and keeps new readers out, so trying again is quicker
// than beginning anew.
func (c *conn) commit(ctx context.Context) error {
	began := time.Now()
	for attempt := 0; ; attempt++ {
		_, err := c.ExecContext(ctx, `COMMIT`)
		if err == nil || c.site.dialect != SQLite || classify(SQLite, err) != crowded ||
			ctx.Err() != nil || time.Since(began) > lockLimit {
			return err
		}
		pause(ctx, min(attempt, 1)) // everybody waits for this one
	}
}

// rollback leaves c outside of any transaction, or marks it as unfit.
func (c *conn) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if _, err := c.ExecContext(ctx, `ROLLBACK`); err != nil && !isNoTransaction(c.site.dialect, err) {
		c.unfit = true
	}
}

// pause waits before the next attempt at what another holds: a random time
// that grows with the attempts, so that many who began together spread.
func pause(ctx context.Context, attempt int) {
	d := min(time.Millisecond<<min(attempt, 10), maxPause)
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
