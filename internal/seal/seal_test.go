package seal

import (
	"bytes"
	"crypto/fips140"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

var (
	testSite   = site.ID{0x51, 15: 1}
	testStream = site.NewStreamID(7, 0xc0ffee)
)

// versionAt is where a frame has its version.
const versionAt = 4

// testKey returns an active key whose secret is n repeated.
func testKey(t testing.TB, n byte, suite site.Suite) site.Key {
	t.Helper()
	secret, err := site.NewSecret(bytes.Repeat([]byte{n}, site.SecretLen))
	if err != nil {
		t.Fatal(err)
	}
	return site.Key{ID: site.KeyID(n), State: site.KeyActive, Suite: suite, Version: 1, Secret: secret}
}

func ringOf(keys ...site.Key) []site.Site { return []site.Site{{ID: testSite, Keys: keys}} }

func newOpener(sites []site.Site) *Opener {
	o := NewOpener()
	o.SetKeys(sites)
	return o
}

func newSealer(t testing.TB, key site.Key) *Sealer {
	t.Helper()
	s, err := NewSealer(key, testSite, testStream)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed returns a sealed frame whose only event has this payload.
func sealed(t testing.TB, s *Sealer, key site.Key, number uint64, payload []byte) []byte {
	t.Helper()
	var b wire.Builder
	b.Reset(wire.MaxFrameLen, s.Trailer())
	if !b.Append(&wire.Event{ID: wire.ID{1}, Raiser: wire.ID{2}, Payload: payload}) {
		t.Fatal("the event does not fit")
	}
	frame := b.Finish(wire.Header{Key: key.ID, Site: testSite, Stream: testStream, Number: number})
	s.Seal(frame)
	return frame
}

// suites runs f once per suite.
func suites(t *testing.T, f func(t *testing.T, suite site.Suite)) {
	t.Run("hmac", func(t *testing.T) { f(t, site.SuiteHMACSHA256) })
	t.Run("gcm", func(t *testing.T) { f(t, site.SuiteAES256GCM) })
	t.Run("ghash", func(t *testing.T) { f(t, site.SuiteGHASHHMAC) })
}

func TestOpen_ReturnsTheBodyAndLeavesTheFrame(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		key := testKey(t, 1, suite)
		s := newSealer(t, key)
		payload := []byte("page 17 was published")
		frame := sealed(t, s, key, 1, payload)
		if encrypted := !bytes.Contains(frame, payload); encrypted != (suite == site.SuiteAES256GCM) {
			t.Errorf("encrypted = %v", encrypted)
		}
		before := bytes.Clone(frame)
		o := newOpener(ringOf(key))
		for range 2 { // the second time with the key remembered
			body, err := o.Open(testSite, key.ID, testStream, frame)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasSuffix(body, payload) {
				t.Errorf("the body ends otherwise than in %q: %q", payload, body)
			}
			if !bytes.Equal(frame, before) {
				t.Error("Open changed the frame")
			}
		}
	})
}

