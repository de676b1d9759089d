package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/carillon-go/carillon/site"
)

var (
	// ErrWeaker reports that floors would protect less than those before, and
	// that nobody said that this is meant.
	ErrWeaker = errors.New("keyring: the floors would be weaker")

	// ErrBelow reports a key that still verifies and is below the new floors: what is sealed
	// with it would be refused.
	ErrBelow = errors.New("keyring: a key in use is below the floors")
)

// Weaker reports whether floors protect less than was in any respect.
func Weaker(was, floors site.Floors) bool {
	return was.MACRequired && !floors.MACRequired || was.EncryptionRequired && !floors.EncryptionRequired || floors.Version < was.Version
}

// ChangeFloors returns s with the floors. Floors that are weaker in any respect
// take the explicit word weaken. Floors above the active key are an error always, since then
// nobody could speak; above a pending or retiring one, unless force is said.
func ChangeFloors(s site.Site, floors site.Floors, weaken, force bool) (next site.Site, changed bool, err error) {
	if floors.Version == 0 {
		floors.Version = s.Floors.Version
	}
	if Weaker(s.Floors, floors) && !weaken {
		return s, false, fmt.Errorf("%w: site %q has %s, not %s; say explicitly that they are to be weakened", ErrWeaker, s.Name, Describe(s.Floors), Describe(floors))
	}
	for _, k := range s.Keys {
		if !k.State.Verifies() || force && k.State != site.KeyActive {
			continue
		}
		if err := floors.Allow(k); err != nil {
			if k.State == site.KeyActive {
				return s, false, fmt.Errorf("%w: %w; rotate to a key above them first", ErrBelow, err)
			}
			return s, false, fmt.Errorf("%w: %w, and it is %v; wait until the rotation is over", ErrBelow, err, k.State)
		}
	}
	next = s
	next.Floors = floors
	return next, floors != s.Floors, nil
}

// Describe says in words what floors ask for.
func Describe(f site.Floors) string {
	text := fmt.Sprintf("wire version %d or later", f.Version)
	if f.MACRequired {
		text += ", tags always checked"
	}
	if f.EncryptionRequired {
		text += ", encryption required"
	}
	return text
}

// SetFloors stores the floors of the site of this name, see [ChangeFloors]. It returns
// the site as it is then.
func SetFloors(ctx context.Context, db site.Database, name string, floors site.Floors, weaken, force bool) (site.Site, error) {
	return change(ctx, db, name, func(s site.Site) (site.Site, bool, error) { return ChangeFloors(s, floors, weaken, force) })
}
