package sim

import (
	"slices"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/site"
)

// A keyset is what an instance knows of sites and keys.
type keyset struct {
	self       site.Site
	active     site.Key // of self
	accepted   []site.Site
	ids        []site.ID
	generation uint64 // highest of all sites read
	signs      uint64 // the same, as far as it signs accordingly
	stolen     map[keyOf]bool
}

type keyOf struct {
	site site.ID
	key  site.KeyID
}

// useSites takes the sites as the database has them now.
func (in *instance) useSites(all []site.Site) bool {
	was := in.keys
	k := keyset{generation: was.generation, signs: was.signs, stolen: was.stolen}
	for _, s := range all {
		k.generation = max(k.generation, s.Generation)
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
	in.keys = k
	in.opener.SetKeys(k.accepted)
	if in.machine != nil && was.active.ID != k.active.ID {
		s, err := in.addSealer(in.self)
		if err != nil {
			in.w.fail("%s cannot seal with key %d: %v", in.name, k.active.ID, err)
			return false
		}
		in.machine.SetKey(in.w.clock(), k.active.ID, s.Trailer())
	}
	in.keys.signs = k.generation
	in.distrust(was)
	return true
}

// distrust discards what was heard under keys that turned out to be compromised,
// and takes a new stream.
func (in *instance) distrust(was keyset) {
	hit := map[site.ID]bool{}
	for _, s := range in.keys.accepted {
		for _, k := range s.Keys {
			name := keyOf{s.ID, k.ID}
			if k.State != site.KeyCompromised || in.keys.stolen[name] {
				continue
			}
			stolen := map[keyOf]bool{name: true}
			for n := range in.keys.stolen {
				stolen[n] = true
			}
			in.keys.stolen = stolen
			if i := slices.IndexFunc(was.accepted, func(o site.Site) bool { return o.ID == s.ID }); i >= 0 && was.accepted[i].Key(k.ID).State.Verifies() {
				hit[s.ID] = true
			}
		}
	}
	if len(hit) == 0 || in.machine == nil {
		return
	}
	in.machine.Distrust(in.w.clock(), func(s site.StreamID) bool { return !in.wasOf(s, hit) }, &in.fx)
	if hit[in.keys.self.ID] {
		in.gone = true
	}
	in.effects()
}

// wasOf reports whether a stream belongs to one of the sites.
func (in *instance) wasOf(s site.StreamID, sites map[site.ID]bool) bool {
	return slices.ContainsFunc(in.machine.Peers(), func(p engine.PeerState) bool { return p.Stream == s && sites[p.Site] })
}

func (k *keyset) accepts(s site.ID) bool { return slices.Contains(k.ids, s) }
