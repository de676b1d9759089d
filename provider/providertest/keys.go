package providertest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// NewKeys returns Keys that know one key of one site. Two of them prove to each
// other what they are if site, key and secret are the same.
func NewKeys(s site.ID, k site.KeyID, secret []byte) provider.Keys {
	return keys{site: s, key: k, secret: secret}
}

type keys struct {
	site   site.ID
	key    site.KeyID
	secret []byte
}

func (k keys) Signing() (site.ID, site.KeyID) { return k.site, k.key }

func (k keys) Prove(s site.ID, id site.KeyID, handshake string, side provider.Side, transcript []byte) ([32]byte, error) {
	if s != k.site || id != k.key {
		return [32]byte{}, provider.ErrKey
	}
	// Every field before the transcript has a fixed width or says how long it is, so no two inputs collide.
	m := hmac.New(sha256.New, k.secret)
	m.Write(s[:])
	m.Write(binary.BigEndian.AppendUint32(nil, uint32(id)))
	m.Write([]byte{byte(side), byte(len(handshake))})
	m.Write([]byte(handshake))
	m.Write(transcript)
	return [32]byte(m.Sum(nil)), nil
}

func (k keys) Verify(s site.ID, id site.KeyID, handshake string, side provider.Side, transcript []byte, proof [32]byte) error {
	want, err := k.Prove(s, id, handshake, side, transcript)
	if err != nil {
		return err
	}
	if !hmac.Equal(want[:], proof[:]) {
		return provider.ErrProof
	}
	return nil
}
