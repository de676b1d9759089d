package keyring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/internal/walk"
)

// DefaultOverlap is how long an old key goes on verifying after the last instance
// has signed with its successor: what a frame may spend in the sender's ring,
// in repair and between two polls. Where a message broker keeps frames
// for longer, the overlap is as long as that.
const DefaultOverlap = 90 * time.Second

// ErrUnderWay reports that a rotation to a key of another suite is under way. Finish it
// first.
var ErrUnderWay = errors.New("keyring: another rotation is under way")

// ErrCompromised reports that the key to which a rotation led was compromised
// meanwhile. Begin again.
var ErrCompromised = errors.New("keyring: the new key was compromised meanwhile")

// A View is what a decision goes by: one consistent read.
type View = walk.View

// NewView picks the site of this name from a read of everything, such as
// [site.Database.Changes] after 0.
func NewView(snap site.Snapshot, name string) (View, error) {
	v, err := walk.NewView(snap, name)
	if err != nil {
		return v, fmt.Errorf("keyring: %w", err)
	}
	return v, nil
}

// A Rotation says what to reach.
type Rotation struct {
	// Suite of the new key. Zero is that of the active one.
	Suite site.Suite

	// Overlap is how long the old key verifies after the last instance has signed
	// with the new one. Zero means [DefaultOverlap].
	Overlap time.Duration

	// To is the key that the rotation leads to, as the Step before said. Zero
	// carries on with a rotation that is under way, and begins one if none is.
	To site.KeyID

	// Without are rows that nobody waits for. What such an instance sends after the
	// rotation is refused, if it is alive after all.
	Without map[site.StreamID]bool

	// NewKey makes the new key; nil means [site.NewKey].
	NewKey func(site.KeyID, site.Suite) site.Key
}

// An Action is what a rotation does next. The zero value is not an action.
type Action uint8

const (
	_           Action = iota
	Create             // store a pending key
	AwaitVerify        // wait until the rows in Waiting verify with it
	Promote            // make it the active key; the one before retires
	AwaitSign          // wait until the rows in Waiting sign with it
	End                // store until when the old keys verify
	AwaitEnd           // wait for that time
	Revoke             // store that the old keys have ended
	Done               // nothing is left to do
)

var actions = [...]string{
	Create: "create", AwaitVerify: "await-verify", Promote: "promote", AwaitSign: "await-sign",
	End: "end", AwaitEnd: "await-end", Revoke: "revoke", Done: "done",
}

