package sqlsite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// A kind says what an error asks of the caller.
type kind uint8

const (
	final   kind = iota // the same call would fail again
	crowded             // another was quicker, or holds a lock
	broken              // the connection is of no more use
)

// A finding is an error that sqlsite itself came to, over a connection that works.
type findingError struct{ error }

func (e *findingError) Unwrap() error { return e.error }

func finding(format string, args ...any) error {
	return &findingError{fmt.Errorf(format, args...)}
}

// errDamaged says that what every transaction needs is gone.
var errDamaged = finding("the row of counters is missing: somebody changed the tables; restore them from a backup")

// A connectError says that there was no connection.
type connectError struct{ err error }

func (e *connectError) Error() string { return "connect: " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// A commitError says that the transaction could not be ended.
type commitError struct{ err error }

func (e *commitError) Error() string { return "commit: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

// mayRepeat reports whether nothing of what failed with err is stored. When the
// connection broke during a commit, nobody knows; when there was none, trying at
// once leads nowhere.
func mayRepeat(err error) bool {
	if _, ok := errors.AsType[*connectError](err); ok {
		return false
	}
	_, ok := errors.AsType[*commitError](err)
	return !ok
}

// classify sorts err by what its database says in it. The drivers are not linked here, so
// their error types are known by their methods and texts.
func classify(d Dialect, err error) kind {
	if err == nil {
		return final
	}
	if _, ok := errors.AsType[*findingError](err); ok {
		return final
	}
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return broken
	}
	if errors.Is(err, sql.ErrNoRows) {
		return final
	}
	switch guess(d, err) {
	case SQLite:
		switch sqliteCode(err) {
		case sqliteBusy, sqliteLocked, sqliteProtocol:
			return crowded
		}
		return final
	case PostgreSQL:
		switch state := sqlState(err); {
		case state == "":
			return broken
		case state == "40001", state == "40P01", state == "55P03", state == "53300":
			return crowded // serialization, deadlock, lock timeout, too many connections
		case strings.HasPrefix(state, "08"), state == "57P01", state == "57P02", state == "25P03", state == "57P05":
			return broken // connection, shutdown, crash, idle for too long
		}
		return final
	case MySQL:
		switch mysqlNumber(err) {
		case 0, 1053, 1927, 2006, 2013, 4031: // no answer from the server, shutdown, killed, gone, lost, idle for too long
			return broken
		case 1213, 1205, 1020, 1040, 1203: // deadlock, lock timeout, changed since read, too many connections
			return crowded
		}
		return final
	}
	return final
}

// guess returns d, or what err looks like when the server could not even be
// asked what it is.
func guess(d Dialect, err error) Dialect {
	switch {
	case d != 0:
		return d
	case sqlState(err) != "":
		return PostgreSQL
	case mysqlNumber(err) != 0:
		return MySQL
	case sqliteCode(err) != 0:
		return SQLite
	}
	return 0
}

// hint returns what an operator can do about err, with "; " before it, or "".
func hint(d Dialect, err error) string {
	if h := hintText(d, err); h != "" {
		return "; " + h
	}
	return ""
}

const (
	hintTables  = "the tables are not there: EnsureSite makes them"
	hintRights  = "the database user lacks a right: it needs to create tables once, and to select, insert, update and delete in them"
	hintDisk    = "the database has no space left"
	hintReplica = "the server takes no writes: connect to the primary"
)

func hintText(d Dialect, err error) string {
	if _, ok := errors.AsType[*findingError](err); ok || errors.Is(err, context.Canceled) {
		return ""
	}
	switch guess(d, err) {
	case SQLite:
		switch sqliteCode(err) {
		case sqliteReadOnly:
			return "this process may not write to the database file: check the rights of the file and of its folder, and the DSN for mode=ro"
		case sqliteFull:
			return hintDisk
		case sqliteCantOpen:
			return "check that the folder exists and that this process may write to it"
		case sqliteNotADB, sqliteCorrupt:
			return "the file is no intact SQLite database"
		}
		if strings.Contains(err.Error(), "no such table") {
			return hintTables
		}
	case PostgreSQL:
		switch sqlState(err) {
		case "42P01":
			return hintTables
		case "42501":
			return hintRights
		case "53100":
			return hintDisk
		case "25006":
			return hintReplica
		case "53300":
			return "the server has no connection left: raise its limit or lower that of the pools"
		}
	case MySQL:
		switch mysqlNumber(err) {
		case 1146:
			return hintTables
		case 1044, 1142, 1143, 1227:
			return hintRights
		case 1021, 1041, 1114:
			return hintDisk
		case 1290, 1792, 1836:
			return hintReplica
		case 1040, 1203:
			return "the server has no connection left: raise its limit or lower that of the pools"
		case 1046:
			return "the DSN names no database"
		}
	}
	return ""
}

// isNoTransaction reports that a ROLLBACK had nothing to end.
func isNoTransaction(d Dialect, err error) bool {
	return d == SQLite && strings.Contains(err.Error(), "no transaction is active")
}

// Result codes of SQLite, without the extension in their higher bytes.
const (
	sqliteBusy     = 5
	sqliteLocked   = 6
	sqliteReadOnly = 8
	sqliteCorrupt  = 11
	sqliteFull     = 13
	sqliteCantOpen = 14
	sqliteProtocol = 15
	sqliteNotADB   = 26
)

// What SQLite itself says, for drivers that give their code in a way of their own.
var sqliteTexts = []struct {
	text string
	code int
}{
	{"database is locked", sqliteBusy},
	{"table is locked", sqliteLocked},
	{"schema is locked", sqliteLocked},
	{"locking protocol", sqliteProtocol},
	{"readonly database", sqliteReadOnly},
	{"database or disk is full", sqliteFull},
	{"unable to open database file", sqliteCantOpen},
	{"file is not a database", sqliteNotADB},
	{"disk image is malformed", sqliteCorrupt},
}

// sqliteCode returns the result code in err, or 0.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		return e.Code() & 0xff
	}
	text := err.Error()
	for _, t := range sqliteTexts {
		if strings.Contains(text, t.text) {
			return t.code
		}
	}
	return 0
}

