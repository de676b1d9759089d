package uplink

import "strings"

// A Trouble is an error for an operator: one line that says what was tried, what went wrong, and what to do about it. It wraps the
// error that it explains.
type Trouble struct {
	line string
	err  error
}

// NewTrouble returns a Trouble with this line. err is what it explains, or nil.
func NewTrouble(line string, err error) *Trouble { return &Trouble{line, err} }

// Error returns the line.
func (t *Trouble) Error() string { return t.line }

// Unwrap returns the error that t explains, or nil.
func (t *Trouble) Unwrap() error { return t.err }

// FirstLine returns the beginning of what a server or a library said, for a [Trouble]: one line, of 200 bytes at most.
func FirstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.TrimSpace(s)
}
