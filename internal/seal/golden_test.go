package seal

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// The files below testdata/v1 are sealed frames of wire version 1. They are what other
// implementations are held against, and never edited. They and the keys below
// were computed by a separate program in another language; docs/PROTOCOL.md
// works the first one out step by step. The secret is:
const goldenSecret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

var goldenPayload = []byte(`{"page":17}`)

// A goldenKey is what belongs to the secret under a suite.
type goldenKey struct {
	name         string
	suite        site.Suite
	key          site.KeyID
	frameKey     string // derived for the stream of the frame
	proofKey     string // derived for the label "example"
	proof        string // of the transcript "transcript"
	reproducible bool   // sealing the same frame again gives the same bytes
}

var golden = []goldenKey{
	{
		name: "hmac-sha-256", suite: site.SuiteHMACSHA256, key: 3, reproducible: true,
		frameKey: "bf866a7eae1701ca86edda6c26c2cb0c9ab0494ea44beb5d9e9e00264cb5f4d6",
		proofKey: "ec85cc6070d755ef8046df366c517c0d9a7d24d0f8a3658ef16f7365fb29eaaa",
		proof:    "23bfa7380c414616392b0b24b558d7959b65871be70b2e058e00628c6ef3d1fa",
	},
	{
		name: "aes-256-gcm", suite: site.SuiteAES256GCM, key: 4,
		frameKey: "3f35059cb6c32f66af353c682f1eb3885c907608f190b863d2cc609ff0ae9bb2",
		proofKey: "6b7069a4ec52fd7cdd4934ba03b6a468eb08f9a887015f73ec786893452a06f4",
		proof:    "ba821b0bd0a278ec0b95907c512ca74905e95afd78c9ea871d3bcd555b285940",
	},
	{
		name: "ghash-hmac-sha-256", suite: site.SuiteGHASHHMAC, key: 5, reproducible: true,
		frameKey: "19f6a5afc13d942772985d67e5be47ce33ae363d600fbc24835abe14e07b55b6",
		proofKey: "8cc566563a36e1af345a2ecf273dcc1e63deda8d9339702a3727ab6517e2402f",
		proof:    "92f6e7ca44a41c4ecc746c05055e6c41af56b597e63cb0f62c9adc55f6ba5894",
	},
}

func (g goldenKey) siteKey(t testing.TB) site.Key {
	t.Helper()
	secret, err := site.NewSecret(unhex(t, goldenSecret))
	if err != nil {
		t.Fatal(err)
	}
	return site.Key{ID: g.key, State: site.KeyActive, Suite: g.suite, Version: 1, Secret: secret}
}

func TestGolden_KeysTagsAndProofsStayAsTheyAre(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			key := g.siteKey(t)
			if got := hex.EncodeToString(derive(frameInfo, testSite, &key, string(testStream[:]))); got != g.frameKey {
				t.Errorf("frame key %s, want %s", got, g.frameKey)
			}
			if got := hex.EncodeToString(derive(proofInfo, testSite, &key, "example")); got != g.proofKey {
				t.Errorf("proof key %s, want %s", got, g.proofKey)
			}
			o := newOpener(ringOf(key))
			proof, err := o.Prove(testSite, key.ID, "example", []byte("transcript"))
			if got := hex.EncodeToString(proof[:]); err != nil || got != g.proof {
				t.Errorf("proof %s, %v, want %s", got, err, g.proof)
			}

			frame := readHex(t, g.name)
			body, err := o.Open(testSite, key.ID, testStream, frame)
			if err != nil {
				t.Fatal(err)
			}
			event, err := wire.ReadRecord(body)
			if err != nil || !bytes.Equal(event.Payload, goldenPayload) {
				t.Errorf("the frame holds %q, %v, want %q", event.Payload, err, goldenPayload)
			}
			if again := goldenFrame(t, key); g.reproducible && !bytes.Equal(again, frame) {
				t.Errorf("sealed   %x\nthe file %x", again, frame)
			}
		})
	}
}

// goldenFrame seals the frame that the files hold.
func goldenFrame(t *testing.T, key site.Key) []byte {
	t.Helper()
	s := newSealer(t, key)
	var b wire.Builder
	b.Reset(wire.MaxFrameLen, s.Trailer())
	b.Append(&wire.Event{ID: countUp(0x10), Raiser: countUp(0xa0), Payload: goldenPayload})
	frame := b.Finish(wire.Header{
		Key: key.ID, Site: testSite, Stream: testStream, Number: 42, Ordinal: 100, Clock: 1_700_000_000_123_456,
	})
	s.Seal(frame)
	return frame
}

// countUp returns the ID that counts up from first.
func countUp(first byte) (id wire.ID) {
	for i := range id {
		id[i] = first + byte(i)
	}
	return id
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readHex reads a golden file: hexadecimal digits, and comments from # to the
// end of the line.
func readHex(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/v1", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.TrimSpace(line))
	}
	return unhex(t, digits.String())
}
