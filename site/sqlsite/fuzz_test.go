package sqlsite

import (
	"bytes"
	"errors"
	"testing"

	"github.com/carillon-go/carillon/site"
)

// FuzzOpenSecret reads a secret out of a row that anybody may have written. It is
// opened as it was stored, or an error; never is another secret made of it.
func FuzzOpenSecret(f *testing.F) {
	kek, err := site.NewSecret(bytes.Repeat([]byte{7}, site.SecretLen))
	if err != nil {
		f.Fatal(err)
	}
	secret, err := site.NewSecret(bytes.Repeat([]byte{9}, site.SecretLen))
	if err != nil {
		f.Fatal(err)
	}
	key := site.Key{ID: 3, State: site.KeyActive, Suite: site.SuiteHMACSHA256, Version: 1, Secret: secret}
	in := site.ID{1}
	with := &Database{encryption: KeyEncryption{Key: kek}}
	with.setUpEncryption()
	required := &Database{encryption: KeyEncryption{Key: kek, Required: true}}
	required.setUpEncryption()
	without := &Database{}
	f.Add(with.sealSecret(in, key), uint32(3), uint8(2))
	f.Add(with.sealSecret(in, key), uint32(4), uint8(2))
	f.Add(without.sealSecret(in, key), uint32(3), uint8(2))
	f.Add([]byte{}, uint32(3), uint8(5))
	f.Add(append([]byte{sealedVersion}, make([]byte, sealedLen-1)...), uint32(3), uint8(1))
	f.Fuzz(func(t *testing.T, stored []byte, id uint32, state uint8) {
		k := key
		k.ID, k.State = site.KeyID(id), site.KeyState(state)
		for name, d := range map[string]*Database{"with": with, "required": required, "without": without} {
			got, err := d.openSecret(in, "app", k, stored)
			switch {
			case err != nil:
				if !got.IsZero() || len(stored) != site.SecretLen && !errors.Is(err, site.ErrSecret) {
					t.Errorf("%s: %v, secret zero: %v", name, err, got.IsZero())
				}
			case got.IsZero():
				if len(stored) != 0 || !k.State.Ended() {
					t.Errorf("%s: no secret from %d bytes of a key in state %d", name, len(stored), state)
				}
			case len(stored) == site.SecretLen:
				if name == "required" || !bytes.Equal(got.Reveal(), stored) {
					t.Errorf("%s: a plain secret was opened", name)
				}
			case !got.Equal(secret) || k.ID != key.ID || name == "without":
				t.Errorf("%s: opened what was not sealed for key %d", name, k.ID)
			}
		}
	})
}
