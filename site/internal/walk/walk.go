// Package walk changes a site step by step while its instances run: it looks at the rows, does the next step if
// nobody has to be waited for, and looks again. What the steps are, packages keyring and transports know; they are functions of one
// read, so that a walk can be stopped, carried on by anybody, and done by several at once.
package walk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/carillon-go/carillon/site"
)

const (
	defaultPatience = time.Minute
	defaultPoll     = time.Second
	longestPause    = 10 * time.Second // between two attempts at a database that is away
)

// A View is what a decision goes by: one consistent read.
type View struct {
	Site    site.Site
	Members []site.Member // the open rows of the whole database, whatever their lease
	Now     time.Time     // of the database
}

// NewView picks the site of this name from a read of everything, such as
// [site.Database.Changes] after 0.
func NewView(snap site.Snapshot, name string) (View, error) {
	i := slices.IndexFunc(snap.Sites, func(s site.Site) bool { return s.Name == name })
	if i < 0 {
		return View{}, fmt.Errorf("there is no site %q in the database", name)
	}
	v := View{Site: snap.Sites[i], Now: snap.Now}
	for _, m := range snap.Members {
		if m.State == site.MemberOpen {
			v.Members = append(v.Members, m)
		}
	}
	return v, nil
}

// Waiting returns the rows of v that are behind, but for those that nobody waits for; those that are not lapsed first.
func Waiting(v View, without map[site.StreamID]bool, behind func(site.Member) bool) []site.Member {
	var rows []site.Member
	for _, m := range v.Members {
		if !without[m.Stream] && behind(m) {
			rows = append(rows, m)
		}
	}
	slices.SortFunc(rows, func(a, b site.Member) int {
		if a.Lapsed != b.Lapsed {
			if b.Lapsed {
				return -1
			}
			return 1
		}
		return slices.Compare(a.Stream[:], b.Stream[:])
	})
	return rows
}

// Name names an instance, for people.
func Name(m site.Member) string {
	text := fmt.Sprintf("%s on %s (%v", m.Application, m.Server, m.Stream)
	if m.Lapsed {
		text += ", lapsed"
	}
	return text + ")"
}

// Progress is what a walk has come to.
type Progress[S any] struct {
	Step S

	// Err says that the database is away, so that the step is not known; the walk
	// goes on as soon as it is back.
	Err error

	// Left are instances without which the walk goes on from here, by force.
	Left []site.Member
}

// A Task is what there is to do in a step. The zero Task waits for rows to change.
type Task struct {
	Done    bool
	Until   time.Time     // if set, there is nothing to do before it, by the database's clock
	Change  *site.Site    // if set, what is to be stored
	Waiting []site.Member // the rows that are waited for
}

// A Walk walks one site, by steps that print as what they do. Database, Site, Doing, Decide, Task and Lapsed are required.
type Walk[S fmt.Stringer] struct {
	Database site.Database
	Site     string // its name
	Doing    string // begins errors: what is being done, and to which site

	// Decide returns the next step, from a view and the rows that nobody waits for any more.
	Decide func(v View, without map[site.StreamID]bool) (S, error)

	// Task says what a step is about.
	Task func(step S) Task

	// Lapsed is the error of a walk that would have to go on without rows.
	Lapsed func(step S, rows []site.Member) error

	Force    bool              // goes on without rows that have been seen lapsed for as long as Patience
	Patience time.Duration     // zero means a minute
	Poll     time.Duration     // between two looks at the rows; zero means 1 s
	Progress func(Progress[S]) // or nil; see the options of the packages that walk

	without map[site.StreamID]bool
	lapsed  map[site.StreamID]time.Duration // for how long each row was seen lapsed
	seen    time.Time                       // the database's time of the last view; zero before the first

	told  string // of the last step
	away  error  // of the last call; nil: it succeeded
	pause time.Duration
}

// Run walks to the end, and returns the site as it is then. It is called once.
//
// It ends early when ctx does, with an error that says what it waited for. A database that goes away holds it up; one that cannot be
// read at first is an error.
func (w *Walk[S]) Run(ctx context.Context) (site.Site, error) {
	w.without, w.lapsed = map[site.StreamID]bool{}, map[site.StreamID]time.Duration{}
	if w.Patience == 0 {
		w.Patience = defaultPatience
	}
	if w.Poll == 0 {
		w.Poll = defaultPoll
	}
	for {
		s, wait, err := w.step(ctx)
		switch {
		case err != nil:
			return site.Site{}, err
		case wait < 0:
			return s, nil
		case wait == 0:
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return site.Site{}, w.stopped(ctx)
		}
	}
}

