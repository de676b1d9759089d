package seal

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
)

// ghashContext is what the key of the hash is derived with. It differs from
// frameContext, so that no tag is ever that key.
var ghashContext = []byte("carillon ghash v1\x00")

// ghash is the hash of bodies in the suite GHASH-HMAC-SHA-256: GMAC with one nonce for all, so that
// it depends on the body alone. Any two bodies that somebody without its key may think of have one
// hash by a chance below 2⁻¹¹²: one more than the longer has blocks of 16 bytes, over 2¹²⁸ (McGrew and Viega,
// The Security and Performance of the Galois/Counter Mode, full version, appendix A, lemma 2). That holds as far as
// nobody tells AES-256 and HMAC-SHA-256, which make the keys, from random functions.
//
// What goes over the wire is an HMAC of the hash and of the header, and tells nothing of either key.
// Black and Cochran (MAC Reforgeability, FSE 2009) call that WMAC. GMAC itself hands the hash out
// under a pad made from the nonce, and with it the key once a nonce repeats, as in a process that was copied;
// here a header that repeats gives nothing away.
type ghash struct {
	gmac cipher.AEAD // nothing is encrypted with it
}

// ghashNonce is the one nonce.
var ghashNonce [nonceLen]byte

// ghashLen is the length of the hash, in bytes.
const ghashLen = gcmTagLen

// newGHASH returns the hash that belongs to the derived key of a stream.
func newGHASH(key []byte) *ghash {
	m := hmac.New(sha256.New, key)
	m.Write(ghashContext)
	return &ghash{newGCM(m.Sum(nil))}
}

// sum appends the hash of body to dst.
func (g *ghash) sum(dst, body []byte) []byte { return g.gmac.Seal(dst, ghashNonce[:], nil, body) }