// String returns a name that does not change.
func (a Action) String() string {
	if int(a) < len(actions) && a != 0 {
		return actions[a]
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// A Step is what a rotation does next.
type Step struct {
	Action Action
	Key    site.KeyID   // to which the rotation leads
	Suite  site.Suite   // of Key
	Old    []site.KeyID // that the step ends, or waits for the end of

	// Change is what [site.Database.ChangeSite] is to store. Only Create, Promote,
	// End and Revoke have one.
	Change site.Site

	Waiting []site.Member // the rows that AwaitVerify and AwaitSign wait for
	Until   time.Time     // by the database's clock, of End and AwaitEnd
}

// Stores reports whether s is a change to the site, and not a wait or the end.
func (s Step) Stores() bool {
	switch s.Action {
	case Create, Promote, End, Revoke:
		return true
	}
	return false
}

// String says in words what the step does.
func (s Step) String() string {
	switch s.Action {
	case Create:
		return fmt.Sprintf("store key %d (%v) as pending", s.Key, s.Suite)
	case AwaitVerify:
		return fmt.Sprintf("wait until %s can verify with key %d", names(s.Waiting), s.Key)
	case Promote:
		return fmt.Sprintf("make key %d active; %s", s.Key, keys(s.Old, "retires", "retire"))
	case AwaitSign:
		return fmt.Sprintf("wait until %s with key %d", sign(s.Waiting), s.Key)
	case End:
		return fmt.Sprintf("let %s until %s", keys(s.Old, "verify", "verify"), clock(s.Until))
	case AwaitEnd:
		return fmt.Sprintf("wait until %s, when %s", clock(s.Until), keys(s.Old, "ends", "end"))
	case Revoke:
		return "revoke " + keys(s.Old, "", "")
	case Done:
		return fmt.Sprintf("done: key %d (%v) is in use", s.Key, s.Suite)
	}
	return s.Action.String()
}

func sign(rows []site.Member) string {
	if len(rows) == 1 {
		return names(rows) + " signs"
	}
	return names(rows) + " sign"
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

func keys(ids []site.KeyID, one, many string) string {
	if len(ids) == 1 {
		return strings.TrimSpace(fmt.Sprintf("key %d %s", ids[0], one))
	}
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, id)
	}
	return strings.TrimSpace(fmt.Sprintf("keys %s %s", b.String(), many))
}

// maxNames is how many instances a text names.
const maxNames = 5

// names names instances for people.
func names(rows []site.Member) string {
	var b strings.Builder
	for i, m := range rows {
		if i == maxNames {
			fmt.Fprintf(&b, " and %d more", len(rows)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(walk.Name(m))
	}
	return b.String()
}

// Next returns what a rotation does next when the database is as v says. It is a pure function but
// for the secret of a new key.
func Next(v View, r Rotation) (Step, error) {
	s := v.Site
	to, err := r.target(s)
	if err != nil {
		return Step{}, err
	}
	key := s.Key(to)
	step := Step{Key: to, Suite: key.Suite}
	switch key.State {
	case 0:
		return r.create(v, to)
	case site.KeyPending:
		if step.Waiting = walk.Waiting(v, r.Without, func(m site.Member) bool { return m.Verifies < changed(s, key) }); len(step.Waiting) > 0 {
			step.Action = AwaitVerify
			return step, nil
		}
		step.Action, step.Old = Promote, []site.KeyID{s.Active().ID}
		step.Change = edit(s, func(k *site.Key) {
			switch {
			case k.ID == to:
				k.State = site.KeyActive
			case k.State == site.KeyActive:
				k.State = site.KeyRetiring
			}
		})
		return step, nil
	case site.KeyActive:
		return r.finish(v, step)
	case site.KeyCompromised:
		return Step{}, fmt.Errorf("%w: key %d of site %q; begin again", ErrCompromised, to, s.Name)
	}
	step.Action = Done // it was in use, and another rotation has followed
	return step, nil
}

// target returns the key to which the rotation leads, which may not exist yet.
func (r *Rotation) target(s site.Site) (site.KeyID, error) {
	if r.To != 0 {
		if r.To < s.NextKeyID() && s.Key(r.To).ID == 0 {
			return 0, fmt.Errorf("keyring: key %d of site %q, to which the rotation leads, is gone: was the database restored? begin again", r.To, s.Name)
		}
		return r.To, nil
	}
	var to site.KeyID
	for _, k := range s.Keys {
		switch {
		case k.State == site.KeyPending:
			to = k.ID
		case k.State == site.KeyRetiring && to == 0:
			to = s.Active().ID
		}
	}
	if to == 0 {
		return s.NextKeyID(), nil
	}
	if k := s.Key(to); r.Suite != 0 && k.Suite != r.Suite {
		return 0, fmt.Errorf("%w: to key %d of suite %v, not %v; finish it first, without naming a suite", ErrUnderWay, to, k.Suite, r.Suite)
	}
	return to, nil
}

func (r *Rotation) create(v View, to site.KeyID) (Step, error) {
	active := v.Site.Active()
	suite := r.Suite
	if suite == 0 {
		suite = active.Suite
	}
	newKey := r.NewKey
	if newKey == nil {
		newKey = site.NewKey
	}
	key := newKey(to, suite)
	if err := v.Site.Floors.Allow(key); err != nil {
		return Step{}, fmt.Errorf("keyring: a rotation to suite %v: %w; lower the floor first, which takes the word to weaken it", suite, err)
	}
	change := edit(v.Site, func(*site.Key) {})
	change.Keys = append(change.Keys, key)
	return Step{Action: Create, Key: to, Suite: suite, Change: change}, nil
}

// finish is [Next] for a key that is active.
func (r *Rotation) finish(v View, step Step) (Step, error) {
	s := v.Site
	var open, running, over []site.KeyID // retiring keys without an end, with one, and past it
	for _, k := range s.Keys {
		switch {
		case k.State != site.KeyRetiring:
		case k.Until.IsZero():
			open = append(open, k.ID)
		case k.Until.After(v.Now):
			running = append(running, k.ID)
			if k.Until.After(step.Until) {
				step.Until = k.Until
			}
		default:
			over = append(over, k.ID)
		}
	}
	switch {
	case len(over) > 0:
		step.Action, step.Old, step.Until = Revoke, over, time.Time{}
		step.Change = edit(s, func(k *site.Key) {
			if slices.Contains(over, k.ID) {
				k.State = site.KeyRevoked
			}
		})
	case len(open) > 0:
		step.Old, step.Until = open, time.Time{}
		if step.Waiting = walk.Waiting(v, r.Without, func(m site.Member) bool { return m.Site == s.ID && m.Signs < changed(s, s.Active()) }); len(step.Waiting) > 0 {
			step.Action = AwaitSign
			return step, nil
		}
		overlap := r.Overlap
		if overlap == 0 {
			overlap = DefaultOverlap
		}
		step.Action, step.Until = End, v.Now.Add(overlap)
		step.Change = edit(s, func(k *site.Key) {
			if slices.Contains(open, k.ID) {
				k.Until = step.Until
			}
		})
	case len(running) > 0:
		step.Action, step.Old = AwaitEnd, running
	default:
		step.Action = Done
	}
	return step, nil
}

// changed returns the generation of the last change to k, at most.
func changed(s site.Site, k site.Key) uint64 {
	if k.Changed == 0 {
		return s.Generation
	}
	return k.Changed
}

// edit returns s with its keys changed, in a slice of its own.
func edit(s site.Site, change func(*site.Key)) site.Site {
	s.Keys = slices.Clone(s.Keys)
	for i := range s.Keys {
		change(&s.Keys[i])
	}
	return s
}

// Plan returns the steps of a rotation from v to its end, as if nobody came or
// went and everybody kept up: what a dry run shows. Nothing is stored.
func Plan(v View, r Rotation) ([]Step, error) {
	v.Members = slices.Clone(v.Members)
	var plan []Step
	for {
		step, err := Next(v, r)
		if err != nil {
			return nil, err
		}
		plan = append(plan, step)
		r.To = step.Key
		switch {
		case step.Action == Done:
			return plan, nil
		case step.Stores():
			v.Site = step.Change
			v.Site.Generation++
			for i := range v.Site.Keys {
				v.Site.Keys[i].Changed = 0 // by the generation that is not known yet
			}
		case step.Action == AwaitEnd:
			v.Now = step.Until
		default:
			for i := range v.Members {
				m := &v.Members[i]
				m.Verifies = max(m.Verifies, v.Site.Generation)
				if step.Action == AwaitSign {
					m.Signs = m.Verifies
				}
			}
		}
	}
}
