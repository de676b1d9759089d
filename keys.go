package carillon

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// A keyring is what this instance knows of sites and keys. It is read-only.
type keyring struct {
	self     site.Site
	active   site.Key    // of self
	accepted []site.Site // self included, ascending by name
	ids      []site.ID   // of accepted

	// read is the highest generation that was read. The instance verifies as it says unless
	// trouble does.
	read uint64

	// trouble says in words why keys that are known here are kept against what the
	// database says, or why a key cannot be used; it is empty if neither is so.
	trouble []string

	// stolen are the sites of which a key that was trusted here was declared
	// compromised, with the generation that did so, until what was trusted has been
	// given up.
	stolen map[site.ID]uint64

	// expires is when the next retiring key of those accepted ends, by the database's clock; zero: none is known to.
	expires time.Time
}

// newKeyring picks the sites that are accepted from all that are registered. Of a
// site about which the database contradicts what was, that is what stays.
func newKeyring(cfg *Config, self site.ID, all []site.Site, was *keyring) (*keyring, error) {
	k := &keyring{stolen: maps.Clone(was.stolen)}
	for _, s := range all {
		k.read = max(k.read, s.Generation)
		if s.ID != self && cfg.AcceptSites != nil && !slices.Contains(cfg.AcceptSites, s.Name) {
			continue
		}
		if i := slices.Index(was.ids, s.ID); i >= 0 {
			old := was.accepted[i]
			if why := contradiction(old, s); why != "" {
				k.trouble = append(k.trouble, fmt.Sprintf("the database contradicts itself about the keys of site %q: %s; the ones known before stay in use here. "+
					"If it was restored from a backup, say so to it: carillon site accept-restore", s.Name, why))
				s = old
			}
			k.noteStolen(old, s)
		}
		for _, key := range s.Keys {
			if !key.State.Verifies() || s.Floors.Allow(key) != nil {
				continue
			}
			if err := seal.Usable(s.ID, key); err != nil {
				k.trouble = append(k.trouble, fmt.Sprintf("site %q: %v; rotations wait for this instance", s.Name, err))
			}
		}
		k.accepted = append(k.accepted, s)
		k.ids = append(k.ids, s.ID)
		if s.ID == self {
			k.self = s
		}
	}
	if k.self.ID != self {
		return nil, fmt.Errorf("the site %q (%v) is no longer in the database", cfg.Site, self)
	}
	if k.active = k.self.Active(); k.active.ID == 0 {
		return nil, fmt.Errorf("the site %q has no active key", cfg.Site)
	}
	return k, nil
}

// contradiction returns why now cannot be what has become of was, though several
// changes may lie between them: what a restored backup, or a second database, looks like. It is
// empty if there is no reason.
func contradiction(was, now site.Site) string {
	if now.Generation < was.Generation {
		return fmt.Sprintf("its generation went back from %d to %d", was.Generation, now.Generation)
	}
	for _, k := range now.Keys {
		old := was.Key(k.ID)
		switch {
		case old.ID == 0:
			if now.Generation == was.Generation {
				return fmt.Sprintf("generation %d has a key %d that it did not have", now.Generation, k.ID)
			}
		case now.Generation == was.Generation && k.State != old.State:
			return fmt.Sprintf("in generation %d key %d is %v and was %v", now.Generation, k.ID, k.State, old.State)
		case old.State.Ended() && !k.State.Ended():
			return fmt.Sprintf("key %d was %v and is %v", k.ID, old.State, k.State)
		case k.Suite != old.Suite || k.Version != old.Version || !k.State.Ended() && !k.Secret.Equal(old.Secret):
			return fmt.Sprintf("key %d is another than the one it was", k.ID)
		}
	}
	return ""
}

// noteStolen notes that a key which old could have trusted has been compromised.
func (k *keyring) noteStolen(old, now site.Site) {
	for _, key := range now.Keys {
		if was := old.Key(key.ID); key.State != site.KeyCompromised || was.ID == 0 || was.State == site.KeyCompromised {
			continue
		}
		if k.stolen == nil {
			k.stolen = map[site.ID]uint64{}
		}
		since := key.Changed
		if since == 0 {
			since = now.Generation
		}
		k.stolen[now.ID] = max(k.stolen[now.ID], since)
	}
}

// accepts reports whether frames of the site are accepted.
func (k *keyring) accepts(s site.ID) bool { return slices.Contains(k.ids, s) }

// verifying returns the accepted sites as they are at a time of the database:
// retiring keys whose end has come are revoked. It sets expires.
func (k *keyring) verifying(now time.Time) []site.Site {
	k.expires = time.Time{}
	sites := make([]site.Site, len(k.accepted))
	for i, s := range k.accepted {
		var ends time.Time
		if sites[i], ends = s.At(now); k.expires.IsZero() || !ends.IsZero() && ends.Before(k.expires) {
			k.expires = ends
		}
	}
	return sites
}

