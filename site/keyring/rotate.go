package keyring

import (
	"context"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/internal/walk"
)

// Options say how [Rotate] works. The zero Options are those to start with.
type Options struct {
	Suite   site.Suite    // of the new key; zero: that of the active one
	Overlap time.Duration // see [Rotation]; zero means [DefaultOverlap]

	// Force goes on without instances whose lease has lapsed, once they have been seen
	// lapsed for as long as Patience. Without it that is a [*LapsedError].
	Force    bool
	Patience time.Duration // zero means a minute

	Poll time.Duration // between two looks at the rows; zero means 1 s

	// Progress, if set, is told each step, before it is stored or when who is waited for has changed,
	// and each time the database goes away. It is never called concurrently.
	Progress func(Progress)
}

// Progress is what a rotation has come to. Its Left are instances without which it goes on, see [Options.Force].
type Progress = walk.Progress[Step]

// A LapsedError says which instances hold up a rotation and have not renewed their
// lease for a while. They have most likely been killed; their rows go when another
// instance reaps them.
type LapsedError struct {
	Step Step // that waits
	Rows []site.Member
}

func (e *LapsedError) Error() string {
	return fmt.Sprintf("keyring: %v: no sign of life from %s; end them if they still run, then either wait until they are reaped or go on by force",
		e.Step.Action, names(e.Rows))
}

// Rotate rotates the key of the site of this name to its end, and returns the site
// as it is then. It carries on with a rotation that is under way. It may be called anywhere, any number
// of times, at once too.
//
// It ends early when ctx does, with an error that says what it waited for; call it again to carry on.
// A database that goes away holds it up; one that cannot be read at first is an error.
func Rotate(ctx context.Context, db site.Database, name string, o Options) (site.Site, error) {
	rotation := Rotation{Suite: o.Suite, Overlap: o.Overlap}
	w := walk.Walk[Step]{
		Database: db, Site: name, Doing: fmt.Sprintf("keyring: rotate the key of site %q", name),
		Decide: func(v View, without map[site.StreamID]bool) (Step, error) {
			rotation.Without = without
			next, err := Next(v, rotation)
			if err == nil {
				rotation.To = next.Key
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
