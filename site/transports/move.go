package transports

import (
	"context"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/internal/walk"
)

// Options say how [Move] and [Abort] work. The zero Options are those to start with.
type Options struct {
	Overlap time.Duration // see [Target]; zero means [DefaultOverlap]

	// Force goes on without instances whose lease has lapsed, once they have been seen
	// lapsed for as long as Patience. Without it that is a [*LapsedError].
	Force    bool
	Patience time.Duration // zero means a minute

	Poll time.Duration // between two looks at the rows; zero means 1 s

	// Progress, if set, is told each step, before it is stored or when who is waited for has changed,
	// and each time the database goes away. It is never called concurrently.
	Progress func(Progress)
}

// Progress is what a move has come to. Its Left are instances without which it goes on, see [Options.Force].
type Progress = walk.Progress[Step]

// A LapsedError says which instances hold up a move and have not renewed their
// lease for a while. They have most likely been killed; their rows go when another
// instance reaps them.
type LapsedError struct {
	Step Step // that waits
	Rows []site.Member
}

func (e *LapsedError) Error() string {
	return fmt.Sprintf("transports: %v: no sign of life from %s; end them if they still run, then either wait until they are reaped or go on by force",
		e.Step.Action, Step{Waiting: e.Rows}.names())
}

// Move moves the site of this name to the transports named, and returns the site as it is then. It carries on
// with a move to the same that is under way, or to whichever if none are named. It may be called anywhere, any number
// of times, at once too. A [*LackError] says whom it cannot move.
//
// It ends early when ctx does, with an error that says what it waited for; call it again to carry on.
// A database that goes away holds it up; one that cannot be read at first is an error.
func Move(ctx context.Context, db site.Database, name string, to []string, o Options) (site.Site, error) {
	return run(ctx, db, name, Target{To: to}, o)
}

// Abort gives up the move that is under way, and returns when the site uses again what it did before. Otherwise
// it is like [Move].
func Abort(ctx context.Context, db site.Database, name string, o Options) (site.Site, error) {
	return run(ctx, db, name, Target{Back: true}, o)
}

func run(ctx context.Context, db site.Database, name string, target Target, o Options) (site.Site, error) {
	target.Overlap = o.Overlap
	w := walk.Walk[Step]{
		Database: db, Site: name, Doing: fmt.Sprintf("transports: move site %q", name),
		Decide: func(v View, without map[site.StreamID]bool) (Step, error) {
			target.Without = without
			next, err := Next(v, target)
			if err == nil {
				target.To = next.To
			}
			return next, err
		},
		Task:   task,
		Lapsed: func(step Step, rows []site.Member) error { return &LapsedError{Step: step, Rows: rows} },
		Force:  o.Force, Patience: o.Patience, Poll: o.Poll, Progress: o.Progress,
	}
	return w.Run(ctx)
}

// task says what a step is about.
func task(step Step) walk.Task {
	t := walk.Task{Done: step.Action == Done, Waiting: step.Waiting}
	switch {
	case step.Action == AwaitEnd:
		t.Until = step.Until
	case step.Stores():
		t.Change = &step.Change
	}
	return t
}
