// Package plain reads sealed frames a second time. It was written from
// docs/PROTOCOL.md alone, shares no code with the rest of this module, and is as
// simple as it can be: slow, and without any care for memory. Tests hold the
// published vectors against it, so that the document, the vectors and the
// program cannot drift apart unseen. Nothing else uses it.
package plain

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
)

// A Refusal says why something is not believed, in one word of docs/vectors.md.
type Refusal string

// Error implements error.
func (r Refusal) Error() string { return "refused: " + string(r) }

// A Site is what a receiver knows of a site that it accepts.
type Site struct {
	ID                 [16]byte
	EncryptionRequired bool
	LowestVersion      int
	Keys               []Key
}

// A Key is one entry of a keyring.
type Key struct {
	ID      uint32
	State   string // pending, active, retiring, revoked or compromised
	Suite   int
	Version int
	Secret  []byte
}

// hold refuses for reason unless ok.
func hold(ok bool, reason Refusal) {
	if !ok {
		panic(reason)
	}
}

// refused turns the panic of hold into an error.
func refused(err *error) {
	if p := recover(); p != nil {
		r, ok := p.(Refusal)
		if !ok {
			panic(p)
		}
		*err = r
	}
}

const (
	headerSize  = 76
	largest     = 1 << 20
	numberLimit = 1 << 48
	hmacTrailer = 32
	gcmTag      = 16
	gcmTrailer  = gcmTag + 6
)

var typeNames = map[byte]string{
	1: "events", 2: "fragment", 16: "heartbeat", 17: "nak", 18: "gone", 19: "hello", 20: "state",
	21: "ack", 22: "bye", 23: "reset", 24: "digest", 25: "witness",
}

// Open checks and decodes one sealed frame. What it returns marshals to the JSON that
// docs/vectors.md describes; an error is a [Refusal].
func Open(sites []Site, frame []byte) (header, body map[string]any, err error) {
	defer refused(&err)
	hold(len(frame) >= headerSize && len(frame) <= largest, "length")
	hold(string(frame[:4]) == "CRLN", "magic")
	hold(frame[4] == 1, "version")

	be := binary.BigEndian
	kind := frame[5]
	length, keyID := be.Uint32(frame[8:]), be.Uint32(frame[12:])
	site, stream := [16]byte(frame[16:32]), [16]byte(frame[32:48])
	number, ordinal := be.Uint64(frame[48:]), be.Uint64(frame[56:])
	count, clock := be.Uint32(frame[64:]), int64(be.Uint64(frame[68:]))

	hold(int64(length) == int64(len(frame)), "length")
	name, known := typeNames[kind]
	hold(known, "type")
	hold(be.Uint16(frame[6:]) == 0, "header")
	hold(keyID != 0 && site != [16]byte{} && stream != [16]byte{}, "header")
	hold(number >= 1 && number < numberLimit, "header")
	hold(ordinal < numberLimit && ordinal+uint64(count) < numberLimit, "header")
	switch {
	case kind == 1:
		hold(count >= 1 && 4*uint64(count) <= uint64(length)-headerSize, "header")
	case kind == 2:
		hold(count <= 1, "header")
	default:
		hold(count == 0 && ordinal == 0, "header")
	}

	key := find(sites, site, keyID)
	clear := unseal(key, site, stream, number, frame)
	header = map[string]any{
		"type": name, "key": keyID, "site": hex.EncodeToString(site[:]), "stream": hex.EncodeToString(stream[:]),
		"number": number, "ordinal": ordinal, "count": count, "clock": strconv.FormatInt(clock, 10),
	}
	r := &reader{rest: clear}
	switch kind {
	case 1:
		body = r.events(int(count))
	case 2:
		body = r.fragment(count == 1)
	default:
		body = r.control(kind)
	}
	return header, body, nil
}

// Record decodes what fragments were put together to.
func Record(record []byte) (event map[string]any, err error) {
	defer refused(&err)
	r := &reader{rest: record}
	return r.events(1)["events"].([]any)[0].(map[string]any), nil
}

// find returns the key that a frame or a handshake names, if it may be used.
func find(sites []Site, site [16]byte, id uint32) *Key {
	for _, s := range sites {
		if s.ID != site {
			continue
		}
		for _, k := range s.Keys {
			if k.ID != id {
				continue
			}
			hold(k.State == "pending" || k.State == "active" || k.State == "retiring", "revoked")
			hold(k.Version >= s.LowestVersion, "floor")
			hold(!s.EncryptionRequired || k.Suite == 2, "floor")
			hold(k.Version == 1 && (k.Suite == 1 || k.Suite == 2 || k.Suite == 4), "unsupported")
			return &k
		}
		hold(false, "key")
	}
	panic(Refusal("site"))
}