func TestOpen_RefusesAFrameAlteredOrCutAnywhere(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		key := testKey(t, 1, suite)
		frame := sealed(t, newSealer(t, key), key, 1, []byte("payload"))
		o := newOpener(ringOf(key))
		open := func(f []byte) error {
			_, err := o.Open(testSite, key.ID, testStream, f)
			return err
		}
		for _, remembered := range []bool{false, true} {
			for i := range frame {
				for bit := range 8 {
					f := bytes.Clone(frame)
					f[i] ^= 1 << bit
					want := ErrTag
					if i == versionAt {
						want = ErrVersion
					}
					if err := open(f); !errors.Is(err, want) {
						t.Errorf("remembered=%v: bit %d of byte %d changed: error %v, want %v", remembered, bit, i, err, want)
					}
				}
				if err := open(frame[:i]); !errors.Is(err, ErrTag) {
					t.Errorf("remembered=%v: cut to %d bytes: error %v", remembered, i, err)
				}
			}
			if err := open(append(bytes.Clone(frame), 0)); !errors.Is(err, ErrTag) {
				t.Errorf("remembered=%v: one byte more: error %v", remembered, err)
			}
			if err := open(frame); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestOpen_RefusesAGenuineTagOverLessThanAHeader(t *testing.T) {
	// Only a holder of the secret can make one, and even that must not end in a panic.
	key := testKey(t, 1, site.SuiteHMACSHA256)
	h := wire.Header{Key: key.ID, Site: testSite, Stream: testStream, Number: 1}
	frame := wire.ControlFrame(h, wire.Bye{}, tagLen)[:wire.HeaderLen+tagLen-1]
	newSealer(t, key).key.seal(frame)
	if body, err := newOpener(ringOf(key)).Open(testSite, key.ID, testStream, frame); !errors.Is(err, ErrTag) {
		t.Errorf("%x, %v", body, err)
	}
}

func TestIdle_KeepsAFewAndNoMore(t *testing.T) {
	made := 0
	p := idle[int]{create: func() *int { made++; return new(int) }}
	for range 2 {
		var out []*int
		for range 2 * maxIdle {
			out = append(out, p.get())
		}
		for _, v := range out {
			p.put(v)
		}
	}
	if want := 3 * maxIdle; made != want {
		t.Errorf("%d made, want %d", made, want)
	}
}

func TestOpen_SaysWhyAKeyIsRefused(t *testing.T) {
	key := testKey(t, 1, site.SuiteHMACSHA256)
	frame := sealed(t, newSealer(t, key), key, 1, nil)
	with := func(change func(*site.Key)) []site.Site {
		k := key
		change(&k)
		return ringOf(k)
	}
	floor := func(f site.Floors) []site.Site {
		sites := ringOf(key)
		sites[0].Floors = f
		return sites
	}
	other := testKey(t, 9, site.SuiteHMACSHA256).Secret
	for _, tt := range []struct {
		name  string
		sites []site.Site
		want  error
	}{
		{"pending", with(func(k *site.Key) { k.State = site.KeyPending }), nil},
		{"active", with(func(k *site.Key) {}), nil},
		{"retiring", with(func(k *site.Key) { k.State = site.KeyRetiring }), nil},
		{"revoked", with(func(k *site.Key) { k.State = site.KeyRevoked }), ErrRevoked},
		{"state unknown", with(func(k *site.Key) { k.State = 77 }), ErrUnsupported},
		{"another secret", with(func(k *site.Key) { k.Secret = other }), ErrTag},
		{"no secret", with(func(k *site.Key) { k.Secret = site.Secret{} }), ErrUnknownKey},
		{"another key ID", with(func(k *site.Key) { k.ID = 2 }), ErrUnknownKey},
		{"a suite that encrypts", with(func(k *site.Key) { k.Suite = site.SuiteAES256GCM }), ErrTag},
		{"a suite as long", with(func(k *site.Key) { k.Suite = site.SuiteGHASHHMAC }), ErrTag},
		{"suite unknown", with(func(k *site.Key) { k.Suite = 3 }), ErrUnsupported},
		{"version unknown", with(func(k *site.Key) { k.Version = 2 }), ErrUnsupported},
		{"floor: encryption required", floor(site.Floors{EncryptionRequired: true}), ErrFloor},
		{"floor: version", floor(site.Floors{Version: 2}), ErrFloor},
		{"floor: met", floor(site.Floors{Version: 1, MACRequired: true}), nil},
		{"another site", []site.Site{{ID: site.ID{8}, Keys: []site.Key{key}}}, ErrUnknownSite},
		{"no site", nil, ErrUnknownSite},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := newOpener(tt.sites).Open(testSite, 1, testStream, frame); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestSealer_IsSafeForConcurrentUse(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		key := testKey(t, 1, suite)
		s, o := newSealer(t, key), newOpener(ringOf(key))
		var wg sync.WaitGroup
		for g := range 2 * maxIdle {
			wg.Go(func() {
				for i := range 50 {
					payload := fmt.Appendf(nil, "%d of %d", i, g)
					frame := sealed(t, s, key, uint64(g*1000+i+1), payload)
					body, err := o.Open(testSite, key.ID, testStream, frame)
					if err != nil || !bytes.HasSuffix(body, payload) {
						t.Errorf("%s: %q, %v", payload, body, err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestNewSealer_RefusesWhatCannotSign(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*site.Key, *site.ID, *site.StreamID)
		want   string
	}{
		{"pending", func(k *site.Key, _ *site.ID, _ *site.StreamID) { k.State = site.KeyPending }, "not active"},
		{"retiring", func(k *site.Key, _ *site.ID, _ *site.StreamID) { k.State = site.KeyRetiring }, "not active"},
		{"revoked", func(k *site.Key, _ *site.ID, _ *site.StreamID) { k.State = site.KeyRevoked }, "not active"},
		{"suite", func(k *site.Key, _ *site.ID, _ *site.StreamID) { k.Suite = 3 }, "suite 3"},
		{"no suite", func(k *site.Key, _ *site.ID, _ *site.StreamID) { k.Suite = 0 }, "suite 0"},
		{"version", func(k *site.Key, _ *site.ID, _ *site.StreamID) { k.Version = 2 }, "wire version 2"},
		{"secret", func(k *site.Key, _ *site.ID, _ *site.StreamID) { k.Secret = site.Secret{} }, "no secret"},
		{"key ID", func(k *site.Key, _ *site.ID, _ *site.StreamID) { k.ID = 0 }, "zero"},
		{"site", func(_ *site.Key, s *site.ID, _ *site.StreamID) { *s = site.ID{} }, "zero"},
		{"stream", func(_ *site.Key, _ *site.ID, s *site.StreamID) { *s = site.StreamID{} }, "zero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, s, stream := testKey(t, 1, site.SuiteHMACSHA256), testSite, testStream
			tt.change(&key, &s, &stream)
			if _, err := NewSealer(key, s, stream); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

func TestUsable_NamesTheSuiteThatFIPSAllows(t *testing.T) {
	if fips140.Enforced() {
		suites(t, func(t *testing.T, suite site.Suite) {
			err := Usable(testSite, testKey(t, 1, suite))
			if allowed := suite == site.SuiteHMACSHA256; (err == nil) != allowed || !allowed && !strings.Contains(err.Error(), "rotate to hmac-sha-256") {
				t.Errorf("%v: %v", suite, err)
			}
		})
		return
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := again.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name()+"/hmac")) {
		t.Errorf("with fips140=only: %v\n%s", err, out)
	}
}
