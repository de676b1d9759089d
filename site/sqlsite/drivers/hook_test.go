package drivers

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
)

// A hook sees every statement before the database does, and may answer in its
// place with an error.
type hook func(query string, args []driver.NamedValue) error

// openHooked returns a pool whose statements pass through h.
func openHooked(t testing.TB, e engine, dsn string, h hook) *sql.DB {
	t.Helper()
	pool := sql.OpenDB(hookedConnector(e.driver, dsn, h))
	t.Cleanup(func() { pool.Close() })
	return pool
}

func hookedConnector(driverName, dsn string, h hook) driver.Connector {
	plain, err := sql.Open(driverName, dsn)
	if err != nil {
		panic(err) // the names are constants of these tests
	}
	defer plain.Close()
	return &connector{inner: plain.Driver(), dsn: dsn, hook: h}
}

type connector struct {
	inner driver.Driver
	dsn   string
	hook  hook
}

func (c *connector) Driver() driver.Driver { return c.inner }

func (c *connector) Connect(context.Context) (driver.Conn, error) {
	inner, err := c.inner.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	return &hooked{inner, c.hook}, nil
}

// hooked passes on what the three drivers implement.
type hooked struct {
	driver.Conn
	hook hook
}

func (c *hooked) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.hook(query, args); err != nil {
		return nil, err
	}
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *hooked) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.hook(query, args); err != nil {
		return nil, err
	}
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *hooked) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
}

func (c *hooked) CheckNamedValue(v *driver.NamedValue) error {
	if inner, ok := c.Conn.(driver.NamedValueChecker); ok {
		return inner.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

func (c *hooked) ResetSession(ctx context.Context) error {
	return c.Conn.(driver.SessionResetter).ResetSession(ctx)
}

func (c *hooked) IsValid() bool {
	if inner, ok := c.Conn.(driver.Validator); ok {
		return inner.IsValid()
	}
	return true
}
