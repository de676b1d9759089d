package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// control returns a sealed control frame.
func control(s *Sealer, key site.Key, number uint64) []byte {
	h := wire.Header{Key: key.ID, Site: testSite, Stream: testStream, Number: number}
	frame := wire.ControlFrame(h, wire.Bye{Mark: site.Mark{Frame: 1, Next: 1}}, s.Trailer())
	s.Seal(frame)
	return frame
}

func TestOpen_BindsAFrameToSiteKeyAndStream(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		// The same secret everywhere: only the derivation tells them apart.
		key, second := testKey(t, 1, suite), testKey(t, 2, suite)
		second.Secret = key.Secret
		other := site.ID{0x52}
		sites := []site.Site{{ID: testSite, Keys: []site.Key{key, second}}, {ID: other, Keys: []site.Key{key}}}
		o := newOpener(sites)
		frame := sealed(t, newSealer(t, key), key, 1, []byte("x"))
		if _, err := o.Open(testSite, key.ID, testStream, frame); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"site":   errorOf(o.Open(other, key.ID, testStream, frame)),
			"key":    errorOf(o.Open(testSite, second.ID, testStream, frame)),
			"stream": errorOf(o.Open(testSite, key.ID, site.NewStreamID(7, 0xc0ffef), frame)),
		} {
			if !errors.Is(err, ErrTag) {
				t.Errorf("another %s: error %v, want %v", name, err, ErrTag)
			}
		}
	})
}

func errorOf(_ []byte, err error) error { return err }

func TestOpen_DerivedKeyIsRememberedOnlyAfterAValidTag(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		key := testKey(t, 1, suite)
		o := newOpener(ringOf(key))
		remembered := func() int { return o.ring.Load().cache.len() }
		frame := sealed(t, newSealer(t, key), key, 1, nil)
		forged := bytes.Clone(frame)
		forged[len(forged)-1] ^= 1
		for i := range 10 {
			if _, err := o.Open(testSite, key.ID, site.NewStreamID(1, uint64(i)), forged); !errors.Is(err, ErrTag) {
				t.Fatal(err)
			}
		}
		if n := remembered(); n != 0 {
			t.Errorf("%d keys remembered after forged frames", n)
		}
		for range 3 {
			if _, err := o.Open(testSite, key.ID, testStream, frame); err != nil {
				t.Fatal(err)
			}
		}
		if n := remembered(); n != 1 {
			t.Errorf("%d keys remembered after a valid frame, want 1", n)
		}
		if _, err := o.Open(testSite, key.ID, testStream, forged); !errors.Is(err, ErrTag) {
			t.Errorf("a forged frame under a key remembered: error %v", err)
		}
	})
}

func TestSetKeys_ForgetsWhatWasRemembered(t *testing.T) {
	key := testKey(t, 1, site.SuiteHMACSHA256)
	o := newOpener(ringOf(key))
	frame := sealed(t, newSealer(t, key), key, 1, nil)
	open := func() error { return errorOf(o.Open(testSite, key.ID, testStream, frame)) }
	if err := open(); err != nil {
		t.Fatal(err)
	}
	key.State = site.KeyRevoked
	o.SetKeys(ringOf(key))
	if err := open(); !errors.Is(err, ErrRevoked) {
		t.Errorf("after the key was revoked: error %v", err)
	}
	key.State, key.Secret = site.KeyActive, testKey(t, 2, site.SuiteHMACSHA256).Secret
	o.SetKeys(ringOf(key))
	if err := open(); !errors.Is(err, ErrTag) {
		t.Errorf("after the secret was replaced: error %v", err)
	}
	o.SetKeys(nil)
	if err := open(); !errors.Is(err, ErrUnknownSite) {
		t.Errorf("after the site was removed: error %v", err)
	}
}

