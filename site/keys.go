package site

import (
	"crypto/fips140"
	"fmt"
	"slices"
	"time"
)

var keyStates = [...]string{
	KeyPending: "pending", KeyActive: "active", KeyRetiring: "retiring", KeyRevoked: "revoked", KeyCompromised: "compromised",
}

// String returns the name of the state, as in "active".
func (s KeyState) String() string {
	if int(s) < len(keyStates) && s != 0 {
		return keyStates[s]
	}
	return fmt.Sprintf("KeyState(%d)", uint8(s))
}

// Verifies reports whether a key in this state opens frames.
func (s KeyState) Verifies() bool { return s == KeyPending || s == KeyActive || s == KeyRetiring }

// Ended reports whether a key in this state is of no more use, for ever.
func (s KeyState) Ended() bool { return s == KeyRevoked || s == KeyCompromised }

var suites = [...]string{SuiteHMACSHA256: "hmac-sha-256", SuiteAES256GCM: "aes-256-gcm", SuiteGHASHHMAC: "ghash-hmac-sha-256"}

// DefaultSuite returns the suite of a new site's key: [SuiteGHASHHMAC], or [SuiteHMACSHA256]
// in a program in FIPS 140-3 mode, because GHASH is approved as a part of GCM only.
func DefaultSuite() Suite {
	if fips140.Enabled() {
		return SuiteHMACSHA256
	}
	return SuiteGHASHHMAC
}

// String returns the name of the suite, as in "aes-256-gcm".
func (s Suite) String() string {
	if s.known() {
		return suites[s]
	}
	return fmt.Sprintf("Suite(%d)", uint8(s))
}

// Encrypts reports whether frames under the suite hide what they say.
func (s Suite) Encrypts() bool { return s == SuiteAES256GCM }

func (s Suite) known() bool { return int(s) < len(suites) && suites[s] != "" }

// ParseSuite returns the suite with this name.
func ParseSuite(name string) (Suite, error) {
	if s := slices.Index(suites[:], name); s > 0 && name != "" {
		return Suite(s), nil
	}
	return 0, fmt.Errorf("site: there is no suite %q; choose %s, %s or %s", name, SuiteGHASHHMAC, SuiteHMACSHA256, SuiteAES256GCM)
}

// Active returns the key that signs. The zero Key says that there is none.
func (s Site) Active() Key {
	for _, k := range s.Keys {
		if k.State == KeyActive {
			return k
		}
	}
	return Key{}
}

// Key returns the key with this ID. The zero Key says that there is none.
func (s Site) Key(id KeyID) Key {
	for _, k := range s.Keys {
		if k.ID == id {
			return k
		}
	}
	return Key{}
}

// NextKeyID returns the ID for the next key.
func (s Site) NextKeyID() KeyID {
	var last KeyID
	for _, k := range s.Keys {
		last = max(last, k.ID)
	}
	return last + 1
}

// Allow returns an error unless frames under k protect as much as f asks for.
func (f Floors) Allow(k Key) error {
	switch {
	case k.Version < f.Version:
		return fmt.Errorf("site: key %d is for wire version %d, below the floor of %d", k.ID, k.Version, f.Version)
	case f.EncryptionRequired && !k.Suite.Encrypts():
		return fmt.Errorf("site: the floors require encryption, and key %d of suite %v does not encrypt", k.ID, k.Suite)
	}
	return nil
}

// At returns s as it is at a time of the database: retiring keys whose end has
// come are revoked. ends is when the next one ends; zero: none is known to.
func (s Site) At(now time.Time) (at Site, ends time.Time) {
	s.Keys = slices.Clone(s.Keys)
	for i := range s.Keys {
		k := &s.Keys[i]
		switch {
		case k.State != KeyRetiring || k.Until.IsZero():
		case !k.Until.After(now):
			k.State = KeyRevoked
		case ends.IsZero() || k.Until.Before(ends):
			ends = k.Until
		}
	}
	return s, ends
}
