package appsettings

import (
	"fmt"
	"log/slog"
)

// A DSN is a data source name: where a database is and how to log in to it. It
// may hold a password, so however it is printed, logged or marshalled, it shows
// nothing of itself; [DSN.Reveal] is the one way in. The zero DSN is empty.
type DSN struct {
	// A pointer, because package fmt prints what an unexported field of somebody's
	// struct holds without asking its methods, and of a pointer the address only.
	p *string
}

const redacted = "[dsn]"

// NewDSN wraps s.
func NewDSN(s string) DSN {
	if s == "" {
		return DSN{}
	}
	return DSN{&s}
}

// Reveal returns the data source name, to open the database with it.
func (d DSN) Reveal() string {
	if d.p == nil {
		return ""
	}
	return *d.p
}

// IsZero reports whether d is empty.
func (d DSN) IsZero() bool { return d.p == nil }

// String returns a constant, or "" for the zero DSN.
func (d DSN) String() string {
	if d.IsZero() {
		return ""
	}
	return redacted
}

// Format implements [fmt.Formatter] for every verb.
func (d DSN) Format(f fmt.State, _ rune) { fmt.Fprint(f, d.String()) }

// LogValue implements [slog.LogValuer].
func (d DSN) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText implements [encoding.TextMarshaler].
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