func TestSetKeys_DoesNotKeepItsArgument(t *testing.T) {
	key := testKey(t, 1, site.SuiteHMACSHA256)
	sites := ringOf(key)
	o := newOpener(sites)
	sites[0].Keys[0].State = site.KeyRevoked
	sites[0].ID = site.ID{}
	if _, err := o.Open(testSite, key.ID, testStream, sealed(t, newSealer(t, key), key, 1, nil)); err != nil {
		t.Error(err)
	}
}

func TestCache_IsBoundedAndKeepsWhatIsInUse(t *testing.T) {
	var c cache
	rk := new(ringKey)
	at := func(i int) keyOf { return keyOf{rk, site.NewStreamID(1, uint64(i))} }
	inUse, idle := new(macKey), new(macKey)
	c.put(at(0), inUse)
	c.put(at(1), idle)
	most := 0
	for i := 2; i < 10*cacheHalf; i++ {
		c.put(at(i), new(macKey))
		if i%100 == 0 && c.get(at(0)) != inUse {
			t.Fatalf("after %d others, a key in use is forgotten", i)
		}
		most = max(most, c.len())
	}
	if most > 2*cacheHalf {
		t.Errorf("%d keys remembered, want at most %d", most, 2*cacheHalf)
	}
	if c.get(at(1)) != nil {
		t.Error("a key that was not used since the start is still remembered")
	}
}

func TestOpenTrusting_LooksAtTheTagWhereItMust(t *testing.T) {
	mac, gcm, ghash := testKey(t, 1, site.SuiteHMACSHA256), testKey(t, 2, site.SuiteAES256GCM), testKey(t, 3, site.SuiteGHASHHMAC)
	strict := ringOf(mac)
	strict[0].Floors.MACRequired = true
	revoked := mac
	revoked.State = site.KeyRevoked
	for _, tt := range []struct {
		name    string
		sites   []site.Site
		key     site.Key
		control bool
		want    error // for a frame whose tag is wrong
	}{
		{"events in the clear", ringOf(mac), mac, false, nil},
		{"control frame", ringOf(mac), mac, true, ErrTag},
		{"encrypted", ringOf(gcm), gcm, false, ErrTag},
		{"events in the clear, hashed", ringOf(ghash), ghash, false, nil},
		{"control frame, hashed", ringOf(ghash), ghash, true, ErrTag},
		{"the site requires a MAC", strict, mac, false, ErrTag},
		{"revoked key", ringOf(revoked), mac, false, ErrRevoked},
		{"unknown key", ringOf(gcm), mac, false, ErrUnknownKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSealer(t, tt.key)
			frame := sealed(t, s, tt.key, 1, []byte("x"))
			if tt.control {
				frame = control(s, tt.key, 1)
			}
			plain := bytes.Clone(wire.Body(frame, s.Trailer()))
			frame[len(frame)-1] ^= 1
			o := newOpener(tt.sites)
			body, err := o.OpenTrusting(testSite, tt.key.ID, testStream, frame)
			if !errors.Is(err, tt.want) {
				t.Errorf("wrong tag: error %v, want %v", err, tt.want)
			}
			if err == nil && !bytes.Equal(body, plain) {
				t.Errorf("body %q, want %q", body, plain)
			}
			frame[len(frame)-1] ^= 1
			if _, err := o.OpenTrusting(testSite, tt.key.ID, testStream, frame); err != nil && errors.Is(tt.want, ErrTag) {
				t.Errorf("right tag: error %v", err)
			}
			frame[versionAt] = 9
			if _, err := o.OpenTrusting(testSite, tt.key.ID, testStream, frame); err == nil {
				t.Error("a frame of another version was opened")
			}
			for n := range wire.HeaderLen + s.Trailer() {
				if _, err := o.OpenTrusting(testSite, tt.key.ID, testStream, frame[:n]); err == nil {
					t.Errorf("a frame of %d bytes was opened", n)
				}
			}
		})
	}
}

