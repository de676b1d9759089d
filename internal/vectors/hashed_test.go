package vectors

import "testing"

// hashed adds what suite 4 has of its own.
func (c *cases) hashed(t *testing.T) {
	ours := siteOf(ghashKey())
	unsealed(t, func(name string, f frame) {
		c.frame("ghash "+name, "the bodies of every type, sealed", "", f.ghash(), ours)
	})

	f := one()
	f.key = ghashKeyID
	key := under(ghashKey(), ourSite, stream)
	header, end := f.header(hmacLen), len(f.ghash())
	change := func(name, rule string, at int, mask byte) {
		c.frame("ghash tag: "+name, rule, "tag", altered(f.ghash(), at, mask), ours)
	}
	change("altered clock", "the tag covers the header", headerLen-1, 1)
	change("altered first byte of the body", "the tag covers the body's hash", headerLen, 1)
	change("altered last byte of the body", "the tag covers the body's hash", end-hmacLen-1, 0x80)
	change("altered first byte", "all bytes of the tag count", end-hmacLen, 1)
	change("altered last byte", "all bytes of the tag count", end-1, 0x80)

	wrong := func(name, rule string, tag []byte) {
		c.frame("ghash tag: "+name, rule, "tag", join(header, f.body, tag), ours)
	}
	tagged := func(name, rule string, hash []byte) { wrong(name, rule, sum(key, frameContext, header, hash)) }
	hash := ghash(key, f.body)
	hashKey := sum(key, ghashContext)
	wrong("without the context", "the context string comes first", sum(key, header, hash))
	wrong("without the header", "the tag covers the header", sum(key, frameContext, hash))
	wrong("the hash before the header", "the header comes first", sum(key, frameContext, hash, header))
	wrong("the hash itself", "the hash is not shown", join(hash, hash))
	wrong("under the key of the hash", "the tag is under the derived key", sum(hashKey, frameContext, header, hash))
	tagged("of the body itself", "the tag covers the body's hash", f.body)
	tagged("hash under the derived key", "the hash has a key of its own", gmac(key, zeros(12), f.body))
	tagged("hash under a key without the zero byte", "the context string ends with a zero byte", gmac(sum(key, []byte("carillon ghash v1")), zeros(12), f.body))
	tagged("hash with the number as its nonce", "the nonce of the hash is zero", gmac(hashKey, f.nonce(), f.body))
	tagged("hash of header and body", "the hash is that of the body", gmac(hashKey, zeros(12), join(header, f.body)))
	tagged("hash of the body and a zero", "the hash knows how long the body is", ghash(key, join(f.body, zeros(1))))
	tagged("hash of the body as a text to encrypt", "the body is associated data", newGCM(hashKey).Seal(nil, zeros(12), f.body, nil)[len(f.body):])
	tagged("hash of nothing", "the tag covers the body's hash", ghash(key, nil))
	tagged("half of the hash", "the hash has 16 bytes", hash[:8])
	wrong("key of another stream", "a key belongs to one stream", f.ghashWith(under(ghashKey(), ourSite, peer))[end-hmacLen:])
	wrong("key of suite 1", "the info names the suite", f.ghashWith(under(with(ghashKey(), func(k *Key) { k.Suite = hmacSuite }), ourSite, stream))[end-hmacLen:])
	bare := control(22).but(func(f *frame) { f.length, f.key = -hmacLen, ghashKeyID }).header(hmacLen)
	c.frame("ghash tag: no trailer at all", "a frame has a header and a trailer at the least", "tag", bare, ours)

	c.frame("suite: HMAC under a key of suite 4", "the suite is that of the key", "tag", f.hmacWith(key), ours)
	c.frame("suite: GHASH under a key of suite 1", "the suite is that of the key", "tag", one().ghashWith(under(hmacKey(), ourSite, stream)), siteOf(hmacKey()))
	c.frame("ghash: malformed body", "what is sealed may still be malformed", "body", event(raw(0), id(page)[:15]).ghash(), ours)
	floor := ours
	floor.EncryptionRequired = true
	c.frame("floor: encryption required, GHASH", "floors refuse keys below them", "floor", f.ghash(), floor)

	c.add(Vector{
		Name: "derivation: the worked example, suite 4", Kind: "derivation", Rule: "HKDF-SHA-256", Sites: []Site{ours},
		Site: ourSite[:], Key: ghashKeyID, Use: "frame", Stream: stream[:],
	})
	c.add(Vector{
		Name: "proof: suite 4", Kind: "proof", Rule: "proofs are HMACs under every suite", Sites: []Site{ours},
		Site: ourSite[:], Key: ghashKeyID, Label: "example", Transcript: Hex("transcript"),
	})
}
