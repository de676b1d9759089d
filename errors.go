package carillon

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed reports a call on a [Broker], or on an event of it, after
	// Shutdown or Close has begun. If it comes alone, nothing was raised.
	ErrClosed = errors.New("carillon: the broker is closed")

	// ErrTooLarge reports a parameter whose encoded form is longer than
	// [Config.MaxEventBytes]. Nothing was raised. Send a reference to the data
	// instead: events announce, state is read from the database.
	ErrTooLarge = errors.New("carillon: event too large")

	// ErrRole reports a raise by an instance whose [Role] is Subscribe. Nothing
	// was raised. It is not returned for [LocalOnly].
	ErrRole = errors.New("carillon: this instance does not publish events")

	// ErrUnsent reports a raise that local subscribers have heard and that
	// nobody else will hear: the context ended, the Broker was closed, or the
	// bound before Enable was reached, while there was no room to send. Retrying
	// the raise makes local subscribers hear it again.
	ErrUnsent = errors.New("carillon: not sent: local subscribers have heard it and nobody else will")

	// ErrCopied is returned by Open when an instance is heard that has the same
	// site and keys, and another database: one of the two is a copy. The error
	// says how to give it a site of its own.
	ErrCopied = errors.New("carillon: this site has two databases")

	// ErrNotEnabled reports, together with [ErrUnsent], that what was raised before
	// [Broker.Enable] has reached [Config.UnsentBytes].
	ErrNotEnabled = errors.New("carillon: too much raised before Enable")
)

// A ConfigError says which field of [Config] is wrong, and why.
type ConfigError struct {
	Field  string // as in the Go source: "Application"
	Reason string // what is wrong with which value, and what would be right
	Err    error  // cause, or nil
}

func (e *ConfigError) Error() string {
	s := "carillon: Config." + e.Field + ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause, or nil.
func (e *ConfigError) Unwrap() error { return e.Err }

func configErrorf(field, format string, args ...any) *ConfigError {
	return &ConfigError{Field: field, Reason: fmt.Sprintf(format, args...)}
}
