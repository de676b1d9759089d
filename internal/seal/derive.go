package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"github.com/carillon-go/carillon/site"
)

// The first part of a derivation's info. They are equally long and differ, and
// every field after them but the last has a fixed length, so that no two uses
// of a secret ever derive the same key.
const (
	frameInfo = "carillon v1 frame"
	proofInfo = "carillon v1 proof"
)

// derive returns the key for one use of k's secret, by HKDF-SHA-256 without a
// salt: the secret is uniformly random already.
func derive(use string, s site.ID, k *site.Key, last string) []byte {
	info := append([]byte(use), s[:]...)
	info = append(info, k.Version, byte(k.Suite))
	info = binary.BigEndian.AppendUint32(info, uint32(k.ID))
	info = append(info, last...)
	key, err := hkdf.Key(sha256.New, k.Secret.Reveal(), nil, string(info), keyLen)
	if err != nil {
		panic("seal: " + err.Error()) // only for lengths that the constants above exclude
	}
	return key
}
