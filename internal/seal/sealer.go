package seal

import (
	"fmt"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A Sealer seals the frames of one stream with one key. It is safe for
// concurrent use. Make it with [NewSealer].
type Sealer struct {
	key     frameKey
	trailer int
}

// NewSealer returns a Sealer for the frames of stream, an instance of s. Only
// an active key seals. [ErrUnsupported] means that this program is too old for
// the key.
func NewSealer(key site.Key, s site.ID, stream site.StreamID) (*Sealer, error) {
	if err := usable(s, &key); err != nil {
		return nil, err
	}
	if key.State != site.KeyActive {
		return nil, fmt.Errorf("seal: key %d of site %v is not active (state %d): read the keyring again", key.ID, s, key.State)
	}
	if stream == (site.StreamID{}) {
		return nil, fmt.Errorf("seal: the stream ID is zero")
	}
	trailer, err := TrailerLen(key.Suite)
	if err != nil {
		return nil, err
	}
	return &Sealer{key: newFrameKey(s, &key, stream), trailer: trailer}, nil
}

// Trailer returns how many bytes at the end of a frame [Sealer.Seal] writes.
func (s *Sealer) Trailer() int { return s.trailer }

// Seal writes the trailer over the last [Sealer.Trailer] bytes of frame, which are not
// looked at; a suite that encrypts also changes the body in place. The header
// must be complete and name the site, the key and the stream of this Sealer. A frame is
// sealed once in its life; no two frames of one kind have the same number.
// Seal panics when frame is shorter than a header and a trailer.
func (s *Sealer) Seal(frame []byte) {
	if len(frame) < wire.HeaderLen+s.trailer {
		panic(fmt.Sprintf("seal: a frame of %d bytes has no room for header and trailer", len(frame)))
	}
	s.key.seal(frame)
}
