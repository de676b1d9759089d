package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"sync/atomic"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// An Opener checks frames against the keyrings of the sites accepted. It is safe for
// concurrent use. Make it with [NewOpener].
//
// Keys derived for a stream are remembered, in bounded number, only after a
// valid tag, so that forged streams cannot push out real ones.
type Opener struct {
	ring atomic.Pointer[ring] // never nil
}

// A ring is what the Opener knows between two calls of SetKeys. Derived keys
// belong to it, so none outlives the change that revoked its key.
type ring struct {
	sites map[site.ID]*ringSite // read-only
	cache cache
}

type ringSite struct {
	keys        map[site.KeyID]*ringKey
	macRequired bool
}

type ringKey struct {
	key    site.Key
	refuse error // why it must not be used, or nil
}

// NewOpener returns an Opener that accepts no site before
// [Opener.SetKeys].
func NewOpener() *Opener {
	o := new(Opener)
	o.SetKeys(nil)
	return o
}

// SetKeys replaces the sites accepted, with their keys and floors, and forgets every
// derived key. Calls of Open that already run may still go by the ones before. sites is not
// kept.
func (o *Opener) SetKeys(sites []site.Site) {
	r := &ring{sites: make(map[site.ID]*ringSite, len(sites))}
	for i := range sites {
		s := &sites[i]
		rs := &ringSite{keys: make(map[site.KeyID]*ringKey, len(s.Keys)), macRequired: s.Floors.MACRequired}
		for _, k := range s.Keys {
			rs.keys[k.ID] = &ringKey{key: k, refuse: refusal(s, &k)}
		}
		r.sites[s.ID] = rs
	}
	o.ring.Store(r)
}

// refusal returns why frames under k are refused whatever they hold, or nil.
func refusal(s *site.Site, k *site.Key) error {
	switch {
	case k.State.Ended():
		return ErrRevoked
	case !k.State.Verifies():
		return fmt.Errorf("key %d of site %v: %w: it does not know state %d: upgrade it", k.ID, s.ID, ErrUnsupported, k.State)
	}
	if s.Floors.Allow(*k) != nil {
		return ErrFloor
	}
	return usable(s.ID, k)
}

// find returns the key named, or why it cannot be used.
func (r *ring) find(s site.ID, k site.KeyID) (*ringSite, *ringKey, error) {
	rs := r.sites[s]
	if rs == nil {
		return nil, nil, ErrUnknownSite
	}
	rk := rs.keys[k]
	if rk == nil {
		return nil, nil, ErrUnknownKey
	}
	return rs, rk, rk.refuse
}

// Open checks that frame was sealed with key k of site s for stream, which are what its header
// says, and returns its body in the clear. The body of a suite that does not encrypt
// aliases frame; frame is never changed. The errors are those at the top of this package
// except [ErrProof].
func (o *Opener) Open(s site.ID, k site.KeyID, stream site.StreamID, frame []byte) (body []byte, err error) {
	r := o.ring.Load()
	_, rk, err := r.find(s, k)
	if err != nil {
		return nil, err
	}
	return r.open(s, rk, stream, frame)
}

// OpenTrusting is Open for an instance that has been told to trust its providers'
// channels: it does not look at the tag of a frame that is neither a control
// frame nor encrypted, unless the site's floors require a MAC. Everything else
// it checks as Open does.
func (o *Opener) OpenTrusting(s site.ID, k site.KeyID, stream site.StreamID, frame []byte) (body []byte, err error) {
	r := o.ring.Load()
	rs, rk, err := r.find(s, k)
	if err != nil {
		return nil, err
	}
	end := len(frame) - tagLen
	if rs.macRequired || rk.key.Suite.Encrypts() || end < wire.HeaderLen || wire.FrameType(frame).Control() {
		return r.open(s, rk, stream, frame)
	}
	if wire.FrameVersion(frame) != rk.key.Version {
		return nil, ErrVersion
	}
	return frame[wire.HeaderLen:end:end], nil
}

func (r *ring) open(s site.ID, rk *ringKey, stream site.StreamID, frame []byte) ([]byte, error) {
	if len(frame) < wire.HeaderLen {
		return nil, ErrTag
	}
	if wire.FrameVersion(frame) != rk.key.Version {
		return nil, ErrVersion
	}
	of := keyOf{rk, stream}
	if known := r.cache.get(of); known != nil {
		return known.open(frame)
	}
	derived := newFrameKey(s, &rk.key, stream)
	body, err := derived.open(frame)
	if err == nil {
		r.cache.put(of, derived)
	}
	return body, err
}

// Prove returns the proof of transcript for a connection's handshake. label
// says what is proven and by which side, so that a proof never serves for
// another purpose; its key is never that of a frame. The errors are those of
// [Opener.Open] except [ErrVersion] and [ErrTag].
func (o *Opener) Prove(s site.ID, k site.KeyID, label string, transcript []byte) ([sha256.Size]byte, error) {
	_, rk, err := o.ring.Load().find(s, k)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	h := hmac.New(sha256.New, derive(proofInfo, s, &rk.key, label))
	h.Write(proofContext)
	h.Write(transcript)
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// proofContext is to proofs what frameContext is to frames.
var proofContext = []byte("carillon proof v1\x00")

// Verify reports in constant time whether proof is what [Opener.Prove] returns for
// the same arguments: nil, [ErrProof], or why the key cannot be used.
func (o *Opener) Verify(s site.ID, k site.KeyID, label string, transcript []byte, proof [sha256.Size]byte) error {
	want, err := o.Prove(s, k, label, transcript)
	if err != nil {
		return err
	}
	if !hmac.Equal(want[:], proof[:]) {
		return ErrProof
	}
	return nil
}
