package site

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// SecretLen is the length of a site's secret in bytes.
const SecretLen = 32

// Secret is key material. However it is printed, logged or marshalled, it shows nothing
// of itself; [Secret.Reveal] is the one way in. The zero Secret is empty. Compare
// with [Secret.Equal].
type Secret struct {
	// A function, because package fmt calls no method on a field that is not
	// exported: a Secret in a field of somebody's own struct would print its
	// bytes, and for some verbs those behind a pointer too.
	bytes func() [SecretLen]byte
}

const redacted = "[secret]"

// NewSecret wraps b, which must be [SecretLen] bytes and is copied.
func NewSecret(b []byte) (Secret, error) {
	if len(b) != SecretLen {
		return Secret{}, fmt.Errorf("site: a secret has %d bytes, not %d", SecretLen, len(b))
	}
	own := [SecretLen]byte(b)
	return Secret{func() [SecretLen]byte { return own }}, nil
}

// Reveal returns a copy of the secret's bytes, for deriving keys and for
// storing it; for nothing else.
// Nil if s is empty.
func (s Secret) Reveal() []byte {
	if s.bytes == nil {
		return nil
	}
	b := s.bytes()
	return b[:]
}

// IsZero reports whether s is empty.
func (s Secret) IsZero() bool { return s.bytes == nil }

// Equal reports in constant time whether s and t hold the same bytes.
func (s Secret) Equal(t Secret) bool {
	return subtle.ConstantTimeCompare(s.Reveal(), t.Reveal()) == 1
}

// Format implements [fmt.Formatter] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// String returns a constant.
func (s Secret) String() string { return redacted }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
