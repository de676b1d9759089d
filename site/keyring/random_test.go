package keyring_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/keyring"
	"github.com/carillon-go/carillon/site/memsite"
)

// An actor is an instance as a rotation sees it: it reads late, says late what it has
// read, is stopped for a while, is killed.
type actor struct {
	stream site.StreamID
	site   site.ID
	known  map[site.ID]site.Site
	reads  uint64 // generation read
	signs  site.KeyID
	signed uint64 // generation at which it took the key
	joined bool   // has read the keys after its row was committed
	dead   bool
	stuck  time.Time // until when it is stopped
}

func (a *actor) read(sites []site.Site) {
	for _, s := range sites {
		a.known[s.ID] = s
		a.reads = max(a.reads, s.Generation)
	}
}

// A flight is a frame on its way.
type flight struct {
	site site.ID
	key  site.KeyID
	at   time.Time
}

const (
	overlap    = 20 * time.Second
	longestWay = 10 * time.Second // of a frame
	longLease  = 5 * time.Second
)

// TestNext_NeverMeetsAKeyThatItCannotVerify runs several drivers that hold stale
// views against instances that do everything late, and looks at every frame on
// its way: whoever runs can verify it.
func TestNext_NeverMeetsAKeyThatItCannotVerify(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 20
	}
	rotations := 0
	for seed := range seeds {
		n, err := rotateAtRandom(t, rand.New(rand.NewPCG(seed, 1)))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		rotations += n
	}
	if rotations < int(seeds) {
		t.Errorf("%d rotations in %d runs: the test waits for ever", rotations, seeds)
	}
}

func rotateAtRandom(t *testing.T, rng *rand.Rand) (rotations int, err error) {
	now := time.Unix(1_700_000_000, 0)
	db := memsite.New(func() time.Time { return now })
	var own [2]site.Site
	for i := range own {
		if own[i], err = db.EnsureSite(t.Context(), fmt.Sprint("site", i)); err != nil {
			return 0, err
		}
	}
	var (
		actors  []*actor
		flights []flight
		epoch   uint64
		views   [3]keyring.View // of the drivers, stale
		to      [3]site.KeyID
	)
	join := func() error {
		epoch++
		a := &actor{stream: site.NewStreamID(epoch, 1), site: own[rng.IntN(2)].ID, known: map[site.ID]site.Site{}}
		sites, err := db.Sites(t.Context())
		if err != nil {
			return err
		}
		a.read(sites)
		a.signs, a.signed = a.known[a.site].Active().ID, a.reads
		actors = append(actors, a)
		return db.Join(t.Context(), site.Member{
			Site: a.site, Stream: a.stream, Role: site.RolePublish, Verifies: a.reads, Signs: a.signed,
		}, longLease)
	}
	for range 4 {
		if err := join(); err != nil {
			return 0, err
		}
	}
	for range 2000 {
		now = now.Add(time.Duration(rng.IntN(200)) * time.Millisecond)
		a := actors[rng.IntN(len(actors))]
		free := !a.dead && !now.Before(a.stuck)
		switch action := rng.IntN(100); {
		case action < 20 && free: // read; whoever has just joined does so before it speaks
			sites, err := db.Sites(t.Context())
			if err != nil {
				return 0, err
			}
			a.read(sites)
			if !a.joined {
				a.joined, a.signs, a.signed = true, a.known[a.site].Active().ID, a.reads
			}
		case action < 30 && free && a.joined: // switch
			a.signs, a.signed = a.known[a.site].Active().ID, a.reads
		case action < 45 && free: // say so
			err := db.Renew(t.Context(), a.stream, site.Renewal{Verifies: a.reads, Signs: a.signed, Lease: longLease})
			if err != nil {
				a.dead = true // reaped: it would take another stream
			}
		case action < 65 && free && a.joined: // speak
			flights = append(flights, flight{a.site, a.signs, now})
		case action == 65: // be stopped; an instance that outlasts its reaping takes new keys first
			a.stuck = now.Add(time.Duration(rng.IntN(8)) * time.Second)
		case action == 66 && len(actors) > 3 && rng.IntN(4) == 0: // be killed
			a.dead = true
		case action == 67 && len(actors) < 9:
			if err := join(); err != nil {
				return 0, err
			}
		case action == 68:
			streams, err := db.Reap(t.Context(), 5*time.Second)
			if err != nil {
				return 0, err
			}
			for _, s := range streams {
				for _, a := range actors {
					a.dead = a.dead || a.stream == s
				}
			}
		case action < 80: // a driver looks
			snap, err := db.Changes(t.Context(), 0)
			if err != nil {
				return 0, err
			}
			i := rng.IntN(len(views))
			if views[i], err = keyring.NewView(snap, fmt.Sprint("site", i%2)); err != nil {
				return 0, err
			}
		default: // a driver acts on what it saw
			i := rng.IntN(len(views))
			if views[i].Site.ID == (site.ID{}) {
				continue
			}
			step, err := keyring.Next(views[i], keyring.Rotation{Overlap: overlap, To: to[i]})
			if err != nil {
				return 0, err
			}
			to[i] = step.Key
			switch {
			case step.Action == keyring.Done:
				to[i] = 0
				rotations++
			case step.Stores():
				if err := site.CheckChange(views[i].Site, step.Change); err != nil {
					return 0, fmt.Errorf("%v: %w", step, err)
				}
				db.ChangeSite(t.Context(), step.Change) // a conflict is as good as success
			}
		}
		kept := flights[:0]
		for _, f := range flights {
			if now.Sub(f.at) > longestWay {
				continue
			}
			kept = append(kept, f)
			for _, a := range actors {
				// Whoever is stopped reads nothing, and knows the keys as of then.
				if !a.dead && a.joined && !a.known[f.site].Key(f.key).State.Verifies() {
					return 0, fmt.Errorf("a frame under key %d of %v meets %v, where it is %v", f.key, f.site, a.stream, a.known[f.site].Key(f.key).State)
				}
			}
		}
		flights = kept
		actors = deadOut(actors)
	}
	return rotations, nil
}

func deadOut(actors []*actor) []*actor {
	var alive []*actor
	for _, a := range actors {
		if !a.dead {
			alive = append(alive, a)
		}
	}
	if len(alive) == 0 {
		return actors[:1]
	}
	return alive
}