func TestGCM_NoNonceComesTwice(t *testing.T) {
	key := testKey(t, 1, site.SuiteAES256GCM)
	s := newSealer(t, key)
	nonce := func(frame []byte) string {
		number := wire.FrameNumber(frame)
		return fmt.Sprintf("%012x %x", number, frame[len(frame)-nonceCarried:])
	}
	side := func(frame []byte) byte { return frame[len(frame)-nonceCarried] & 0x80 }

	seen := map[string]bool{}
	for range 100 { // one number again and again, as after a copy of the process
		seen[nonce(sealed(t, s, key, 1, nil))] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d nonces for 100 frames of one number", len(seen))
	}
	for range 100 {
		if e, c := side(sealed(t, s, key, 1, nil)), side(control(s, key, 1)); e != 0 || c == 0 {
			t.Fatalf("first bit is %#x in an events frame, %#x in a control frame", e, c)
		}
	}

	// The number itself is part of the nonce, beside being part of the header.
	g := s.key.(*gcmKey)
	var a, b [nonceLen]byte
	frame := sealed(t, s, key, 0x010203040506, nil)
	setNumber(&a, frame)
	if want := [nonceLen]byte{1, 2, 3, 4, 5, 6}; a != want {
		t.Errorf("nonce begins with %x, want %x", a, want)
	}
	setNumber(&b, sealed(t, s, key, 0x010203040507, nil))
	if a == b || g.aead.NonceSize() != nonceLen {
		t.Errorf("%x and %x", a, b)
	}
}

func TestSeal_PanicsWithoutRoom(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		s := newSealer(t, testKey(t, 1, suite))
		defer func() {
			if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "no room") {
				t.Errorf("recovered %v", r)
			}
		}()
		s.Seal(make([]byte, wire.HeaderLen+s.Trailer()-1))
	})
}

func TestTrailerLen_IsThatOfTheSuite(t *testing.T) {
	for suite, want := range map[site.Suite]int{site.SuiteHMACSHA256: 32, site.SuiteAES256GCM: 22} {
		if n, err := TrailerLen(suite); n != want || err != nil {
			t.Errorf("suite %d: %d, %v, want %d", suite, n, err, want)
		}
		if n := newSealer(t, testKey(t, 1, suite)).Trailer(); n != want {
			t.Errorf("suite %d: the Sealer says %d, want %d", suite, n, want)
		}
	}
	for _, suite := range []site.Suite{0, 3} {
		if _, err := TrailerLen(suite); !errors.Is(err, ErrUnsupported) {
			t.Errorf("suite %d: error %v", suite, err)
		}
	}
}

func TestProve_IsAcceptedForTheSameArgumentsOnly(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		key, second := testKey(t, 1, suite), testKey(t, 2, suite)
		second.Secret = key.Secret
		other := site.ID{0x52}
		o := newOpener([]site.Site{{ID: testSite, Keys: []site.Key{key, second}}, {ID: other, Keys: []site.Key{key}}})
		transcript := []byte("who said what")
		proof, err := o.Prove(testSite, key.ID, "tcp initiator", transcript)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Verify(testSite, key.ID, "tcp initiator", transcript, proof); err != nil {
			t.Error(err)
		}
		for name, err := range map[string]error{
			"site":       o.Verify(other, key.ID, "tcp initiator", transcript, proof),
			"key":        o.Verify(testSite, second.ID, "tcp initiator", transcript, proof),
			"label":      o.Verify(testSite, key.ID, "tcp acceptor", transcript, proof),
			"transcript": o.Verify(testSite, key.ID, "tcp initiator", transcript[1:], proof),
			"boundary":   o.Verify(testSite, key.ID, "tcp initiatorw", transcript[1:], proof),
		} {
			if !errors.Is(err, ErrProof) {
				t.Errorf("another %s: error %v, want %v", name, err, ErrProof)
			}
		}
		for i := range proof {
			bad := proof
			bad[i] ^= 1
			if err := o.Verify(testSite, key.ID, "tcp initiator", transcript, bad); !errors.Is(err, ErrProof) {
				t.Errorf("byte %d of the proof altered: error %v", i, err)
			}
		}
	})
}