// stopped is the error when ctx has ended.
func (w *Walk[S]) stopped(ctx context.Context) error {
	err := fmt.Errorf("%s: stopped at: %s: %w; the same command carries on", w.Doing, w.told, context.Cause(ctx))
	if w.told == "" {
		err = fmt.Errorf("%s: %w", w.Doing, context.Cause(ctx))
	}
	if w.away != nil {
		err = fmt.Errorf("%w (the database: %w)", err, w.away)
	}
	return err
}

// step does one step if it can. It returns when to look again; less than 0 when all is
// done.
func (w *Walk[S]) step(ctx context.Context) (s site.Site, wait time.Duration, err error) {
	snap, err := w.Database.Changes(ctx, 0)
	if err != nil {
		return s, w.failed(ctx, err), w.final(ctx, err)
	}
	v, err := NewView(snap, w.Site)
	if err != nil {
		return s, 0, fmt.Errorf("%s: %w", w.Doing, err)
	}
	step, err := w.Decide(v, w.without)
	if err != nil {
		return s, 0, err
	}
	task := w.Task(step)
	left, err := w.patience(v, step, task.Waiting)
	if err != nil {
		return s, 0, err
	}
	w.back(step, left)
	switch {
	case len(left) > 0:
		return s, 0, nil // the next step may be another without them
	case task.Done:
		return v.Site, -1, nil
	case !task.Until.IsZero():
		return s, max(min(w.Poll, task.Until.Sub(v.Now)), time.Millisecond), nil
	case task.Change == nil:
		return s, w.Poll, nil
	}
	if err := site.CheckChange(v.Site, *task.Change); err != nil {
		return s, 0, err
	}
	switch _, err = w.Database.ChangeSite(ctx, *task.Change); {
	case err == nil, errors.Is(err, site.ErrConflict):
		return s, 0, nil
	default:
		return s, w.failed(ctx, err), w.final(ctx, err)
	}
}

// final returns the error with which the walk ends, or nil if it goes on when the
// database is back.
func (w *Walk[S]) final(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return w.stopped(ctx)
	case w.seen.IsZero(), errors.Is(err, site.ErrSchema), errors.Is(err, site.ErrSecret), errors.Is(err, site.ErrRestored):
		return fmt.Errorf("%s: %w", w.Doing, err)
	}
	return nil
}

// failed tells that the database is away, once, and returns when to try again.
func (w *Walk[S]) failed(ctx context.Context, err error) time.Duration {
	first := w.away == nil
	w.away = err
	w.pause = min(max(w.Poll, 2*w.pause), longestPause)
	if first && ctx.Err() == nil && !w.seen.IsZero() && w.Progress != nil {
		w.Progress(Progress[S]{Err: err})
	}
	return w.pause
}

// back tells the step, if it is another than the last.
func (w *Walk[S]) back(step S, left []site.Member) {
	was := w.away != nil
	w.away, w.pause = nil, 0
	text := step.String()
	if text == w.told && !was && left == nil {
		return
	}
	w.told = text
	if w.Progress != nil {
		w.Progress(Progress[S]{Step: step, Left: left})
	}
}

// patience keeps book of how long rows were seen lapsed, and counts only time in which the
// database answered: when it comes back, all rows have lapsed. It returns the rows
// that are left behind, by force.
func (w *Walk[S]) patience(v View, step S, waiting []site.Member) (left []site.Member, err error) {
	passed := time.Duration(0)
	if !w.seen.IsZero() {
		passed = min(max(v.Now.Sub(w.seen), 0), 2*w.Poll)
	}
	w.seen = v.Now
	lapsed := map[site.StreamID]time.Duration{}
	for _, m := range v.Members {
		if !m.Lapsed {
			continue
		}
		if before, ok := w.lapsed[m.Stream]; ok {
			lapsed[m.Stream] = before + passed
		} else {
			lapsed[m.Stream] = 0
		}
	}
	w.lapsed = lapsed
	for _, m := range waiting {
		if age, ok := lapsed[m.Stream]; ok && age >= w.Patience {
			left = append(left, m)
		}
	}
	if len(left) > 0 && !w.Force {
		return nil, w.Lapsed(step, left)
	}
	for _, m := range left {
		w.without[m.Stream] = true
	}
	return left, nil
}
