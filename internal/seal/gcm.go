package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"github.com/carillon-go/carillon/internal/wire"
)

const (
	nonceLen      = 12
	nonceNumber   = 6 // bytes of a nonce that are the frame's number
	nonceCarried  = nonceLen - nonceNumber
	gcmTagLen     = 16
	gcmTrailerLen = gcmTagLen + nonceCarried
)

// gcmKey is a frameKey of the suite AES-256-GCM. The trailer is the tag, then
// the second half of the nonce. The header is the associated data.
//
// A nonce used twice under one key would give the plaintext away. So its first
// 48 bits are the frame's number, the next one tells control frames, which have
// numbers of their own, from the others: as long as a stream gives a number
// once, no nonce repeats. The other 47 bits are random, for the case that it
// does not: a process that was copied while it ran.
type gcmKey struct {
	aead   cipher.AEAD
	nonces idle[[nonceLen]byte]
}

func newGCMKey(key []byte) *gcmKey {
	g := &gcmKey{aead: newGCM(key)}
	g.nonces.create = func() *[nonceLen]byte { return new([nonceLen]byte) }
	return g
}

// newGCM returns AES-256-GCM with a key of [keyLen] bytes.
func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCM(block); err == nil {
			return aead
		}
	}
	panic("seal: " + err.Error()) // only for a wrong key length, and where usable refuses the suite
}

func (g *gcmKey) seal(frame []byte) {
	end := len(frame) - gcmTrailerLen
	nonce := g.nonces.get()
	setNumber(nonce, frame)
	carried := nonce[nonceNumber:]
	rand.Read(carried) // never fails: it ends the program instead
	carried[0] &^= 0x80
	if wire.FrameType(frame).Control() {
		carried[0] |= 0x80
	}
	g.aead.Seal(frame[wire.HeaderLen:wire.HeaderLen], nonce[:], frame[wire.HeaderLen:end], frame[:wire.HeaderLen])
	copy(frame[end+gcmTagLen:], carried)
	g.nonces.put(nonce)
}

func (g *gcmKey) open(frame []byte) ([]byte, error) {
	end := len(frame) - gcmTrailerLen
	if end < wire.HeaderLen {
		return nil, ErrTag
	}
	nonce := g.nonces.get()
	setNumber(nonce, frame)
	copy(nonce[nonceNumber:], frame[end+gcmTagLen:])
	sealed := frame[wire.HeaderLen : end+gcmTagLen]
	body, err := g.aead.Open(make([]byte, 0, end-wire.HeaderLen), nonce[:], sealed, frame[:wire.HeaderLen])
	g.nonces.put(nonce)
	if err != nil {
		return nil, ErrTag
	}
	return body, nil
}

// setNumber makes the first half of nonce from the number of frame.
func setNumber(nonce *[nonceLen]byte, frame []byte) {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], wire.FrameNumber(frame))
	copy(nonce[:nonceNumber], number[len(number)-nonceNumber:])
}
