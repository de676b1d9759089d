package sqlsite

import (
	"bytes"
	"crypto/fips140"
	"encoding/hex"
	"os"
	"os/exec"
	"testing"

	"github.com/carillon-go/carillon/site"
)

// storedSecret is a secret as it rests in the databases there are; it is never edited.
const storedSecret = "01456b1d70384d504d728efade29f81e1a72ff9ed201675f13b3f39eece19c25dd477b457a121ed88d29064dd66bedd1513c3bcb688f2c69337f58bae4c621f98404c831e8"

func TestSecret_RestsInOneFormAlsoUnderFIPS(t *testing.T) {
	filled := func(b byte) site.Secret {
		s, err := site.NewSecret(bytes.Repeat([]byte{b}, site.SecretLen))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	d := &Database{encryption: KeyEncryption{Key: filled(7)}}
	d.setUpEncryption()
	key := site.Key{ID: 3, State: site.KeyActive, Suite: site.SuiteHMACSHA256, Version: 1, Secret: filled(9)}
	stored, err := hex.DecodeString(storedSecret)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.openSecret(site.ID{1}, "app", key, stored); err != nil || !got.Equal(key.Secret) {
		t.Errorf("what was stored before: equal %v, %v", got.Equal(key.Secret), err)
	}
	one, two := d.sealSecret(site.ID{1}, key), d.sealSecret(site.ID{1}, key)
	if got, err := d.openSecret(site.ID{1}, "app", key, one); len(one) != sealedLen || err != nil || !got.Equal(key.Secret) {
		t.Errorf("%d bytes: equal %v, %v", len(one), got.Equal(key.Secret), err)
	}
	if bytes.Equal(one, two) {
		t.Error("a nonce came twice")
	}
	if fips140.Enforced() {
		return
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := again.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("with fips140=only: %v\n%s", err, out)
	}
}
