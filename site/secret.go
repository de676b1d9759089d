package site

import (
	"fmt"
	"log/slog"
)

// SecretLen is the length of a site's secret in bytes.
const SecretLen = 32

// Secret is key material. However it is printed, logged or marshalled, it shows nothing
// of itself; [Secret.Reveal] is the one way in. The zero Secret is empty.
type Secret struct{ b [SecretLen]byte }

const redacted = "[secret]"

// NewSecret wraps b, which must be [SecretLen] bytes and is copied.
func NewSecret(b []byte) (Secret, error) {
	if len(b) != SecretLen {
		return Secret{}, fmt.Errorf("site: a secret has %d bytes, not %d", SecretLen, len(b))
	}
	return Secret{[SecretLen]byte(b)}, nil
}

// Reveal returns a copy of the secret's bytes, for deriving keys and for
// storing it; for nothing else.
func (s Secret) Reveal() []byte { return append([]byte(nil), s.b[:]...) }

// IsZero reports whether s is empty.
func (s Secret) IsZero() bool { return s == Secret{} }

// Format implements [fmt.Formatter] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// String returns a constant.
func (s Secret) String() string { return redacted }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