// Derive returns the info and the key that it gives. use is frame or proof, last the
// stream or the label.
func Derive(k *Key, site [16]byte, use string, last []byte) (info, key []byte) {
	info = append(info, "carillon v1 "+use...)
	info = append(info, site[:]...)
	info = append(info, byte(k.Version), byte(k.Suite))
	info = binary.BigEndian.AppendUint32(info, k.ID)
	info = append(info, last...)
	key, err := hkdf.Key(sha256.New, k.Secret, nil, string(info), 32)
	if err != nil {
		panic(err)
	}
	return info, key
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// unseal returns the body in the clear.
func unseal(k *Key, site, stream [16]byte, number uint64, frame []byte) []byte {
	_, key := Derive(k, site, "frame", stream[:])
	if k.Suite != 2 {
		end := len(frame) - hmacTrailer
		hold(end >= headerSize, "tag")
		covered := frame[:end]
		if k.Suite == 4 {
			covered = slices.Concat(frame[:headerSize], hash(key, frame[headerSize:end]))
		}
		hold(hmac.Equal(mac(key, []byte("carillon frame v1\x00"), covered), frame[end:]), "tag")
		return frame[headerSize:end]
	}
	end := len(frame) - gcmTrailer
	hold(end >= headerSize, "tag")
	nonce := binary.BigEndian.AppendUint64(nil, number)[2:]
	nonce = append(nonce, frame[end+gcmTag:]...)
	body, err := newGCM(key).Open(nil, nonce, frame[headerSize:end+gcmTag], frame[:headerSize])
	hold(err == nil, "tag")
	return body
}

// hash returns the hash of a body under suite 4.
func hash(key, body []byte) []byte {
	return newGCM(mac(key, []byte("carillon ghash v1\x00"))).Seal(nil, make([]byte, 12), nil, body)
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

// Prove returns the proof of a transcript under the key named.
func Prove(sites []Site, site [16]byte, id uint32, label string, transcript []byte) (proof []byte, err error) {
	defer refused(&err)
	_, key := Derive(find(sites, site, id), site, "proof", []byte(label))
	return mac(key, []byte("carillon proof v1\x00"), transcript), nil
}

// Handshake checks the four messages of a TCP handshake, as somebody would who holds
// the keys and stands beside it. exporter is empty without TLS.
func Handshake(sites []Site, hello, answer, exporter, first, second []byte) (read map[string]any, err error) {
	defer refused(&err)
	for _, m := range []struct {
		b    []byte
		size int
	}{{hello, 92}, {answer, 56}} {
		hold(len(m.b) == m.size && string(m.b[:4]) == "CRLT", "handshake")
		hold(m.b[4] == 1, "version")
		hold(m.b[5] == 0 && m.b[6] == 0 && m.b[7] == 0, "handshake")
	}
	site, key := [16]byte(hello[8:24]), binary.BigEndian.Uint32(hello[24:])
	ours, expected, theirs := [16]byte(hello[28:44]), [16]byte(hello[44:60]), [16]byte(answer[8:24])
	zero := [16]byte{}
	hold(site != zero && key != 0 && ours != zero && theirs != zero, "handshake")
	hold(ours != theirs && (expected == zero || expected == theirs), "stream")

	transcript := []byte("carillon tcp handshake v1\x00")
	transcript = append(transcript, hello...)
	transcript = append(transcript, answer...)
	if len(exporter) == 0 {
		transcript = append(transcript, 0)
	} else {
		transcript = append(append(transcript, 1), exporter...)
	}
	k := find(sites, site, key)
	_, initiator := Derive(k, site, "proof", []byte("tcp v1 initiator"))
	hold(hmac.Equal(mac(initiator, []byte("carillon proof v1\x00"), transcript), first), "proof")
	_, acceptor := Derive(k, site, "proof", []byte("tcp v1 acceptor"))
	hold(hmac.Equal(mac(acceptor, []byte("carillon proof v1\x00"), transcript, first), second), "proof")
	return map[string]any{
		"site": hex.EncodeToString(site[:]), "key": key, "initiator": hex.EncodeToString(ours[:]),
		"expected": hex.EncodeToString(expected[:]), "acceptor": hex.EncodeToString(theirs[:]),
	}, nil
}
