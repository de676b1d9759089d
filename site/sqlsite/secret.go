package sqlsite

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"github.com/carillon-go/carillon/site"
)

// KeyEncryption says how the secrets of sites rest in the database: encrypted
// by AES-256-GCM under a key that is kept somewhere else, so that a backup, or the
// right to read the tables, is not enough to speak for the site.
type KeyEncryption struct {
	// Key encrypts what is written and opens what is read. Empty: what is written is plain.
	Key site.Secret

	// Former are keys that only open, while one is exchanged for another.
	Former []site.Secret

	// Required refuses secrets that are plain, with [site.ErrSecret]. Without it they are read, so
	// that encryption can begin while instances run.
	Required bool
}

// WithKeyEncryption keeps secrets encrypted, see [KeyEncryption]. All instances
// of all sites of a database need it before the first secret is
// encrypted; [Database.EncryptSecrets] does that with those there are.
func WithKeyEncryption(k KeyEncryption) Option {
	return func(d *Database) { d.encryption = k }
}

// A stored secret is either plain, then it has site.SecretLen bytes, or
//
//	0   1   sealedVersion
//	1   8   which key-encryption key
//	9   12  nonce
//	21  48  ciphertext and tag
//
// sealed with the site's ID and the key's ID, suite and version, so that none serves in another row.
const (
	sealedVersion = 1
	sealedLen     = 1 + wrapIDLen + 12 + site.SecretLen + 16
	wrapIDLen     = 8
)

// A wrap is one key-encryption key.
type wrap struct {
	id   [wrapIDLen]byte // says which it is and nothing of it
	aead cipher.AEAD     // makes the nonce and puts it first
}

func newWrap(key site.Secret) *wrap {
	material, err := hkdf.Key(sha256.New, key.Reveal(), nil, "carillon v1 key encryption", 32+wrapIDLen)
	if err != nil {
		panic("sqlsite: " + err.Error()) // only for lengths that are not these
	}
	block, err := aes.NewCipher(material[:32])
	if err != nil {
		panic("sqlsite: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block) // GODEBUG=fips140=only takes no other
	if err != nil {
		panic("sqlsite: " + err.Error())
	}
	return &wrap{id: [wrapIDLen]byte(material[32:]), aead: aead}
}

// setUpEncryption makes the wraps.
func (d *Database) setUpEncryption() {
	if !d.encryption.Key.IsZero() {
		d.seal = newWrap(d.encryption.Key)
		d.wraps = append(d.wraps, d.seal)
	}
	for _, key := range d.encryption.Former {
		if !key.IsZero() {
			d.wraps = append(d.wraps, newWrap(key))
		}
	}
}

func sealedFor(s site.ID, k site.Key) []byte {
	b := append([]byte("carillon v1 secret\x00"), s[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(k.ID))
	return append(b, byte(k.Suite), k.Version)
}

// sealSecret returns the secret of k as it is stored.
func (d *Database) sealSecret(s site.ID, k site.Key) []byte {
	if d.seal == nil || k.Secret.IsZero() {
		return append([]byte{}, k.Secret.Reveal()...) // not nil, which would be NULL
	}
	b := append([]byte{sealedVersion}, d.seal.id[:]...)
	return d.seal.aead.Seal(b, nil, k.Secret.Reveal(), sealedFor(s, k))
}

// openSecret returns the secret that is stored for k.
func (d *Database) openSecret(s site.ID, name string, k site.Key, stored []byte) (site.Secret, error) {
	switch {
	case len(stored) == 0 && k.State.Ended():
		return site.Secret{}, nil
	case len(stored) == site.SecretLen && d.encryption.Required:
		return site.Secret{}, finding("%w: that of key %d of site %q is not encrypted, and this program requires it; encrypt those there are: carillon secret encrypt", site.ErrSecret, k.ID, name)
	case len(stored) == site.SecretLen:
		return site.NewSecret(stored)
	case len(stored) != sealedLen || stored[0] != sealedVersion:
		return site.Secret{}, finding("%w: that of key %d of site %q has %d bytes and is in no form that this program knows; was it written by a newer one?", site.ErrSecret, k.ID, name, len(stored))
	case len(d.wraps) == 0:
		return site.Secret{}, finding("%w: that of key %d of site %q is encrypted, and this program has no key-encryption key; configure the one that the other instances have", site.ErrSecret, k.ID, name)
	}
	id, sealed := stored[1:1+wrapIDLen], stored[1+wrapIDLen:]
	for _, w := range d.wraps {
		if !bytes.Equal(id, w.id[:]) {
			continue
		}
		plain, err := w.aead.Open(nil, nil, sealed, sealedFor(s, k))
		if err != nil {
			return site.Secret{}, finding("%w: that of key %d of site %q was altered, or belongs to another row; restore the tables from a backup, or revoke the key", site.ErrSecret, k.ID, name)
		}
		return site.NewSecret(plain)
	}
	return site.Secret{}, finding("%w: that of key %d of site %q is encrypted under the key-encryption key %x, and this program has %x; configure the one that the other instances have", site.ErrSecret, k.ID, name, id, d.wraps[0].id)
}

// EncryptSecrets stores every secret as [KeyEncryption] says: those that are plain, or
// encrypted under a former key, under the present one; all plain if there is none. It
// returns how many it wrote. Instances that have no key-encryption key can read none of them from then on.
func (d *Database) EncryptSecrets(ctx context.Context) (int, error) {
	n := 0
	err := d.run(ctx, "encrypt the secrets", func(ctx context.Context, c *conn) error {
		return c.write(ctx, func() error {
			n = 0
			if _, err := c.nextRevision(ctx); err != nil {
				return err
			}
			required := d.encryption.Required
			d.encryption.Required = false
			sites, err := d.readSites(ctx, c, "")
			d.encryption.Required = required
			if err != nil {
				return err
			}
			for _, s := range sites {
				for _, k := range s.Keys {
					if k.Secret.IsZero() {
						continue
					}
					if err := c.exec(ctx, `UPDATE {keys} SET secret = ? WHERE site_id = ? AND key_id = ?`, d.sealSecret(s.ID, k), s.ID[:], int64(k.ID)); err != nil {
						return err
					}
					n++
				}
			}
			return nil
		})
	})
	return n, err
}
