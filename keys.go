package carillon

import (
	"errors"
	"fmt"
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
}

// newKeyring picks the sites that are accepted from all that are registered.
func newKeyring(cfg *Config, self site.ID, all []site.Site) (*keyring, error) {
	k := &keyring{}
	for _, s := range all {
		if s.ID != self && cfg.AcceptSites != nil && !slices.Contains(cfg.AcceptSites, s.Name) {
			continue
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
	i := slices.IndexFunc(k.self.Keys, func(key site.Key) bool { return key.State == site.KeyActive })
	if i < 0 {
		return nil, fmt.Errorf("the site %q has no active key", cfg.Site)
	}
	k.active = k.self.Keys[i]
	return k, nil
}

// accepts reports whether frames of the site are accepted.
func (k *keyring) accepts(s site.ID) bool { return slices.Contains(k.ids, s) }

// useSites takes the sites as the database has them now.
func (b *Broker) useSites(all []site.Site) error {
	k, err := newKeyring(&b.cfg, b.siteID, all)
	if err != nil {
		return err
	}
	was := b.keyring.Load()
	b.opener.SetKeys(k.accepted)
	b.keyring.Store(k)
	if b.machine == nil || was.active.ID == k.active.ID {
		return nil
	}
	return b.useKey(k.active)
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

// proofLabels keep the proofs of the two ends of a connection apart.
var proofLabels = map[provider.Side]string{provider.Initiator: "initiator", provider.Acceptor: "acceptor"}

// providerKeys is what providers see of the keyring.
type providerKeys struct{ b *Broker }

var _ provider.Keys = providerKeys{}

// Signing implements [provider.Keys].
func (p providerKeys) Signing() (site.ID, site.KeyID) {
	k := p.b.keyring.Load()
	return k.self.ID, k.active.ID
}

// Prove implements [provider.Keys].
func (p providerKeys) Prove(s site.ID, k site.KeyID, side provider.Side, transcript []byte) ([32]byte, error) {
	proof, err := p.b.opener.Prove(s, k, proofLabels[side], transcript)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: %w", provider.ErrKey, err)
	}
	return proof, nil
}

// Verify implements [provider.Keys].
func (p providerKeys) Verify(s site.ID, k site.KeyID, side provider.Side, transcript []byte, proof [32]byte) error {
	switch err := p.b.opener.Verify(s, k, proofLabels[side], transcript, proof); {
	case err == nil:
		return nil
	case errors.Is(err, seal.ErrProof):
		return fmt.Errorf("%w: %w", provider.ErrProof, err)
	default:
		return fmt.Errorf("%w: %w", provider.ErrKey, err)
	}
}
