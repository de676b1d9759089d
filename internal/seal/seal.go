// Package seal protects frames and connection handshakes with the keys of a
// site: it derives keys, writes and checks tags, and encrypts where the suite
// does. It decides nothing else: whether a frame is new, or makes sense, is for
// others to say. docs/PROTOCOL.md describes the same bytes in prose.
//
// No key leaves the package, and none shows when its values are printed.
package seal

import (
	"crypto/fips140"
	"errors"
	"fmt"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

const keyLen = 32 // of every derived key, in bytes

// Why a frame was not opened, or a handshake not proven. None is allocated per
// frame. Errors of this package match one of them under [errors.Is].
var (
	// ErrUnknownSite reports a site that is not accepted: on a shared network
	// segment a matter of course.
	ErrUnknownSite = errors.New("seal: the site is not one of those accepted")

	// ErrUnknownKey reports a key ID that the site's keyring does not hold: the
	// key is newer than what was read of the database, or the ID is invented.
	ErrUnknownKey = errors.New("seal: the site has no such key")

	// ErrRevoked reports a key that must not be used any more. It is not
	// returned for retiring keys.
	ErrRevoked = errors.New("seal: the key is revoked")

	// ErrFloor reports a key that protects less than the site's floors ask for.
	ErrFloor = errors.New("seal: the key is below the site's floors")

	// ErrUnsupported reports a key whose version, suite or state this program does
	// not know, because it is older than the one that made the key, or a suite that
	// GODEBUG=fips140=only does not allow.
	ErrUnsupported = errors.New("seal: this program cannot use the key")

	// ErrVersion reports a frame of another wire version than its key has.
	ErrVersion = errors.New("seal: the frame's version is not that of its key")

	// ErrTag reports a frame that was altered, forged, sealed with another
	// secret, or is too short to have a tag.
	ErrTag = errors.New("seal: the tag does not match")

	// ErrProof reports a handshake proof that does not match.
	ErrProof = errors.New("seal: the proof does not match")
)

// MaxTrailer is the longest trailer of any suite, in bytes. Frames that leave so
// much room can be sealed under any key.
const MaxTrailer = tagLen

// TrailerLen returns how many bytes at the end of a frame the suite takes.
// [ErrUnsupported] means that this program does not know the suite.
func TrailerLen(suite site.Suite) (int, error) {
	switch suite {
	case site.SuiteHMACSHA256, site.SuiteGHASHHMAC:
		return tagLen, nil
	case site.SuiteAES256GCM:
		return gcmTrailerLen, nil
	default:
		return 0, fmt.Errorf("%w: it does not know suite %d: upgrade it", ErrUnsupported, suite)
	}
}

// A frameKey protects the frames of one stream with one derived key. It is safe
// for concurrent use.
type frameKey interface {
	// seal writes the trailer, after encrypting the body in place if the suite
	// does.
	seal(frame []byte)
	// open returns the body, or ErrTag. It does not change frame.
	open(frame []byte) ([]byte, error)
}

// newFrameKey derives the key of a stream. k is usable, see [usable].
func newFrameKey(s site.ID, k *site.Key, stream site.StreamID) frameKey {
	key := derive(frameInfo, s, k, string(stream[:]))
	switch k.Suite {
	case site.SuiteAES256GCM:
		return newGCMKey(key)
	case site.SuiteGHASHHMAC:
		return newMACKey(key, newGHASH(key))
	default:
		return newMACKey(key, nil)
	}
}

// Usable returns why frames of site s cannot be sealed and opened under k with this
// program, or nil. It does not look at the state of k.
func Usable(s site.ID, k site.Key) error { return usable(s, &k) }

// usable returns why k cannot be used with this program, or nil.
func usable(s site.ID, k *site.Key) error {
	switch {
	case s == site.ID{} || k.ID == 0:
		return fmt.Errorf("%w: site %v, key %d: neither may be zero", ErrUnknownKey, s, k.ID)
	case k.Version != wire.Version:
		return fmt.Errorf("key %d of site %v: %w: it is for wire version %d, and only %d is known here: upgrade the program", k.ID, s, ErrUnsupported, k.Version, wire.Version)
	case k.Secret.IsZero():
		return fmt.Errorf("%w: key %d of site %v has no secret", ErrUnknownKey, k.ID, s)
	}
	if _, err := TrailerLen(k.Suite); err != nil {
		return fmt.Errorf("key %d of site %v: %w", k.ID, s, err)
	}
	if fips140.Enforced() && k.Suite != site.SuiteHMACSHA256 {
		return fmt.Errorf("key %d of site %v: %w: GODEBUG=fips140=only does not allow suite %v: rotate to %v", k.ID, s, ErrUnsupported, k.Suite, site.SuiteHMACSHA256)
	}
	return nil
}
