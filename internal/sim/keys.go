package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/carillon-go/carillon/site"
)

// A keyset is what an instance knows of sites and keys.
type keyset struct {
	self     site.Site
	active   site.Key // of self
	accepted []site.Site
	ids      []site.ID
	read     uint64             // highest generation that was read
	odd      bool               // the database contradicts what was known, which stays
	stolen   map[site.ID]uint64 // generation that declared a key compromised which was trusted here
	expires  time.Time          // when the next retiring key ends; zero: none is known to
}

// useSites takes the sites as the database has them at now, a time of its own.
func (in *instance) useSites(all []site.Site, now time.Time) bool {
	was := in.keys
	k := keyset{stolen: maps.Clone(was.stolen)}
	for _, s := range all {
		k.read = max(k.read, s.Generation)
		if i := slices.Index(was.ids, s.ID); i >= 0 {
			if s.Generation < was.accepted[i].Generation {
				k.odd, s = true, was.accepted[i]
			}
			k.noteStolen(was.accepted[i], s)
		}
		k.accepted = append(k.accepted, s)
		k.ids = append(k.ids, s.ID)
		if s.Name == in.process.site {
			k.self = s
		}
	}
	k.active = k.self.Active()
	if k.active.ID == 0 {
		return false
	}
	in.opener.SetKeys(k.verifying(now))
	in.keys = k
	if in.machine == nil || was.active.ID == k.active.ID || k.stolen[k.self.ID] > 0 || in.gone {
		return true // in the last two cases the present stream ends, and the next one begins with the key
	}
	s, err := in.addSealer(in.self)
	if err != nil {
		in.w.fail("%s cannot seal with key %d: %v", in.name, k.active.ID, err)
		return false
	}
	in.machine.SetKey(in.w.clock(), k.active.ID, s.Trailer())
	return true
}

// noteStolen notes that a key which old could have trusted has been compromised.
func (k *keyset) noteStolen(old, now site.Site) {
	for _, key := range now.Keys {
		if was := old.Key(key.ID); key.State != site.KeyCompromised || was.ID == 0 || was.State == site.KeyCompromised {
			continue
		}
		if k.stolen == nil {
			k.stolen = map[site.ID]uint64{}
		}
		k.stolen[now.ID] = max(k.stolen[now.ID], key.Changed)
	}
}

// verifying returns the accepted sites as they are at a time of the database:
// retiring keys whose end has come are revoked. It sets expires.
func (k *keyset) verifying(now time.Time) []site.Site {
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

// endKeys refuses retiring keys whose end has come.
func (in *instance) endKeys(now time.Time) {
	if k := &in.keys; !k.expires.IsZero() && !k.expires.After(now) {
		in.opener.SetKeys(k.verifying(now))
	}
}

// claims returns what in may say of itself in its row.
func (in *instance) claims() (verifies, signs uint64) {
	k := &in.keys
	if k.odd {
		return 0, 0
	}
	if len(in.sealers) == 0 || in.sealers[0].key == k.active.ID && k.stolen[k.self.ID] == 0 {
		signs = k.read
	}
	return k.read, signs
}

// unsaid reports whether the row lacks what in could say in it, so that somebody
// who rotates a key may be waiting for it.
func (in *instance) unsaid() bool {
	verifies, signs := in.claims()
	row, ok := in.rows[in.self]
	return ok && (row.Verifies < verifies || row.Signs < signs)
}

// distrust gives up what was trusted under keys that somebody else has had, and
// the own stream too if they were the own site's.
func (in *instance) distrust() (again func()) {
	k := &in.keys
	if len(k.stolen) == 0 {
		return func() {}
	}
	stolen := k.stolen
	again = func() {
		in.machine.Distrust(in.w.clock(), func(s site.StreamID) bool {
			row, ok := in.rows[s]
			return ok && row.Signs >= stolen[row.Site]
		}, &in.fx)
	}
	again()
	if k.stolen[k.self.ID] > 0 {
		in.gone = true
	}
	k.stolen = nil
	return again
}

func (k *keyset) accepts(s site.ID) bool { return slices.Contains(k.ids, s) }
