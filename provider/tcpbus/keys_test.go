package tcpbus

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// secretKeys are Keys with one key of one site.
type secretKeys struct {
	site   site.ID
	key    site.KeyID
	secret string
}

func (k secretKeys) Signing() (site.ID, site.KeyID) { return k.site, k.key }

func (k secretKeys) Prove(s site.ID, id site.KeyID, handshake string, side provider.Side, transcript []byte) ([32]byte, error) {
	if s != k.site || id != k.key {
		return [32]byte{}, provider.ErrKey
	}
	m := hmac.New(sha256.New, []byte(k.secret))
	m.Write([]byte(handshake))
	m.Write([]byte{byte(side)})
	m.Write(transcript)
	return [32]byte(m.Sum(nil)), nil
}

func (k secretKeys) Verify(s site.ID, id site.KeyID, handshake string, side provider.Side, transcript []byte, proof [32]byte) error {
	want, err := k.Prove(s, id, handshake, side, transcript)
	if err != nil {
		return err
	}
	if !hmac.Equal(want[:], proof[:]) {
		return provider.ErrProof
	}
	return nil
}

// ring are Keys of several sites; the first signs.
type ring []secretKeys

func (r ring) of(s site.ID) secretKeys {
	for _, k := range r {
		if k.site == s {
			return k
		}
	}
	return secretKeys{}
}

func (r ring) Signing() (site.ID, site.KeyID) { return r[0].Signing() }

func (r ring) Prove(s site.ID, id site.KeyID, handshake string, side provider.Side, transcript []byte) ([32]byte, error) {
	return r.of(s).Prove(s, id, handshake, side, transcript)
}

func (r ring) Verify(s site.ID, id site.KeyID, handshake string, side provider.Side, transcript []byte, proof [32]byte) error {
	return r.of(s).Verify(s, id, handshake, side, transcript, proof)
}

func testKeys() provider.Keys { return secretKeys{testSite, testKey, "the site's secret"} }

// wrongKeys name the right key and hold another secret.
func wrongKeys() provider.Keys { return secretKeys{testSite, testKey, "a guess"} }
