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

// macKey is a frameKey of the suite HMAC-SHA-256.
type macKey struct {
	states idle[macState]
}

// A macState is a keyed hash and the place for what it computes.
type macState struct {
	hash hash.Hash
	sum  [tagLen]byte
}

func newMACKey(key []byte) *macKey {
	m := new(macKey)
	m.states.create = func() *macState { return &macState{hash: hmac.New(sha256.New, key)} }
	return m
}

// tag computes the tag of a frame without its trailer. It is valid until st is used again.
func (st *macState) tag(frame []byte) []byte {
	st.hash.Reset()
	st.hash.Write(frameContext)
	st.hash.Write(frame)
	return st.hash.Sum(st.sum[:0])
}

func (m *macKey) seal(frame []byte) {
	end := len(frame) - tagLen
	st := m.states.get()
	copy(frame[end:], st.tag(frame[:end]))
	m.states.put(st)
}

func (m *macKey) open(frame []byte) ([]byte, error) {
	end := len(frame) - tagLen
	if end < wire.HeaderLen {
		return nil, ErrTag
	}
	st := m.states.get()
	ok := hmac.Equal(st.tag(frame[:end]), frame[end:])
	m.states.put(st)
	if !ok {
		return nil, ErrTag
	}
	return frame[wire.HeaderLen:end:end], nil
}
