package site

import "crypto/rand"

// The wire version that keys have.
const firstWireVersion = 1

// NewSite makes a site that no database knows yet: a random ID and one active
// key with a random secret, suite [DefaultSuite], generation 1 and the
// lowest floors. It is what [Database.EnsureSite] stores when the name is new, with
// a generation of its own.
func NewSite(name string) Site {
	key := NewKey(1, DefaultSuite())
	key.State = KeyActive
	return Site{
		ID:         NewID(),
		Name:       name,
		Generation: 1,
		Floors:     Floors{Version: firstWireVersion},
		Keys:       []Key{key},
	}
}

// NewID returns a random ID.
func NewID() ID {
	var id ID
	rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40 // version and variant of a random UUID, so that tools accept it as one
	id[8] = id[8]&0x3f | 0x80
	return id
}

// NewKey makes a pending key with a random secret.
func NewKey(id KeyID, suite Suite) Key {
	var secret [SecretLen]byte
	rand.Read(secret[:])
	return Key{
		ID: id, State: KeyPending, Suite: suite, Version: firstWireVersion,
		Secret: Secret{func() [SecretLen]byte { return secret }},
	}
}
