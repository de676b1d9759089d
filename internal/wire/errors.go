package wire

import "errors"

// Why bytes are not a frame of this version. Errors of this package match
// exactly one of these under [errors.Is]; none is allocated per frame, so that
// a flood of bad frames costs no memory.
var (
	// ErrLength reports a frame shorter than its header or longer than
	// [MaxFrameLen], or one whose length field says something else than its
	// length.
	ErrLength = errors.New("wire: frame length out of range or not the length stated")

	// ErrMagic reports bytes that are no Carillon frame at all.
	ErrMagic = errors.New("wire: not a carillon frame")

	// ErrVersion reports a frame of a wire version that this package does not
	// know: a newer instance is there, or a much older one.
	ErrVersion = errors.New("wire: unknown wire version")

	// ErrType reports a frame type that this version does not define.
	ErrType = errors.New("wire: unknown frame type")

	// ErrMalformed reports every other breach of the layout.
	ErrMalformed = errors.New("wire: malformed frame")
)

// malformed is an [ErrMalformed] that says what is wrong.
type malformed string

func (m malformed) Error() string        { return "wire: malformed frame: " + string(m) }
func (m malformed) Is(target error) bool { return target == ErrMalformed }

const (
	errFlags     = malformed("a flag is set that this version does not define")
	errZeroID    = malformed("site, stream or key ID is zero")
	errNumber    = malformed("frame number is 0 or not below 2^48")
	errOrdinal   = malformed("ordinal or ordinal plus count is not below 2^48")
	errCount     = malformed("event count does not fit the frame type or the body")
	errShort     = malformed("body ends inside a field")
	errVarint    = malformed("integer is not in its shortest form or above its limit")
	errTrailing  = malformed("bytes left over after the last field")
	errReference = malformed("reference to an ID that the frame has not introduced")
	errExtension = malformed("extensions are not ascending")
	errOrder     = malformed("order number is 0 or not below 2^48")
	errListLen   = malformed("list is too long or longer than the body")
	errRange     = malformed("range is empty, not ascending or out of bounds")
	errFlag      = malformed("flag byte is neither 0 nor 1")
	errFragment  = malformed("fragment index, total, size and chunk disagree")
)
