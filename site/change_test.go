package site

import (
	"bytes"
	"crypto/fips140"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// withKeys returns a site whose keys have these states, with IDs from 1.
func withKeys(states ...KeyState) Site {
	s := NewSite("app")
	s.Keys = nil
	for i, state := range states {
		k := NewKey(KeyID(i+1), SuiteHMACSHA256)
		k.State = state
		s.Keys = append(s.Keys, k)
	}
	return s
}

func TestCheckChange_EveryStepOfAKey(t *testing.T) {
	all := []KeyState{KeyPending, KeyActive, KeyRetiring, KeyRevoked, KeyCompromised}
	allowed := map[KeyState][]KeyState{
		KeyPending:     {KeyPending, KeyActive, KeyRevoked, KeyCompromised},
		KeyActive:      {KeyActive, KeyRetiring, KeyCompromised},
		KeyRetiring:    {KeyRetiring, KeyRevoked, KeyCompromised},
		KeyRevoked:     {KeyRevoked, KeyCompromised},
		KeyCompromised: {KeyCompromised},
	}
	for _, from := range all {
		for _, to := range all {
			old := withKeys(from)
			next := old
			next.Keys = slices.Clone(old.Keys)
			next.Keys[0].State = to
			if to != KeyActive {
				k := NewKey(2, SuiteHMACSHA256)
				k.State = KeyActive
				next.Keys = append(next.Keys, k)
			}
			err := CheckChange(old, next)
			if good := slices.Contains(allowed[from], to); (err == nil) != good {
				t.Errorf("a key from %v to %v: %v; allowed: %v", from, to, err, good)
			}
		}
	}
}

func TestCheckChange_BothSidesOfEachRule(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	key := func(id KeyID, state KeyState) Key {
		k := NewKey(id, SuiteHMACSHA256)
		k.State = state
		return k
	}
	old := withKeys(KeyRevoked, KeyRetiring, KeyActive)
	old.Keys[1].Until = at
	for _, c := range []struct {
		name string
		edit func(s *Site)
		want string // in the error; empty: allowed
	}{
		{"nothing", func(*Site) {}, ""},
		{"another generation", func(s *Site) { s.Generation = 99 }, ""},
		{"another ID", func(s *Site) { s.ID[0] ^= 1 }, "cannot make it"},
		{"another name", func(s *Site) { s.Name = "b" }, `"b"`},
		{"a pending key", func(s *Site) { s.Keys = append(s.Keys, key(4, KeyPending)) }, ""},
		{"a pending key with a later ID", func(s *Site) { s.Keys = append(s.Keys, key(400, KeyPending)) }, ""},
		{"two pending keys", func(s *Site) { s.Keys = append(s.Keys, key(4, KeyPending), key(5, KeyPending)) }, "2 pending"},
		{"a retiring key from nowhere", func(s *Site) { s.Keys = append(s.Keys, key(4, KeyRetiring)) }, "pending or active"},
		{"an ID again", func(s *Site) { s.Keys = append(s.Keys, key(3, KeyPending)) }, "never used again"},
		{"an ID of 0", func(s *Site) { s.Keys = append([]Key{key(0, KeyPending)}, s.Keys...) }, "missing"},
		{"an ID in between", func(s *Site) { s.Keys = slices.Insert(s.Keys, 1, key(1, KeyPending)) }, "missing"},
		{"out of order", func(s *Site) { slices.Reverse(s.Keys) }, "order"},
		{"the tombstone removed", func(s *Site) { s.Keys = s.Keys[1:] }, "never removed"},
		{"the active key removed", func(s *Site) { s.Keys = s.Keys[:2] }, "never removed"},
		{"all removed", func(s *Site) { s.Keys = nil }, "never removed"},
		{"no active key", func(s *Site) { s.Keys[2].State = KeyRetiring }, "0 active"},
		{"two active keys", func(s *Site) { s.Keys = append(s.Keys, key(4, KeyActive)) }, "2 active"},
		{"a promotion past pending", func(s *Site) { s.Keys[2].State = KeyRetiring; s.Keys = append(s.Keys, key(4, KeyActive)) }, ""},
		{"an emergency", func(s *Site) { s.Keys[2].State = KeyCompromised; s.Keys = append(s.Keys, key(4, KeyActive)) }, ""},
		{"another secret", func(s *Site) { s.Keys[2].Secret = key(3, 0).Secret }, "secret"},
		{"another secret of a tombstone", func(s *Site) { s.Keys[0].Secret = key(3, 0).Secret }, "secret"},
		{"a forgotten secret of a tombstone", func(s *Site) { s.Keys[0].Secret = Secret{} }, ""},
		{"a forgotten secret of a retiring key", func(s *Site) { s.Keys[1].Secret = Secret{} }, "secret"},
		{"another suite", func(s *Site) { s.Keys[1].Suite = SuiteAES256GCM }, "suite"},
		{"another version", func(s *Site) { s.Keys[1].Version = 2 }, "version"},
		{"the same end", func(s *Site) { s.Keys[1].Until = at.UTC() }, ""},
		{"a later end", func(s *Site) { s.Keys[1].Until = at.Add(1) }, ""},
		{"an earlier end", func(s *Site) { s.Keys[1].Until = at.Add(-1) }, "earlier"},
		{"no end any more", func(s *Site) { s.Keys[1].Until = time.Time{} }, "earlier"},
		{"no end of a revoked key", func(s *Site) { s.Keys[1].State, s.Keys[1].Until = KeyRevoked, time.Time{} }, ""},
		{"an end of the active key", func(s *Site) { s.Keys[2].Until = at }, "only retiring"},
		{"a new key with an end", func(s *Site) { k := key(4, KeyPending); k.Until = at; s.Keys = append(s.Keys, k) }, "only retiring"},
		{"a new key without a secret", func(s *Site) { k := key(4, KeyPending); k.Secret = Secret{}; s.Keys = append(s.Keys, k) }, "no secret"},
		{"a new key with an old secret", func(s *Site) { k := key(4, KeyPending); k.Secret = s.Keys[2].Secret; s.Keys = append(s.Keys, k) }, "secret of key 3"},
		{"a new key without a suite", func(s *Site) { k := key(4, KeyPending); k.Suite = 0; s.Keys = append(s.Keys, k) }, "suite"},
		{"a new key of an unknown suite", func(s *Site) { k := key(4, KeyPending); k.Suite = 3; s.Keys = append(s.Keys, k) }, "suite"},
		{"a new key of no version", func(s *Site) { k := key(4, KeyPending); k.Version = 0; s.Keys = append(s.Keys, k) }, "version"},
		{"a required tag", func(s *Site) { s.Floors.MACRequired = true }, ""},
		{"encryption that the active key has not", func(s *Site) { s.Floors.EncryptionRequired = true }, "does not encrypt"},
		{"a version that the active key has not", func(s *Site) { s.Floors.Version = 2 }, "below the floor"},
		{"no lowest version", func(s *Site) { s.Floors.Version = 0 }, "lowest wire version"},
		{"too many keys", func(s *Site) { s.Keys = append(s.Keys, make([]Key, MaxKeys-2)...) }, "65537"},
	} {
		next := old
		next.Keys = slices.Clone(old.Keys)
		c.edit(&next)
		err := CheckChange(old, next)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want an error that says %q", c.name, err, c.want)
		}
	}
}

func TestDefaultSuite_IsApprovedWhereThatIsAsked(t *testing.T) {
	if fips140.Enabled() {
		if s := DefaultSuite(); s != SuiteHMACSHA256 {
			t.Errorf("in FIPS 140-3 mode: %v", s)
		}
		return
	}
	if s := DefaultSuite(); s != SuiteGHASHHMAC {
		t.Errorf("%v", s)
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), "GODEBUG=fips140=on")
	if out, err := again.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in FIPS 140-3 mode: %v\n%s", err, out)
	}
}

func TestSuite_HasANameThatIsUnderstood(t *testing.T) {
	for _, s := range []Suite{SuiteHMACSHA256, SuiteAES256GCM, SuiteGHASHHMAC} {
		if got, err := ParseSuite(s.String()); got != s || err != nil {
			t.Errorf("ParseSuite(%q) = %v, %v", s, got, err)
		}
	}
	for _, name := range []string{"", "hmac", "Suite(3)"} {
		if s, err := ParseSuite(name); err == nil || !strings.Contains(err.Error(), "aes-256-gcm") {
			t.Errorf("ParseSuite(%q) = %v, %v; want an error with the choices", name, s, err)
		}
	}
}
