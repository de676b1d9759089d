package transports

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/internal/walk"
)

// DefaultOverlap is how long the old transports stay open after the last instance has ceased to send on
// them: what a frame may spend in the sender's ring, in repair and between two polls. Where a message broker
// keeps frames for longer, the overlap is as long as that.
const DefaultOverlap = 90 * time.Second

var (
	// ErrUnderWay reports that a move to other transports is under way. Finish it first, or go back.
	ErrUnderWay = errors.New("transports: another move is under way")

	// ErrNothing reports that no move is under way that could be carried on or given up.
	ErrNothing = errors.New("transports: no move is under way")

	// ErrDiffer reports instances that are configured for different transports, so that nobody knows what the
	// site uses.
	ErrDiffer = errors.New("transports: the instances do not use the same")
)

// A LackError says which instances of the site do not have a transport that it is to be moved to.
// As long as they run, nothing goes on.
type LackError struct {
	Lacks map[site.StreamID][]string // what they lack
	Rows  []site.Member
	Begun bool // the move is under way: they came later
}

func (e *LackError) Error() string {
	what := "nothing was changed"
	if e.Begun {
		what = "the move waits"
	}
	return fmt.Sprintf("transports: %s; %s", e.names(), what)
}

func (e *LackError) names() string {
	var texts []string
	for i, m := range e.Rows {
		if i == maxNames {
			texts = append(texts, fmt.Sprintf("%d more", len(e.Rows)-i))
			break
		}
		text := fmt.Sprintf("%s lacks %s", walk.Name(m), strings.Join(e.Lacks[m.Stream], ", "))
		if len(m.Providers) == 0 {
			text += ": its program is too old to be moved"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// A View is what a decision goes by: one consistent read.
type View = walk.View

// NewView picks the site of this name from a read of everything, such as
// [site.Database.Changes] after 0.
func NewView(snap site.Snapshot, name string) (View, error) {
	v, err := walk.NewView(snap, name)
	if err != nil {
		return v, fmt.Errorf("transports: %w", err)
	}
	return v, nil
}

// A Target says what to reach.
type Target struct {
	// To are the transports to use alone in the end. None carries on with the move that is under way.
	To []string

	// Back gives up the move that is under way, and uses again what was used before it.
	Back bool

	// Overlap is how long the old ones stay open after the last instance has ceased to send on them. Zero
	// means [DefaultOverlap].
	Overlap time.Duration

	// Without are rows that nobody waits for. What such an instance sends on the old transports after the
	// move is not heard, and it does not hear what is sent on the new ones, if it is alive after all.
	Without map[site.StreamID]bool
}

// An Action is what a move does next. The zero value is not an action.
type Action uint8

const (
	_            Action = iota
	Subscribe           // store that the new transports are received
	AwaitReceive        // wait until the rows in Waiting receive them
	SendBoth            // store that they are sent on beside the old ones
	AwaitBoth           // wait until the rows in Waiting do so, and hear each other there
	SendNew             // store that they alone are sent on
	AwaitNew            // wait until the rows in Waiting do so
	End                 // store until when the old ones stay open
	AwaitEnd            // wait for that time
	Close               // store that they are closed
	AwaitClose          // wait until the rows in Waiting have closed them
	Done                // nothing is left to do
)

var actions = [...]string{
	Subscribe: "subscribe", AwaitReceive: "await-receive", SendBoth: "send-both", AwaitBoth: "await-both", SendNew: "send-new", AwaitNew: "await-new",
	End: "end", AwaitEnd: "await-end", Close: "close", AwaitClose: "await-close", Done: "done",
}

// String returns a name that does not change.
func (a Action) String() string {
	if int(a) < len(actions) && a != 0 {
		return actions[a]
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// A Step is what a move does next.
type Step struct {
	Action   Action
	From, To []string // of the move

	// Change is what [site.Database.ChangeSite] is to store. Only Subscribe, SendBoth, SendNew, End and Close
	// have one.
	Change site.Site

	Waiting []site.Member // the rows that are waited for
	Until   time.Time     // by the database's clock, of End and AwaitEnd; zero in an End at once
}

// Stores reports whether s is a change to the site, and not a wait or the end.
func (s Step) Stores() bool {
	switch s.Action {
	case Subscribe, SendBoth, SendNew, End, Close:
		return true
	}
	return false
}

// old returns what the move gives up.
func (s Step) old() []string { return without(s.From, s.To) }

// String says in words what the step does.
func (s Step) String() string {
	to, both := list(s.To), list(union(s.From, s.To))
	switch s.Action {
	case Subscribe:
		return fmt.Sprintf("have every instance receive on %s", both)
	case AwaitReceive:
		return fmt.Sprintf("wait until %s can receive on %s", s.names(), both)
	case SendBoth:
		return fmt.Sprintf("have every instance send on %s", both)
	case AwaitBoth:
		return fmt.Sprintf("wait until %s can send on %s, and hear all others on %s", s.names(), both, to)
	case SendNew:
		return fmt.Sprintf("have every instance send on %s alone", to)
	case AwaitNew:
		return fmt.Sprintf("wait until %s can send on %s alone", s.names(), to)
	case End:
		if s.Until.IsZero() {
			return fmt.Sprintf("let %s end at once: nothing was sent on it", list(s.old()))
		}
		return fmt.Sprintf("keep %s open until %s", list(s.old()), clock(s.Until))
	case AwaitEnd:
		return fmt.Sprintf("wait until %s, when nothing is on its way on %s any more", clock(s.Until), list(s.old()))
	case Close:
		return fmt.Sprintf("have every instance close %s", list(s.old()))
	case AwaitClose:
		return fmt.Sprintf("wait until %s can do without %s", s.names(), list(s.old()))
	case Done:
		return fmt.Sprintf("done: %s in use", list(s.To))
	}
	return s.Action.String()
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

func list(names []string) string { return strings.Join(names, " and ") }

// maxNames is how many instances a text names.
const maxNames = 5

// names names the instances that are waited for, with what they lack.
func (s Step) names() string {
	var texts []string
	for i, m := range s.Waiting {
		if i == maxNames {
			texts = append(texts, fmt.Sprintf("%d more", len(s.Waiting)-i))
			break
		}
		text := walk.Name(m)
		if lack := without(s.To, m.Providers); len(lack) > 0 {
			text += " (lacks " + strings.Join(lack, ", ") + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// Current returns what the instances of the site carry its events through: what the database says, or, as
// long as nothing was ever moved, what all of them are configured for.
func Current(v View) (site.Transports, error) {
	t := v.Site.Transports
	if !t.IsZero() {
		return t, nil
	}
	var uses []string
	var of site.Member
	for _, m := range v.Members {
		switch {
		case m.Site != v.Site.ID || len(m.Uses) == 0:
		case uses == nil:
			uses, of = m.Uses, m
		case !slices.Equal(uses, m.Uses):
			return t, fmt.Errorf("%w: %s uses %s, and %s uses %s; configure all of them alike", ErrDiffer, walk.Name(of), list(uses), walk.Name(m), list(m.Uses))
		}
	}
	return site.Transports{Receive: uses, Send: uses, From: uses, To: uses}, nil
}

// Next returns what a move does next when the database is as v says. It is a pure function.
func Next(v View, r Target) (Step, error) {
	t, err := Current(v)
	if err != nil {
		return Step{}, err
	}
	begun := !v.Site.Transports.IsZero() && t.Moving()
	to, err := r.to(t, begun)
	if err != nil {
		return Step{}, err
	}
	step := Step{From: t.From, To: to}
	if !begun {
		step.From = t.Send
	}
	// The end was stored when all had said what there was to say.
	if step.Waiting = behind(v, r); begun && len(step.Waiting) > 0 && slices.Equal(t.To, to) && t.Until.IsZero() {
		if err := lack(v, to, true); err != nil && !r.Back {
			return Step{}, err
		}
		step.Action = awaited(t)
		return step, nil
	}
	next := t.Clone()
	next.From, next.To = step.From, to
	switch {
	case begun && !slices.Equal(t.To, to): // back
		step.Action, step.From = SendNew, t.To
		next.From, next.Send, next.Until, next.Back = t.To, to, time.Time{}, true
		if slices.Equal(t.Send, to) { // nothing was sent on the others yet
			next.Until = v.Now
			step.Action = End
		}
	case slices.Equal(t.Receive, to) && slices.Equal(t.Send, to):
		step.Action, step.From, step.To = Done, t.From, to
		if len(step.Waiting) > 0 && !v.Site.Transports.IsZero() {
			step.Action = awaited(t)
		}
		return step, nil
	case len(without(to, t.Receive)) > 0:
		if err := lack(v, to, begun); err != nil {
			return Step{}, err
		}
		step.Action, next.Receive = Subscribe, union(t.Receive, to)
		if len(t.Send) == 0 { // nobody runs, and nothing was ever stored
			next.Receive, next.Send, next.From = to, to, to
		}
	case len(without(to, t.Send)) > 0:
		step.Action, next.Send = SendBoth, union(t.Send, to)
	case !slices.Equal(t.Send, to):
		step.Action, next.Send = SendNew, to
	case t.Until.IsZero():
		overlap := r.Overlap
		if overlap == 0 {
			overlap = DefaultOverlap
		}
		step.Until = v.Now.Add(overlap)
		step.Action, next.Until = End, step.Until
	case t.Until.After(v.Now):
		step.Action, step.Until = AwaitEnd, t.Until
		return step, nil
	default:
		// From stays, for who waits until all have closed them.
		step.Action, next.Receive, next.Until, next.Back = Close, to, time.Time{}, false
	}
	step.Waiting = nil
	step.Change = v.Site
	step.Change.Transports = next
	return step, nil
}

// to returns the transports that the move leads to.
func (r *Target) to(t site.Transports, begun bool) ([]string, error) {
	to := slices.Clone(r.To)
	slices.Sort(to)
	to = slices.Compact(to)
	switch {
	case r.Back && begun && len(to) > 0: // as the step before said
		return to, nil
	case r.Back && begun && t.Back:
		return t.To, nil
	case r.Back && begun:
		return t.From, nil
	case r.Back:
		if len(to) > 0 && slices.Equal(t.To, to) {
			return to, nil
		}
		return nil, fmt.Errorf("%w: %s in use; to use others, move to them", ErrNothing, list(t.Send))
	case len(to) == 0 && begun:
		return t.To, nil
	case len(to) == 0:
		return nil, fmt.Errorf("%w: %s in use; say to which transports to move", ErrNothing, list(t.Send))
	case begun && !slices.Equal(to, t.To):
		return nil, fmt.Errorf("%w: from %s to %s; finish it, without naming transports, or go back", ErrUnderWay, list(t.From), list(t.To))
	}
	return to, nil
}

// awaited returns the action that waits for what t says.
func awaited(t site.Transports) Action {
	switch {
	case len(without(t.To, t.Send)) > 0:
		return AwaitReceive
	case len(without(t.From, t.To)) == 0: // others are added, and nothing is given up
		return AwaitBoth
	case slices.Equal(t.Receive, t.To):
		return AwaitClose
	case slices.Equal(t.Send, t.To):
		return AwaitNew
	}
	return AwaitBoth
}

// lack returns a [*LackError] if instances of the site do not have all of to.
func lack(v View, to []string, begun bool) error {
	e := &LackError{Lacks: map[site.StreamID][]string{}, Begun: begun}
	for _, m := range v.Members {
		if lacks := without(to, m.Providers); m.Site == v.Site.ID && len(lacks) > 0 {
			e.Lacks[m.Stream] = lacks
			e.Rows = append(e.Rows, m)
		}
	}
	if len(e.Rows) == 0 {
		return nil
	}
	return e
}

// behind returns the rows that do not do yet what the site's transports say. The
// instances of other sites are among them: they may hear this one.
func behind(v View, r Target) []site.Member {
	return walk.Waiting(v, r.Without, func(m site.Member) bool { return m.Carries < v.Site.Transports.Changed })
}

// Plan returns the steps of a move from v to its end, as if nobody came or went and everybody kept up: what
// a dry run shows. Nothing is stored.
func Plan(v View, r Target) ([]Step, error) {
	v.Members = slices.Clone(v.Members)
	var plan []Step
	for {
		step, err := Next(v, r)
		if err != nil {
			return nil, err
		}
		plan = append(plan, step)
		r.To = step.To
		switch {
		case step.Action == Done:
			return plan, nil
		case step.Stores():
			v.Site = step.Change
			v.Site.Generation++
			v.Site.Transports.Changed = v.Site.Generation
		case step.Action == AwaitEnd:
			v.Now = step.Until
		}
		if !step.Stores() || step.Action == End {
			for i := range v.Members {
				v.Members[i].Carries = max(v.Members[i].Carries, v.Site.Generation)
			}
		}
	}
}

// union returns what is in a or b, ascending.
func union(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// without returns what is in names and not in others.
func without(names, others []string) []string {
	var left []string
	for _, n := range names {
		if !slices.Contains(others, n) {
			left = append(left, n)
		}
	}
	return left
}
