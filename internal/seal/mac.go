package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"

	"github.com/carillon-go/carillon/internal/wire"
)

const tagLen = sha256.Size

// frameContext is hashed before a frame, so that a tag is never valid for
// anything but a frame, whatever else may be computed under the same key one
// day. RFC 9052 section 6.3 does the same.
var frameContext = []byte("carillon frame v1\x00")

// macKey is a frameKey of the suites that do not encrypt. The trailer is the
// HMAC-SHA-256 of the header and of the body, or of the body's hash.
type macKey struct {
	bodies *ghash // nil: the HMAC covers the body itself
	states idle[macState]
}

// A macState is a keyed HMAC and the places for what is computed.
type macState struct {
	hmac hash.Hash
	body [ghashLen]byte
	tag  [tagLen]byte
}

func newMACKey(key []byte, bodies *ghash) *macKey {
	m := &macKey{bodies: bodies}
	m.states.create = func() *macState { return &macState{hmac: hmac.New(sha256.New, key)} }
	return m
}

// tag computes the tag of a frame without its trailer. It is valid until st is used again.
func (m *macKey) tag(st *macState, frame []byte) []byte {
	st.hmac.Reset()
	st.hmac.Write(frameContext)
	if m.bodies == nil {
		st.hmac.Write(frame)
	} else {
		st.hmac.Write(frame[:wire.HeaderLen])
		st.hmac.Write(m.bodies.sum(st.body[:0], frame[wire.HeaderLen:]))
	}
	return st.hmac.Sum(st.tag[:0])
}

func (m *macKey) seal(frame []byte) {
	end := len(frame) - tagLen
	st := m.states.get()
	copy(frame[end:], m.tag(st, frame[:end]))
	m.states.put(st)
}

func (m *macKey) open(frame []byte) ([]byte, error) {
	end := len(frame) - tagLen
	if end < wire.HeaderLen {
		return nil, ErrTag
	}
	st := m.states.get()
	ok := hmac.Equal(m.tag(st, frame[:end]), frame[end:])
	m.states.put(st)
	if !ok {
		return nil, ErrTag
	}
	return frame[wire.HeaderLen:end:end], nil
}
