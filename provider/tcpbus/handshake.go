package tcpbus

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/carillon-go/carillon/site"
)

// The handshake, all integers big endian. A dialled B.
//
//	A→B hello   0 magic "CRLT" | 4 version 1 | 5 three zero bytes | 8 site 16 | 24 key ID 4
//	            28 stream of A 16 | 44 stream expected at B 16, zero if any | 60 nonce 32
//	B→A answer  0 magic "CRLT" | 4 version 1 | 5 three zero bytes | 8 stream of B 16 | 24 nonce 32
//	A→B proof   32 bytes, as Initiator, over the transcript
//	B→A proof   32 bytes, as Acceptor, over the transcript and the proof of A
//
// The transcript is a context string, both messages as sent, and a byte that
// says what follows: 0 nothing, 1 the exporter of RFC 9266 of the TLS
// connection. Every part has a fixed length, so no two handshakes have the
// same transcript. Neither end says which version it would rather speak: a
// next version is tried by who dials, and refused by who cannot.
const (
	magic            = "CRLT"
	handshakeVersion = 1
	handshakeName    = "tcp v1" // keeps its proofs apart from those of other handshakes

	helloLen    = 92
	answerLen   = 56
	nonceLen    = 32
	proofLen    = 32
	exporterLen = 32

	transcriptContext = "carillon tcp handshake v1\x00"

	bindingNone     = 0
	bindingExporter = 1
)

var (
	errMalformed = errors.New("not a handshake of Carillon")
	errVersion   = errors.New("another version of the handshake")
)

// hello is the first message, of the end that dialled.
type hello struct {
	site     site.ID
	key      site.KeyID
	stream   site.StreamID // of the sender
	expected site.StreamID // of the receiver; zero when the sender does not know
	nonce    [nonceLen]byte
}

// answer is the second message, of the end that listened.
type answer struct {
	stream site.StreamID // of the sender
	nonce  [nonceLen]byte
}

func (h *hello) encode() []byte {
	b := make([]byte, helloLen)
	putPreamble(b)
	copy(b[8:], h.site[:])
	binary.BigEndian.PutUint32(b[24:], uint32(h.key))
	copy(b[28:], h.stream[:])
	copy(b[44:], h.expected[:])
	copy(b[60:], h.nonce[:])
	return b
}

func parseHello(b []byte) (hello, error) {
	if err := checkPreamble(b, helloLen); err != nil {
		return hello{}, err
	}
	h := hello{
		site:     site.ID(b[8:24]),
		key:      site.KeyID(binary.BigEndian.Uint32(b[24:28])),
		stream:   site.StreamID(b[28:44]),
		expected: site.StreamID(b[44:60]),
		nonce:    [nonceLen]byte(b[60:92]),
	}
	if h.site == (site.ID{}) || h.key == 0 || h.stream == (site.StreamID{}) {
		return hello{}, fmt.Errorf("%w: its site, key or stream is zero", errMalformed)
	}
	return h, nil
}

func (a *answer) encode() []byte {
	b := make([]byte, answerLen)
	putPreamble(b)
	copy(b[8:], a.stream[:])
	copy(b[24:], a.nonce[:])
	return b
}

func parseAnswer(b []byte) (answer, error) {
	if err := checkPreamble(b, answerLen); err != nil {
		return answer{}, err
	}
	a := answer{stream: site.StreamID(b[8:24]), nonce: [nonceLen]byte(b[24:56])}
	if a.stream == (site.StreamID{}) {
		return answer{}, fmt.Errorf("%w: its stream is zero", errMalformed)
	}
	return a, nil
}

func putPreamble(b []byte) {
	copy(b, magic)
	b[4] = handshakeVersion
}

func checkPreamble(b []byte, want int) error {
	if len(b) != want || string(b[:4]) != magic {
		return errMalformed
	}
	if b[4] != handshakeVersion {
		return fmt.Errorf("%w: %d, this is %d", errVersion, b[4], handshakeVersion)
	}
	if b[5]|b[6]|b[7] != 0 {
		return fmt.Errorf("%w: reserved bytes are set", errMalformed)
	}
	return nil
}

// transcript returns what both ends prove to have seen. exporter is empty
// without TLS.
func transcript(hello, answer, exporter []byte) []byte {
	t := make([]byte, 0, len(transcriptContext)+helloLen+answerLen+1+exporterLen+proofLen)
	t = append(t, transcriptContext...)
	t = append(t, hello...)
	t = append(t, answer...)
	if len(exporter) == 0 {
		return append(t, bindingNone)
	}
	t = append(t, bindingExporter)
	return append(t, exporter...)
}

// exporter returns the channel binding tls-exporter of RFC 9266. Both ends of
// one TLS connection get the same bytes; the ends of two never do, so
// a proof that covers it cannot be carried from one connection to another.
func exporter(c *tls.Conn) ([]byte, error) {
	state := c.ConnectionState()
	b, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, exporterLen)
	if err != nil {
		return nil, fmt.Errorf("tls exporter: %w", err)
	}
	return b, nil
}