// useSites takes the sites as the database has them at now, a time of its own. It is
// never called concurrently.
func (b *Broker) useSites(all []site.Site, now time.Time) error {
	was := b.keyring.Load()
	k, err := newKeyring(&b.cfg, b.siteID, all, was)
	if err != nil {
		if was.self.ID != (site.ID{}) { // what was known stays
			kept := *was
			kept.trouble = []string{err.Error()}
			b.keyring.Store(&kept)
		}
		return err
	}
	b.opener.SetKeys(k.verifying(now))
	b.keyring.Store(k)
	if !slices.Equal(k.trouble, was.trouble) {
		for _, text := range k.trouble {
			b.log.Error("keys: " + text)
		}
	}
	if b.machine == nil || was.active.ID == k.active.ID || k.stolen[b.siteID] > 0 || b.rowGone() {
		return nil // in the last two cases the present stream ends, and the next one begins with the key
	}
	return b.useKey(k.active)
}

// endKeys refuses retiring keys whose end has come at now, a time of the database.
func (b *Broker) endKeys(now time.Time) {
	k := b.keyring.Load()
	if k.expires.IsZero() || k.expires.After(now) {
		return
	}
	next := *k
	b.opener.SetKeys(next.verifying(now))
	b.keyring.Store(&next)
}

// useKey has frames that are closed from now on sealed with another key.
func (b *Broker) useKey(key site.Key) error {
	s, err := seal.NewSealer(key, b.siteID, b.self.Load().Stream)
	if err != nil {
		return err
	}
	b.addSealer(&sealer{Sealer: s, stream: b.self.Load().Stream, key: key.ID})
	b.mu.Lock()
	b.machine.SetKey(time.Now(), key.ID, s.Trailer())
	b.mu.Unlock()
	return nil
}

// claims returns what this instance may say of itself in its row: the generation of
// which it verifies, and the one as which it signs. 0 says nothing, and leaves what the row has.
func (b *Broker) claims() (verifies, signs uint64) {
	k := b.keyring.Load()
	if len(k.trouble) > 0 {
		return 0, 0
	}
	if list := b.sealers.Load(); list == nil || (*list)[0].key == k.active.ID && k.stolen[b.siteID] == 0 {
		signs = k.read
	}
	return k.read, signs
}

// unsaid reports whether the row lacks what this instance could say in it, so that
// somebody who rotates a key may be waiting for it.
func (b *Broker) unsaid() bool {
	verifies, signs := b.claims()
	b.mu.Lock()
	defer b.mu.Unlock()
	row := b.rows.members[b.self.Load().Stream]
	return row != nil && (row.Verifies < verifies || row.Signs < signs || row.Carries < b.carried.Load())
}

// distrustLocked gives up what was trusted under keys that somebody else has had: the streams
// of their sites, except those that began after that was known, and,
// if it is the own site, the own stream: who reads of it later would take that for
// one of the forger. The new stream is taken by rejoin. b.mu is held; the rows are those that came with
// the keys, and the machine has not heard of them yet, so that it does not end
// in peace what cannot be trusted.
//
// Call what it returns when the machine has heard of them: some may be of streams
// that it did not know, and that are no better.
func (b *Broker) distrustLocked(now time.Time) (again func()) {
	k := b.keyring.Load()
	if len(k.stolen) == 0 {
		return func() {}
	}
	again = func() {
		b.machine.Distrust(now, func(s site.StreamID) bool {
			row := b.rows.members[s]
			return row != nil && row.Signs >= k.stolen[row.Site]
		}, &b.fx)
	}
	again()
	if k.stolen[b.siteID] > 0 {
		b.gone = true
	}
	b.sayLocked(slog.LevelError, "a key was declared compromised: gave up what was trusted under it", "sites", len(k.stolen))
	next := *k
	next.stolen = nil
	b.keyring.Store(&next)
	return again
}

// keyStatus adds to s what is known of the keys.
func (b *Broker) keyStatus(s *Status) {
	k := b.keyring.Load()
	s.Generation, s.Key, s.Floors = k.self.Generation, k.active.ID, k.self.Floors
	if list := b.sealers.Load(); list != nil {
		s.Key = (*list)[0].key
	}
	s.Problems = append(s.Problems, k.trouble...)
}

// sides keep the proofs of the two ends of a connection apart.
var sides = map[provider.Side]string{provider.Initiator: "initiator", provider.Acceptor: "acceptor"}

// label says what is proven and by which end.
func label(handshake string, side provider.Side) string { return handshake + " " + sides[side] }

// providerKeys is what providers see of the keyring.
type providerKeys struct{ b *Broker }

var _ provider.Keys = providerKeys{}

// Signing implements [provider.Keys].
func (p providerKeys) Signing() (site.ID, site.KeyID) {
	k := p.b.keyring.Load()
	return k.self.ID, k.active.ID
}

// Prove implements [provider.Keys].
func (p providerKeys) Prove(s site.ID, k site.KeyID, handshake string, side provider.Side, transcript []byte) ([32]byte, error) {
	proof, err := p.b.opener.Prove(s, k, label(handshake, side), transcript)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: %w", provider.ErrKey, err)
	}
	return proof, nil
}

// Verify implements [provider.Keys].
func (p providerKeys) Verify(s site.ID, k site.KeyID, handshake string, side provider.Side, transcript []byte, proof [32]byte) error {
	switch err := p.b.opener.Verify(s, k, label(handshake, side), transcript, proof); {
	case err == nil:
		return nil
	case errors.Is(err, seal.ErrProof):
		return fmt.Errorf("%w: %w", provider.ErrProof, err)
	default:
		return fmt.Errorf("%w: %w", provider.ErrKey, err)
	}
}
