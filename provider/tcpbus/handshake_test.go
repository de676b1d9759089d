package tcpbus

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/site"
)

// golden returns the bytes in a file of testdata/v1. Those files say what is on the
// wire: they are never edited, only added.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "v1", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		for field := range strings.FieldsSeq(line) {
			digits.WriteString(field)
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

func count16(from byte) (id [16]byte) {
	for i := range id {
		id[i] = from + byte(i)
	}
	return id
}

func count32(from byte) (b [32]byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

func goldenHello() hello {
	return hello{
		site: site.ID(count16(0x10)), key: 0x01020304, stream: site.StreamID(count16(0x20)),
		expected: site.StreamID(count16(0x30)), nonce: count32(0x40),
	}
}

func goldenAnswer() answer {
	return answer{stream: site.StreamID(count16(0x30)), nonce: count32(0x80)}
}

func TestHandshake_GoldenMessages(t *testing.T) {
	h, a := goldenHello(), goldenAnswer()
	if got, want := h.encode(), golden(t, "hello"); !bytes.Equal(got, want) {
		t.Errorf("hello\n got %x\nwant %x", got, want)
	}
	if got, want := a.encode(), golden(t, "answer"); !bytes.Equal(got, want) {
		t.Errorf("answer\n got %x\nwant %x", got, want)
	}
	if got, err := parseHello(golden(t, "hello")); err != nil || got != h {
		t.Errorf("parseHello = %+v, %v, want %+v", got, err, h)
	}
	if got, err := parseAnswer(golden(t, "answer")); err != nil || got != a {
		t.Errorf("parseAnswer = %+v, %v, want %+v", got, err, a)
	}
}

func TestHandshake_GoldenTranscript(t *testing.T) {
	h, a := golden(t, "hello"), golden(t, "answer")
	if got, want := transcript(h, a, nil), golden(t, "transcript"); !bytes.Equal(got, want) {
		t.Errorf("without TLS\n got %x\nwant %x", got, want)
	}
	exp := count32(0xc0)
	if got, want := transcript(h, a, exp[:]), golden(t, "transcript-tls"); !bytes.Equal(got, want) {
		t.Errorf("with TLS\n got %x\nwant %x", got, want)
	}
}

func TestHandshake_FitsItsBound(t *testing.T) {
	const bound = 256 // what is read of a connection without a proof
	if n := helloLen + proofLen; n > bound {
		t.Errorf("the end that dials sends %d bytes", n)
	}
}

func TestParseHello_RefusesWhatIsNotOne(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(b []byte) []byte
		want error
	}{
		{"magic", func(b []byte) []byte { b[0]++; return b }, errMalformed},
		{"version", func(b []byte) []byte { b[4]++; return b }, errVersion},
		{"reserved byte", func(b []byte) []byte { b[7] = 1; return b }, errMalformed},
		{"zero site", func(b []byte) []byte { clear(b[8:24]); return b }, errMalformed},
		{"zero key", func(b []byte) []byte { clear(b[24:28]); return b }, errMalformed},
		{"zero stream", func(b []byte) []byte { clear(b[28:44]); return b }, errMalformed},
		{"one byte short", func(b []byte) []byte { return b[:len(b)-1] }, errMalformed},
		{"one byte long", func(b []byte) []byte { return append(b, 0) }, errMalformed},
		{"empty", func(b []byte) []byte { return nil }, errMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseHello(tt.edit(golden(t, "hello"))); !errors.Is(err, tt.want) {
				t.Errorf("parseHello: %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("zero expected stream is any", func(t *testing.T) {
		b := golden(t, "hello")
		clear(b[44:60])
		if h, err := parseHello(b); err != nil || h.expected != (site.StreamID{}) {
			t.Errorf("parseHello = %+v, %v", h, err)
		}
	})
}

func TestParseAnswer_RefusesWhatIsNotOne(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(b []byte) []byte
		want error
	}{
		{"magic", func(b []byte) []byte { b[3]++; return b }, errMalformed},
		{"version", func(b []byte) []byte { b[4] = 0; return b }, errVersion},
		{"reserved byte", func(b []byte) []byte { b[5] = 1; return b }, errMalformed},
		{"zero stream", func(b []byte) []byte { clear(b[8:24]); return b }, errMalformed},
		{"one byte short", func(b []byte) []byte { return b[:len(b)-1] }, errMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseAnswer(tt.edit(golden(t, "answer"))); !errors.Is(err, tt.want) {
				t.Errorf("parseAnswer: %v, want %v", err, tt.want)
			}
		})
	}
}

func FuzzHandshake(f *testing.F) {
	h, a := goldenHello(), goldenAnswer()
	f.Add(h.encode())
	f.Add(a.encode())
	f.Add([]byte("CRLT"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHello(b); err == nil {
			if got := h.encode(); !bytes.Equal(got, b) {
				t.Errorf("hello %x encodes again as %x", b, got)
			}
		}
		if a, err := parseAnswer(b); err == nil {
			if got := a.encode(); !bytes.Equal(got, b) {
				t.Errorf("answer %x encodes again as %x", b, got)
			}
		}
	})
}