func TestProve_RefusesTheKeysThatOpenRefuses(t *testing.T) {
	key := testKey(t, 1, site.SuiteHMACSHA256)
	key.State = site.KeyRevoked
	o := newOpener(ringOf(key))
	for _, tt := range []struct {
		s    site.ID
		k    site.KeyID
		want error
	}{{testSite, 1, ErrRevoked}, {testSite, 2, ErrUnknownKey}, {site.ID{9}, 1, ErrUnknownSite}} {
		proof, err := o.Prove(tt.s, tt.k, "x", nil)
		if !errors.Is(err, tt.want) || proof != [32]byte{} {
			t.Errorf("Prove: %x, %v, want %v", proof, err, tt.want)
		}
		if err := o.Verify(tt.s, tt.k, "x", nil, proof); !errors.Is(err, tt.want) {
			t.Errorf("Verify: %v, want %v", err, tt.want)
		}
	}
}

func TestDerive_NoTwoUsesShareAKey(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		key := testKey(t, 1, suite)
		seen := map[string]string{}
		note := func(name string, k []byte) {
			if other, twice := seen[string(k)]; twice {
				t.Errorf("%s and %s have the same key", name, other)
			}
			if len(k) != keyLen {
				t.Errorf("%s has a key of %d bytes", name, len(k))
			}
			seen[string(k)] = name
		}
		stream := string(testStream[:])
		note("frame", derive(frameInfo, testSite, &key, stream))
		note("proof", derive(proofInfo, testSite, &key, stream))
		note("site", derive(frameInfo, site.ID{1}, &key, stream))
		note("stream", derive(frameInfo, testSite, &key, stream[1:]+"x"))
		for name, change := range map[string]func(*site.Key){
			"key ID":  func(k *site.Key) { k.ID++ },
			"suite":   func(k *site.Key) { k.Suite ^= 3 },
			"version": func(k *site.Key) { k.Version++ },
			"secret":  func(k *site.Key) { k.Secret = testKey(t, 2, suite).Secret },
		} {
			k := key
			change(&k)
			note(name, derive(frameInfo, testSite, &k, stream))
		}
	})
}

func TestSecrets_NeverShow(t *testing.T) {
	suites(t, func(t *testing.T, suite site.Suite) {
		key := testKey(t, 0xa7, suite)
		s, o := newSealer(t, key), newOpener(ringOf(key))
		if _, err := o.Open(testSite, key.ID, testStream, sealed(t, s, key, 1, nil)); err != nil {
			t.Fatal(err)
		}
		_, errSuite := NewSealer(site.Key{ID: 1, Version: 1, Suite: 9, Secret: key.Secret}, testSite, testStream)
		var out strings.Builder
		log := slog.New(slog.NewTextHandler(&out, nil))
		for _, v := range []any{s, *s, o, key, errSuite} {
			fmt.Fprintf(&out, "%v %+v %#v %s %x %d\n", v, v, v, v, v, v)
			log.Info("x", "v", v)
		}
		derived := derive(frameInfo, testSite, &key, string(testStream[:]))
		for _, secret := range [][]byte{key.Secret.Reveal(), derived} {
			for name, shown := range map[string]string{
				"hexadecimal": hex.EncodeToString(secret[:4]),
				"decimal":     strings.Trim(fmt.Sprint(secret[:4]), "[]"),
				"Go":          strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret[:4]), "[]byte{"), "}"),
				"raw":         string(secret[:4]),
			} {
				if strings.Contains(out.String(), shown) {
					t.Errorf("a key shows in %s: %s", name, out.String())
				}
			}
		}
	})
}
