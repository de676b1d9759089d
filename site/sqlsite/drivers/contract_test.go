package drivers

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

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
}

func TestDatabase_KeepsTheContract(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		sitetest.Run(t, func(t testing.TB) sitetest.Store { return newStore(t, e) })
	})
}
