package transports

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/site"
)

const (
	defaultPatience = time.Minute
	defaultPoll     = time.Second
	longestPause    = 10 * time.Second // between two attempts at a database that is away
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

// Progress is what a move has come to.
type Progress struct {
	Step Step

	// Err says that the database is away, so that the step is not known; the move
	// goes on as soon as it is back.
	Err error

	// Left are instances without which the move goes on from here, see
	// [Options.Force].
	Left []site.Member
}

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
	target.Overlap, target.Without = o.Overlap, map[site.StreamID]bool{}
	d := &driver{db: db, name: name, options: o, target: target, lapsed: map[site.StreamID]time.Duration{}}
	if d.options.Patience == 0 {
		d.options.Patience = defaultPatience
	}
	if d.options.Poll == 0 {
		d.options.Poll = defaultPoll
	}
	return d.run(ctx)
}

type driver struct {
	db      site.Database
	name    string
	options Options
	target  Target

	lapsed map[site.StreamID]time.Duration // for how long each row was seen lapsed
	seen   time.Time                       // the database's time of the last view; zero before the first

	told  string // of the last step
	away  error  // of the last call; nil: it succeeded
	pause time.Duration
}

func (d *driver) run(ctx context.Context) (site.Site, error) {
	for {
		s, wait, err := d.step(ctx)
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
			return site.Site{}, d.stopped(ctx)
		}
	}
}

// stopped is the error when ctx has ended.
func (d *driver) stopped(ctx context.Context) error {
	err := fmt.Errorf("transports: move site %q: stopped at: %s: %w; the same command carries on", d.name, d.told, context.Cause(ctx))
	if d.told == "" {
		err = fmt.Errorf("transports: move site %q: %w", d.name, context.Cause(ctx))
	}
	if d.away != nil {
		err = fmt.Errorf("%w (the database: %w)", err, d.away)
	}
	return err
}

// step does one step if it can. It returns when to look again; less than 0 when all is
// done.
func (d *driver) step(ctx context.Context) (s site.Site, wait time.Duration, err error) {
	snap, err := d.db.Changes(ctx, 0)
	if err != nil {
		return s, d.failed(ctx, err), d.final(ctx, err)
	}
	v, err := NewView(snap, d.name)
	if err != nil {
		return s, 0, err
	}
	next, err := Next(v, d.target)
	if err != nil {
		return s, 0, err
	}
	d.target.To = next.To
	left, err := d.patience(v, next)
	if err != nil {
		return s, 0, err
	}
	d.back(next, left)
	switch {
	case len(left) > 0:
		return s, 0, nil // the next step may be another without them
	case next.Action == Done:
		return v.Site, -1, nil
	case next.Action == AwaitEnd:
		return s, max(min(d.options.Poll, next.Until.Sub(v.Now)), time.Millisecond), nil
	case !next.Stores():
		return s, d.options.Poll, nil
	}
	if err := site.CheckChange(v.Site, next.Change); err != nil {
		return s, 0, err
	}
	switch _, err = d.db.ChangeSite(ctx, next.Change); {
	case err == nil, errors.Is(err, site.ErrConflict):
		return s, 0, nil
	default:
		return s, d.failed(ctx, err), d.final(ctx, err)
	}
}

// final returns the error with which the move ends, or nil if it goes on when the
// database is back.
func (d *driver) final(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return d.stopped(ctx)
	case d.seen.IsZero(), errors.Is(err, site.ErrSchema), errors.Is(err, site.ErrSecret), errors.Is(err, site.ErrRestored):
		return fmt.Errorf("transports: move site %q: %w", d.name, err)
	}
	return nil
}

// failed tells that the database is away, once, and returns when to try again.
func (d *driver) failed(ctx context.Context, err error) time.Duration {
	first := d.away == nil
	d.away = err
	d.pause = min(max(d.options.Poll, 2*d.pause), longestPause)
	if first && ctx.Err() == nil && !d.seen.IsZero() && d.options.Progress != nil {
		d.options.Progress(Progress{Err: err})
	}
	return d.pause
}

// back tells the step, if it is another than the last.
func (d *driver) back(step Step, left []site.Member) {
	was := d.away != nil
	d.away, d.pause = nil, 0
	text := step.String()
	if text == d.told && !was && left == nil {
		return
	}
	d.told = text
	if d.options.Progress != nil {
		d.options.Progress(Progress{Step: step, Left: left})
	}
}

// patience keeps book of how long rows were seen lapsed, and counts only time in which the
// database answered: when it comes back, all rows have lapsed. It returns the rows
// that are left behind, by force.
func (d *driver) patience(v View, step Step) (left []site.Member, err error) {
	passed := time.Duration(0)
	if !d.seen.IsZero() {
		passed = min(max(v.Now.Sub(d.seen), 0), 2*d.options.Poll)
	}
	d.seen = v.Now
	lapsed := map[site.StreamID]time.Duration{}
	for _, m := range v.Members {
		if !m.Lapsed {
			continue
		}
		if before, ok := d.lapsed[m.Stream]; ok {
			lapsed[m.Stream] = before + passed
		} else {
			lapsed[m.Stream] = 0
		}
	}
	d.lapsed = lapsed
	for _, m := range step.Waiting {
		if age, ok := lapsed[m.Stream]; ok && age >= d.options.Patience {
			left = append(left, m)
		}
	}
	if len(left) > 0 && !d.options.Force {
		return nil, &LapsedError{Step: step, Rows: left}
	}
	for _, m := range left {
		d.target.Without[m.Stream] = true
	}
	return left, nil
}