// sqlState returns the SQLSTATE in err, or "".
func sqlState(err error) string {
	if e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return e.SQLState()
	}
	return ""
}

// mysqlNumber returns the server's error number in err, or 0. The driver has it
// in a field Number; its text is "Error 1213 (40001): Deadlock found …".
func mysqlNumber(err error) int {
	for e := range chain(err) {
		v := reflect.ValueOf(e)
		if v.Kind() == reflect.Pointer && !v.IsNil() {
			v = v.Elem()
		}
		if v.Kind() == reflect.Struct {
			if f := v.FieldByName("Number"); f.IsValid() && f.CanUint() {
				return int(f.Uint())
			}
		}
		if n := parseMySQLNumber(e.Error()); n > 0 {
			return n
		}
	}
	return 0
}

func parseMySQLNumber(text string) int {
	rest, ok := strings.CutPrefix(text, "Error ")
	if !ok {
		return 0
	}
	end := strings.IndexAny(rest, " :")
	if end < 0 {
		return 0
	}
	n, err := strconv.ParseUint(rest[:end], 10, 16)
	if err != nil {
		return 0
	}
	return int(n)
}

// chain yields err and everything it wraps.
func chain(err error) func(yield func(error) bool) {
	var walk func(err error, yield func(error) bool) bool
	walk = func(err error, yield func(error) bool) bool {
		if err == nil {
			return true
		}
		if !yield(err) {
			return false
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			return walk(e.Unwrap(), yield)
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				if !walk(inner, yield) {
					return false
				}
			}
		}
		return true
	}
	return func(yield func(error) bool) { walk(err, yield) }
}
