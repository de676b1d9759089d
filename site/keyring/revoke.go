package keyring

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/carillon-go/carillon/site"
)

// Compromise returns s with the keys named marked as compromised, or with all that still verify
// when none is named, and with a new active key if the active one is among
// them, of the same suite. The new key is above floors if the old one was. If nothing
// changes, changed is false.
func Compromise(s site.Site, ids []site.KeyID) (next site.Site, changed bool, err error) {
	for _, id := range ids {
		if s.Key(id).ID == 0 {
			return s, false, fmt.Errorf("keyring: site %q has no key %d", s.Name, id)
		}
	}
	active := s.Active()
	next = edit(s, func(k *site.Key) {
		if len(ids) == 0 && k.State.Verifies() || slices.Contains(ids, k.ID) && k.State != site.KeyCompromised {
			k.State, changed = site.KeyCompromised, true
		}
	})
	if next.Active().ID == 0 {
		key := site.NewKey(s.NextKeyID(), active.Suite)
		key.State = site.KeyActive
		next.Keys = append(next.Keys, key)
	}
	return next, changed, nil
}

// RevokeNow is for an emergency: the keys named, or all that still verify when none
// is, are refused by every instance as soon as it reads of it, and each instance takes a new stream under
// a new key and discards what it was told before. Events on their way are missed.
// It returns the site as it is then.
func RevokeNow(ctx context.Context, db site.Database, name string, ids []site.KeyID) (site.Site, error) {
	return change(ctx, db, name, func(s site.Site) (site.Site, bool, error) { return Compromise(s, ids) })
}

// change stores what edit makes of the site, again when somebody else was quicker.
func change(ctx context.Context, db site.Database, name string, edit func(site.Site) (site.Site, bool, error)) (site.Site, error) {
	for {
		sites, err := db.Sites(ctx)
		if err != nil {
			return site.Site{}, fmt.Errorf("keyring: read site %q: %w", name, err)
		}
		i := slices.IndexFunc(sites, func(s site.Site) bool { return s.Name == name })
		if i < 0 {
			return site.Site{}, fmt.Errorf("keyring: there is no site %q in the database", name)
		}
		next, changed, err := edit(sites[i])
		if err != nil || !changed {
			return sites[i], err
		}
		s, err := db.ChangeSite(ctx, next)
		if !errors.Is(err, site.ErrConflict) {
			return s, err
		}
	}
}
