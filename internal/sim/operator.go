package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/keyring"
)

// operatorLooks is how often somebody who rotates a key looks at the rows.
const operatorLooks = 200 * time.Millisecond

// suites are those of sites and rotations, by the words of a plan.
var suites = map[string]site.Suite{"ghash": site.SuiteGHASHHMAC, "hmac": site.SuiteHMACSHA256, "aes": site.SuiteAES256GCM}

// newKey makes a key whose secret depends on the seed alone.
func (w *world) newKey(random *rand.Rand, id site.KeyID, suite site.Suite) site.Key {
	var b [site.SecretLen]byte
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	secret, err := site.NewSecret(b[:])
	if err != nil {
		w.fail("%v", err)
	}
	return site.Key{ID: id, State: site.KeyPending, Suite: suite, Version: 1, Secret: secret}
}

func (w *world) newSite(name string, suite site.Suite) site.Site {
	random := w.random("site " + name)
	s := site.Site{Name: name, Floors: site.Floors{Version: 1}, Keys: []site.Key{w.newKey(random, 1, suite)}}
	s.Keys[0].State = site.KeyActive
	for i := range s.ID {
		s.ID[i] = byte(random.Uint32())
	}
	return s
}

// databaseOf returns the first database that has the site.
func (w *world) databaseOf(name string) *database {
	for _, d := range w.databases {
		for _, s := range d.store.sites {
			if s.Name == name {
				return d
			}
		}
	}
	return nil
}

// doRotate carries a rotation to its end, step by step, by what the rows say.
// With again it begins another one so long after that, and with every so long
// after it began, whether the old key has ended by then or not.
func doRotate(a *arguments) {
	w, name := a.w, a.word(0)
	d := w.databaseOf(name)
	if d == nil {
		a.fail("there is no site %q", name)
		return
	}
	r := keyring.Rotation{
		Overlap: a.duration("overlap", 15*time.Second), Without: map[site.StreamID]bool{},
		NewKey: func(id site.KeyID, suite site.Suite) site.Key {
			return w.newKey(w.random(fmt.Sprintf("key %d of %s", id, name)), id, suite)
		},
	}
	r.Suite = suites[a.text("suite", "")] // zero: that of the active key
	again, every, began := a.duration("again", 0), a.duration("every", 0), w.now
	var look func()
	look = func() {
		wait := operatorLooks
		if d.away == here {
			switch action := w.rotateStep(d, name, &r); {
			case every > 0 && (action == keyring.AwaitEnd || action == keyring.Done):
				if w.now-began >= every {
					r.To++
					began = w.now
				}
			case action != keyring.Done:
			case again == 0:
				return
			default:
				r.To, wait = 0, again
			}
		}
		w.after(wait, look)
	}
	look()
}

// rotateStep does what comes next, if anything can be done, and returns what that
// was.
func (w *world) rotateStep(d *database, name string, r *keyring.Rotation) keyring.Action {
	now := w.clock()
	snap, err := d.store.changes(0, now)
	if err != nil {
		w.fail("%v", err)
		return keyring.Done
	}
	view, err := keyring.NewView(snap, name)
	if err != nil {
		w.fail("%v", err)
		return keyring.Done
	}
	step, err := keyring.Next(view, *r)
	if err != nil {
		return keyring.Done // the database is another one, or the key was compromised
	}
	r.To = step.Key
	if step.Stores() {
		w.record(history.Record{Kind: history.Fault, Note: "rotation: " + step.Action.String()})
		w.record(history.Record{Kind: history.Mended, Note: "rotation: " + step.Action.String()})
		if _, err := d.store.changeSite(step.Change); err != nil {
			w.fail("%v", err)
		}
	}
	return step.Action
}

// doRevoke declares every key of a site compromised.
func doRevoke(a *arguments) {
	w, name := a.w, a.word(0)
	d := w.databaseOf(name)
	if d == nil {
		a.fail("there is no site %q", name)
		return
	}
	for _, s := range d.store.sites {
		if s.Name != name {
			continue
		}
		next, _, err := keyring.Compromise(s, nil)
		if err != nil {
			a.fail("%v", err)
			return
		}
		last := &next.Keys[len(next.Keys)-1]
		*last = w.newKey(w.random("revocation"), last.ID, last.Suite)
		last.State = site.KeyActive
		w.fault("keys of %s are compromised", name)
		if _, err := d.store.changeSite(next); err != nil {
			a.fail("%v", err)
		}
	}
}
