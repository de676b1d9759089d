package sqlsite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/site"
)

// Errors as the drivers have them.
type (
	codeError  int // of SQLite, with a method
	stateError string
	mysqlError struct {
		Number  uint16
		Message string
	}
)

func (e codeError) Error() string     { return fmt.Sprintf("some text (%d)", int(e)) }
func (e codeError) Code() int         { return int(e) }
func (e stateError) Error() string    { return "some text (SQLSTATE " + string(e) + ")" }
func (e stateError) SQLState() string { return string(e) }
func (e *mysqlError) Error() string   { return e.Message }

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		name    string
		dialect Dialect
		err     error
		want    kind
	}{
		{"nothing", SQLite, nil, final},
		{"a finding that wraps anything", MySQL, finding("%w", io.EOF), final},
		{"a bad connection", SQLite, driver.ErrBadConn, broken},

		{"busy", SQLite, codeError(5), crowded},
		{"busy, snapshot", SQLite, codeError(5 | 2<<8), crowded},
		{"locked, shared cache", SQLite, codeError(6 | 1<<8), crowded},
		{"protocol", SQLite, codeError(15), crowded},
		{"busy by its text", SQLite, errors.New("database is locked"), crowded},
		{"a locked table by its text", SQLite, errors.New("database table is locked: carillon_members"), crowded},
		{"full", SQLite, codeError(13), final},
		{"read-only", SQLite, codeError(8), final},
		{"some other text", SQLite, errors.New("no such table: x"), final},
		{"busy before the dialect is known", 0, codeError(5), crowded},

		{"serialization", PostgreSQL, stateError("40001"), crowded},
		{"deadlock, wrapped", PostgreSQL, fmt.Errorf("query: %w", stateError("40P01")), crowded},
		{"lock timeout", PostgreSQL, stateError("55P03"), crowded},
		{"too many connections before the dialect is known", 0, stateError("53300"), crowded},
		{"shutdown", PostgreSQL, stateError("57P01"), broken},
		{"idle in transaction", PostgreSQL, stateError("25P03"), broken},
		{"connection failure", PostgreSQL, stateError("08006"), broken},
		{"a network error", PostgreSQL, io.ErrUnexpectedEOF, broken},
		{"missing table", PostgreSQL, stateError("42P01"), final},

		{"deadlock", MySQL, &mysqlError{Number: 1213}, crowded},
		{"lock timeout by its text", MySQL, errors.New("Error 1205 (HY000): Lock wait timeout exceeded"), crowded},
		{"deadlock, joined", MySQL, errors.Join(io.EOF, &mysqlError{Number: 1213}), crowded},
		{"too many connections", MySQL, &mysqlError{Number: 1040}, crowded},
		{"server shutdown", MySQL, &mysqlError{Number: 1053}, broken},
		{"an invalid connection", MySQL, errors.New("invalid connection"), broken},
		{"missing table", MySQL, &mysqlError{Number: 1146}, final},
	} {
		t.Run(tt.dialect.String()+" "+tt.name, func(t *testing.T) {
			if got := classify(tt.dialect, tt.err); got != tt.want {
				t.Errorf("classify(%v, %v) = %d, want %d", tt.dialect, tt.err, got, tt.want)
			}
		})
	}
}

func TestHint_SaysWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		dialect Dialect
		err     error
		want    string
	}{
		{SQLite, codeError(8 | 4<<8), "may not write"},
		{SQLite, codeError(13), "no space left"},
		{0, codeError(14), "the folder exists"},
		{SQLite, errors.New("file is not a database"), "no intact SQLite"},
		{SQLite, errors.New("no such table: carillon_sites"), "EnsureSite"},
		{PostgreSQL, stateError("42P01"), "EnsureSite"},
		{PostgreSQL, stateError("42501"), "lacks a right"},
		{PostgreSQL, stateError("25006"), "primary"},
		{PostgreSQL, stateError("53100"), "no space left"},
		{0, stateError("53300"), "no connection left"},
		{MySQL, &mysqlError{Number: 1146}, "EnsureSite"},
		{MySQL, &mysqlError{Number: 1142}, "lacks a right"},
		{MySQL, &mysqlError{Number: 1290}, "primary"},
		{MySQL, &mysqlError{Number: 1114}, "no space left"},
		{MySQL, &mysqlError{Number: 1046}, "names no database"},
		{MySQL, io.EOF, ""},
		{SQLite, finding("%w", site.ErrGone), ""},
		{PostgreSQL, fmt.Errorf("%w: %w", context.Canceled, stateError("42501")), ""},
	} {
		if got := hint(tt.dialect, tt.err); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("hint(%v, %v) = %q, want it to say %q", tt.dialect, tt.err, got, tt.want)
		}
	}
}

func FuzzParseMySQLNumber(f *testing.F) {
	for _, s := range []string{"Error 1213 (40001): Deadlock found", "Error 1040: Too many connections", "Error ", "Error 99999: x", "error 1: x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := parseMySQLNumber(text)
		if n < 0 || n > 1<<16-1 {
			t.Errorf("parseMySQLNumber(%q) = %d", text, n)
		}
		if n > 0 && !strings.HasPrefix(text, "Error ") {
			t.Errorf("parseMySQLNumber(%q) = %d without the word", text, n)
		}
	})
}
