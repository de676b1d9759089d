package sqlsite

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
)

// A Dialect is what a database speaks. The zero Dialect is not known yet.
type Dialect uint8

const (
	_ Dialect = iota
	SQLite
	PostgreSQL
	MySQL // and MariaDB

	dialectEnd
)

var dialectNames = [...]string{"unknown", "SQLite", "PostgreSQL", "MySQL"}

// String returns the dialect's name.
func (d Dialect) String() string {
	if int(d) < len(dialectNames) {
		return dialectNames[d]
	}
	return fmt.Sprintf("Dialect(%d)", uint8(d))
}

// ask finds the dialect by what the server says of itself. A driver's name would not do: one driver
// speaks to several servers, and several drivers to one.
func ask(ctx context.Context, c *sql.Conn) (Dialect, error) {
	var version string
	err := c.QueryRowContext(ctx, `SELECT version()`).Scan(&version)
	if err != nil {
		if c.QueryRowContext(ctx, `SELECT sqlite_version()`).Scan(&version) == nil {
			return SQLite, nil
		}
		return 0, err
	}
	return parseVersion(version)
}

// parseVersion reads what version() answered: "PostgreSQL 15.18 (Debian …) on x86_64 …", or
// for MySQL and MariaDB a number first: "8.0.36", "10.11.19-MariaDB-0+deb12u1".
func parseVersion(version string) (Dialect, error) {
	first, _, _ := strings.Cut(version, ".")
	_, err := strconv.ParseUint(first, 10, 16)
	switch {
	case strings.HasPrefix(version, "PostgreSQL "):
		return PostgreSQL, nil
	case err == nil:
		return MySQL, nil
	}
	return 0, finding("the server says it is %.80q, which is not SQLite, PostgreSQL, MySQL or MariaDB; if it speaks like one of them, name that in WithDialect", version)
}

// nowMS is the server's clock in milliseconds since 1970, constant within a
// statement. It ignores the session's time zone, which an hour of daylight saving time would
// make ambiguous.
func (d Dialect) nowMS() string {
	switch d {
	case PostgreSQL:
		return `CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)`
	case MySQL:
		return `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000`
	default:
		return `CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)`
	}
}

// standby is text that [isStandby] reads.
func (d Dialect) standby() string {
	switch d {
	case PostgreSQL:
		return `CAST(pg_is_in_recovery() AS TEXT)`
	case MySQL:
		// Aurora's readers say it in the second.
		return `CONCAT(CAST(@@global.read_only AS CHAR), ',', CAST(@@global.innodb_read_only AS CHAR))`
	default:
		return `''`
	}
}

// isStandby reports whether the server said that it takes no writes.
func isStandby(said string) bool {
	for s := range strings.SplitSeq(strings.ToUpper(said), ",") {
		switch s {
		case "", "F", "FALSE", "0", "OFF":
		default:
			return true
		}
	}
	return false
}

// greater is the function that returns the greatest of its arguments.
func (d Dialect) greater() string {
	if d == SQLite {
		return "MAX"
	}
	return "GREATEST"
}

// beginWrite are the statements that begin a transaction that writes. SQLite
// takes the write lock at once, because a transaction that reads first and wants it
// later fails without waiting when another was quicker.
//
// A process that is stopped in the middle of a transaction would hold the counters' lock, and so
// everybody else. On PostgreSQL the transaction itself says after what time the server ends it; for
// MySQL see [mysqlSession].
func (d Dialect) beginWrite() []string {
	switch d {
	case PostgreSQL:
		return []string{`BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = 2000; SET LOCAL idle_in_transaction_session_timeout = 5000`}
	case MySQL:
		return []string{`START TRANSACTION`}
	default:
		return []string{`BEGIN IMMEDIATE`}
	}
}

// beginRead are the statements that begin a transaction whose reads all see the
// same state, whatever the isolation that the application has as its default.
func (d Dialect) beginRead() []string {
	switch d {
	case PostgreSQL:
		return []string{`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`}
	case MySQL:
		return []string{`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`, `START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY`}
	default:
		return []string{`BEGIN`}
	}
}

// mysqlSession is what a connection is told that never goes back to the pool. Without autocommit a
// SELECT alone would begin a transaction, and every later one see what the first saw. The server ends the
// connection when it idles for 5 s, which a process that polls does only when
// it is stopped, perhaps in the middle of a transaction.
const mysqlSession = `SET SESSION autocommit = 1, SESSION wait_timeout = 5, SESSION innodb_lock_wait_timeout = 2`

// bind turns each ? of query into what the dialect has as a placeholder. No
// query here has a ? in a string.
func (d Dialect) bind(query string) string {
	if d != PostgreSQL {
		return query
	}
	var b strings.Builder
	n := 0
	for i, part := range strings.Split(query, "?") {
		if i > 0 {
			n++
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
	}
	return b.String()
}
