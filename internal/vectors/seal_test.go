package vectors

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/carillon-go/carillon/internal/plain"
)

// What most vectors share. The secret of key 3 is that of the worked example in
// docs/PROTOCOL.md.
var (
	ourSite    = [16]byte{0: 0x51, 15: 1}
	otherSite  = [16]byte{0: 0x52, 15: 2}
	stream     = [16]byte{7: 7, 13: 0xc0, 14: 0xff, 15: 0xee}
	peer       = [16]byte{7: 1, 15: 2}
	third      = [16]byte{7: 3, 15: 4}
	page, link = countUp(0x10), countUp(0x40)
	raiser     = countUp(0xa0)
)

const (
	hmacSuite  = 1
	gcmSuite   = 2
	ghashSuite = 4
	hmacKeyID  = 3
	gcmKeyID   = 4
	ghashKeyID = 5
)

func countUp(first byte) (id [16]byte) {
	for i := range id {
		id[i] = first + byte(i)
	}
	return id
}

// testSecret returns the secret of a key: that of the worked example, or one made from a name.
func testSecret(name string) Hex {
	if name == "" {
		secret := make([]byte, 32)
		for i := range secret {
			secret[i] = byte(i)
		}
		return secret
	}
	sum := sha256.Sum256([]byte("carillon test secret " + name))
	return sum[:]
}

func hmacKey() Key {
	return Key{ID: hmacKeyID, State: "active", Suite: hmacSuite, Version: 1, TestSecret: testSecret("")}
}

func gcmKey() Key {
	return Key{ID: gcmKeyID, State: "active", Suite: gcmSuite, Version: 1, TestSecret: testSecret("")}
}

func ghashKey() Key {
	return Key{ID: ghashKeyID, State: "active", Suite: ghashSuite, Version: 1, TestSecret: testSecret("")}
}

func with(k Key, change func(*Key)) Key {
	change(&k)
	return k
}

func siteOf(keys ...Key) Site { return Site{ID: ourSite[:], LowestVersion: 1, Keys: keys} }

// forPlain is what the second decoder takes.
func forPlain(sites []Site) []plain.Site {
	var list []plain.Site
	for _, s := range sites {
		p := plain.Site{ID: [16]byte(s.ID), EncryptionRequired: s.EncryptionRequired, LowestVersion: int(s.LowestVersion)}
		for _, k := range s.Keys {
			p.Keys = append(p.Keys, plain.Key{ID: k.ID, State: k.State, Suite: int(k.Suite), Version: int(k.Version), Secret: k.TestSecret})
		}
		list = append(list, p)
	}
	return list
}

// A frame is made field by field, so that each can be wrong by itself.
type frame struct {
	magic   string
	version byte
	kind    byte
	flags   uint16
	length  int // added to the true length
	key     uint32
	site    [16]byte
	stream  [16]byte
	number  uint64
	ordinal uint64
	count   uint32
	clock   int64
	body    []byte
}

const clock = 1_700_000_000_123_456

func event(body ...[]byte) frame { return events(1, body...) }

func events(count uint32, body ...[]byte) frame {
	return frame{
		magic: "CRLN", version: 1, kind: 1, key: hmacKeyID, site: ourSite, stream: stream,
		number: 42, ordinal: 100, count: count, clock: clock, body: bytes.Join(body, nil),
	}
}

func control(kind byte, body ...[]byte) frame {
	f := events(0, body...)
	f.kind, f.number, f.ordinal = kind, 7, 0
	return f
}

func fragment(count uint32, body ...[]byte) frame {
	f := events(count, body...)
	f.kind = 2
	return f
}

func (f frame) but(change func(*frame)) frame {
	change(&f)
	return f
}

// header lays out the header for a frame with that trailer.
func (f frame) header(trailer int) []byte {
	be := binary.BigEndian
	h := append([]byte(f.magic), f.version, f.kind)
	h = be.AppendUint16(h, f.flags)
	h = be.AppendUint32(h, uint32(headerLen+len(f.body)+trailer+f.length))
	h = be.AppendUint32(h, f.key)
	h = append(h, f.site[:]...)
	h = append(h, f.stream[:]...)
	h = be.AppendUint64(h, f.number)
	h = be.AppendUint64(h, f.ordinal)
	h = be.AppendUint32(h, f.count)
	return be.AppendUint64(h, uint64(f.clock))
}

