//go:build linux

package limit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// A tagger makes and checks tags over what comes after each other on one connection. It is used by one goroutine.
type tagger interface {
	size() int
	// seal appends the tag over data to dst.
	seal(dst, data []byte) []byte
	// open reports whether tag is that over data.
	open(data, tag []byte) bool
}

var key = [32]byte{'b', 'e', 'n', 'c', 'h'}

// hmacTagger keeps the state of the keyed hash between tags, which saves two of four blocks.
type hmacTagger struct {
	mac hash.Hash
	own [sha256.Size]byte
}

func newHMAC() tagger { return &hmacTagger{mac: hmac.New(sha256.New, key[:])} }

func (t *hmacTagger) size() int { return sha256.Size }

func (t *hmacTagger) seal(dst, data []byte) []byte {
	t.mac.Reset()
	t.mac.Write(data)
	return t.mac.Sum(dst)
}

func (t *hmacTagger) open(data, tag []byte) bool {
	return hmac.Equal(t.seal(t.own[:0], data), tag)
}

// gmacTagger is AES-GCM that encrypts nothing. The nonce is the number of the tag.
type gmacTagger struct {
	gcm    cipher.AEAD
	number uint64
	own    [16]byte
}

func newGMAC() tagger {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has a length that AES takes
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has blocks that GCM takes
	}
	return &gmacTagger{gcm: gcm}
}

func (t *gmacTagger) size() int { return 16 }

func (t *gmacTagger) seal(dst, data []byte) []byte {
	var nonce [12]byte
	t.number++
	binary.BigEndian.PutUint64(nonce[4:], t.number)
	return t.gcm.Seal(dst, nonce[:], nil, data)
}

func (t *gmacTagger) open(data, tag []byte) bool {
	return subtle.ConstantTimeCompare(t.seal(t.own[:0], data), tag) == 1
}
