package site

import (
	"errors"
	"fmt"
	"slices"
)

// steps says into which states a key in each state may go, beside the one it
// has. A key that ended never comes back; one that was revoked may still turn
// out to have been stolen.
var steps = map[KeyState][]KeyState{
	KeyPending:     {KeyActive, KeyRevoked, KeyCompromised},
	KeyActive:      {KeyRetiring, KeyCompromised},
	KeyRetiring:    {KeyRevoked, KeyCompromised},
	KeyRevoked:     {KeyCompromised},
	KeyCompromised: nil,
}

// CheckChange returns an error unless a site that is stored as old may become
// next, whoever wants it and whatever the instances have read: the site and its keys stay
// the ones they are, no key goes back or away, every new key has an ID above all
// others, exactly one key is active, at most one pending, and the active one is not below the
// floors; and what is sent on is received, also by who has not read of the change yet. It does not look at generations.
func CheckChange(old, next Site) error {
	if next.ID != old.ID || next.Name != old.Name {
		return fmt.Errorf("site: a change to site %q (%v) cannot make it %q (%v)", old.Name, old.ID, next.Name, next.ID)
	}
	if len(next.Keys) > MaxKeys {
		return fmt.Errorf("site: the site %q would have %d keys, more than %d", next.Name, len(next.Keys), MaxKeys)
	}
	if !slices.IsSortedFunc(next.Keys, func(a, b Key) int { return int(int64(a.ID) - int64(b.ID)) }) {
		return errors.New("site: the keys are not in the order of their IDs")
	}
	if next.Floors.Version == 0 {
		return errors.New("site: the lowest wire version is 0; the first one is 1")
	}
	if err := checkTransports(old.Transports, next.Transports); err != nil {
		return err
	}
	last := KeyID(0)
	for i, was := range old.Keys {
		if i >= len(next.Keys) || next.Keys[i].ID != was.ID {
			return fmt.Errorf("site: key %d (%v) is missing: keys are revoked, never removed", was.ID, was.State)
		}
		if err := checkStep(was, next.Keys[i]); err != nil {
			return err
		}
		last = was.ID
	}
	for i, k := range next.Keys[len(old.Keys):] {
		if k.ID <= last {
			return fmt.Errorf("site: a new key has the ID %d, which is not above %d: IDs are never used again", k.ID, last)
		}
		last = k.ID
		if err := checkNew(k, next.Keys[:len(old.Keys)+i]); err != nil {
			return err
		}
	}
	return checkKeys(next)
}

// checkStep returns an error unless the key was may become k.
func checkStep(was, k Key) error {
	if k.State != was.State && !slices.Contains(steps[was.State], k.State) {
		return fmt.Errorf("site: key %d cannot go from %v to %v", k.ID, was.State, k.State)
	}
	forgotten := k.State.Ended() && (k.Secret.IsZero() || was.Secret.IsZero())
	if k.Suite != was.Suite || k.Version != was.Version || !forgotten && !k.Secret.Equal(was.Secret) {
		return fmt.Errorf("site: key %d changed its suite, version or secret: make a new key instead", k.ID)
	}
	switch {
	case k.State.Ended():
	case k.State != KeyRetiring && !k.Until.IsZero():
		return fmt.Errorf("site: key %d is %v and has an end: only retiring keys have", k.ID, k.State)
	case k.Until.Before(was.Until):
		return fmt.Errorf("site: key %d would end at %v, earlier than the %v that was said", k.ID, k.Until, was.Until)
	}
	return nil
}

// checkNew returns an error unless k may stand beside others, which were there before.
func checkNew(k Key, others []Key) error {
	switch {
	case k.State != KeyPending && k.State != KeyActive:
		return fmt.Errorf("site: the new key %d is %v; a new key is pending or active", k.ID, k.State)
	case !k.Suite.known():
		return fmt.Errorf("site: the new key %d is of suite %d, which this program does not know: upgrade it", k.ID, k.Suite)
	case k.Version == 0:
		return fmt.Errorf("site: the new key %d has no wire version", k.ID)
	case k.Secret.IsZero():
		return fmt.Errorf("site: the new key %d has no secret", k.ID)
	case !k.Until.IsZero():
		return fmt.Errorf("site: the new key %d has an end: only retiring keys have", k.ID)
	}
	for _, o := range others {
		if k.Secret.Equal(o.Secret) {
			return fmt.Errorf("site: the new key %d has the secret of key %d; make it with NewKey", k.ID, o.ID)
		}
	}
	return nil
}

// checkKeys returns an error unless the keys of s suit each other and the floors.
func checkKeys(s Site) error {
	count := map[KeyState]int{}
	for _, k := range s.Keys {
		count[k.State]++
	}
	if n := count[KeyActive]; n != 1 {
		return fmt.Errorf("site: the site %q would have %d active keys, not one", s.Name, n)
	}
	if n := count[KeyPending]; n > 1 {
		return fmt.Errorf("site: the site %q would have %d pending keys: one rotation at a time", s.Name, n)
	}
	return s.Floors.Allow(s.Active())
}