const (
	headerLen  = 76
	hmacLen    = 32
	gcmTagLen  = 16
	gcmLen     = gcmTagLen + 6
	largestLen = 1 << 20
)

// under returns the key for frames of stream under k.
func under(k Key, site, stream [16]byte) []byte {
	p := plain.Key{ID: k.ID, Suite: int(k.Suite), Version: int(k.Version), Secret: k.TestSecret}
	_, key := plain.Derive(&p, site, "frame", stream[:])
	return key
}

func sum(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

var frameContext = []byte("carillon frame v1\x00")

// hmac seals f under suite 1 as its header says, with the secret of the worked example.
func (f frame) hmac() []byte {
	return f.hmacWith(under(with(hmacKey(), func(k *Key) { k.ID = f.key }), f.site, f.stream))
}

func (f frame) hmacWith(key []byte) []byte {
	b := append(f.header(hmacLen), f.body...)
	return append(b, sum(key, frameContext, b)...)
}

// carried returns six bytes that a sender might have drawn.
func (f frame) carried() []byte {
	c := []byte{0x1f, 0x2e, 0x3d, 0x4c, 0x5b, 0x6a}
	if f.kind >= 16 {
		c[0] |= 0x80
	}
	return c
}

// gcm seals f under suite 2, with the secret of the worked example and key 4.
func (f frame) gcm() []byte {
	f.key = gcmKeyID
	return f.gcmWith(under(gcmKey(), f.site, f.stream), f.nonce(), f.header(gcmLen))
}

func (f frame) nonce() []byte {
	return append(binary.BigEndian.AppendUint64(nil, f.number)[2:], f.carried()...)
}

func (f frame) gcmWith(key, nonce, associated []byte) []byte {
	b := newGCM(key).Seal(f.header(gcmLen), nonce, f.body, associated)
	return append(b, nonce[6:]...)
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

var ghashContext = []byte("carillon ghash v1\x00")

// ghash returns the hash of a body under suite 4, with the derived key of the stream.
func ghash(key, body []byte) []byte { return gmac(sum(key, ghashContext), zeros(12), body) }

func gmac(key, nonce, body []byte) []byte { return newGCM(key).Seal(nil, nonce, nil, body) }

// ghash seals f under suite 4, with the secret of the worked example and key 5.
func (f frame) ghash() []byte {
	f.key = ghashKeyID
	return f.ghashWith(under(ghashKey(), f.site, f.stream))
}

func (f frame) ghashWith(key []byte) []byte {
	h := f.header(hmacLen)
	return join(h, f.body, sum(key, frameContext, h, ghash(key, f.body)))
}

// Bodies.

func u(v uint64) []byte           { return binary.AppendUvarint(nil, v) }
func id(b [16]byte) []byte        { return slices.Clone(b[:]) }
func raw(b ...byte) []byte        { return b }
func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
func zeros(n int) []byte          { return make([]byte, n) }
func mark(frame, next uint64) []byte {
	return join(u(frame), u(next))
}

// intro introduces an ID.
func intro(b [16]byte) []byte { return join(raw(0), b[:]) }

// record is one event without extensions.
func record(event, raiser []byte, payload string) []byte {
	return join(event, raiser, raw(0), u(uint64(len(payload))), []byte(payload))
}

// extended is one event with an extension area.
func extended(area []byte, payload string) []byte {
	return join(intro(page), raw(1), u(uint64(len(area))), area, u(uint64(len(payload))), []byte(payload))
}

func repeat(n int, entry func(i int) []byte) []byte {
	var b []byte
	for i := range n {
		b = append(b, entry(i)...)
	}
	return b
}

func numbered(i int) []byte {
	b := [16]byte{0: 9, 14: byte(i >> 8), 15: byte(i)}
	return b[:]
}

var (
	most   = u(1<<48 - 1)
	tooBig = u(1 << 48)
	long   = raw(0x81, 0) // 1 in two bytes
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
