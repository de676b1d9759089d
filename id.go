package carillon

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/carillon-go/carillon/site"
)

// An ID is a GUID: it names an event, or who raised it. The zero ID names
// nothing and cannot be raised.
type ID [16]byte

// NewID returns a random ID (a version 4 UUID).
func NewID() ID {
	var id ID
	rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads the forms in which GUIDs are usually written: 32 hexadecimal digits
// in either case, with dashes after the 8th, 12th, 16th and 20th or with none,
// alone or between braces or parentheses, or after "urn:uuid:".
func ParseID(s string) (ID, error) {
	digits := s
	const urn = "urn:uuid:"
	switch {
	case len(digits) > len(urn) && digits[:len(urn)] == urn:
		digits = digits[len(urn):]
	case len(digits) > 2 && (digits[0] == '{' && digits[len(digits)-1] == '}' || digits[0] == '(' && digits[len(digits)-1] == ')'):
		digits = digits[1 : len(digits)-1]
	}
	if len(digits) == 36 && digits[8] == '-' && digits[13] == '-' && digits[18] == '-' && digits[23] == '-' {
		digits = digits[:8] + digits[9:13] + digits[14:18] + digits[19:23] + digits[24:]
	}
	var id ID
	if len(digits) == 2*len(id) {
		if _, err := hex.Decode(id[:], []byte(digits)); err == nil {
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("carillon: %q is not a GUID; write it like 7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15", s)
}

// MustParseID is [ParseID] for constants in programs: it panics where ParseID
// returns an error.
func MustParseID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(err.Error())
	}
	return id
}

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// String returns id in lower case with dashes.
func (id ID) String() string { return site.ID(id).String() }

// MarshalText implements [encoding.TextMarshaler] with what String returns.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]; it reads what [ParseID]
// does.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
