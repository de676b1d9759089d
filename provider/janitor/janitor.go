package janitor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// LeastGrace is the shortest grace of [Grace].
const LeastGrace = 2 * time.Minute

// Grace returns how long an instance with this lease has to write its member row after it has
// subscribed: two leases, at least [LeastGrace].
func Grace(lease time.Duration) time.Duration { return max(2*lease, LeastGrace) }

// staleAfter is how long after the read of the rows something may still be removed because of it.
const staleAfter = time.Minute

// ErrLeft reports that there was not time enough to remove everything that goes.
var ErrLeft = errors.New("there was not time enough; look again")

// A Janitor looks after the subscriptions that one site's instances have at one service. Its methods
// may be called by any goroutine, one at a time.
type Janitor struct {
	cleaner provider.Cleaner
	site    site.ID
	rows    func(ctx context.Context) (site.Snapshot, error)
	grace   time.Duration

	unnamed map[string]time.Time // since when each was seen without a row, by this process's clock
	readAt  time.Time            // when the rows were read last
}

// New returns a Janitor. rows reads all rows of the site database at once, as [site.Database.Changes] since 0 does, on the
// primary; when it fails, nothing is removed.
func New(c provider.Cleaner, s site.ID, rows func(ctx context.Context) (site.Snapshot, error), grace time.Duration) *Janitor {
	return &Janitor{cleaner: c, site: s, rows: rows, grace: grace, unnamed: map[string]time.Time{}}
}

// Look finds out whose the subscriptions are. It removes nothing. It remembers which ones no row
// names, so that a later Look knows for how long that has been so.
func (j *Janitor) Look(ctx context.Context) ([]Finding, error) {
	subs, err := j.cleaner.Subscriptions(ctx, j.site)
	if err != nil {
		return nil, fmt.Errorf("list the subscriptions: %w", err)
	}
	// After the list, and begun after it has ended: see Look.Subscriptions.
	readAt := time.Now()
	rows, err := j.rows(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the member rows: %w", err)
	}
	j.readAt = readAt
	look := Look{
		Provider: j.cleaner.Name(), Site: j.site, Subscriptions: subs, Rows: rows, Grace: j.grace,
		Unnamed: map[string]time.Duration{},
	}
	for name, since := range j.unnamed {
		look.Unnamed[name] = readAt.Sub(since)
	}
	findings := look.Judge()
	seen := map[string]time.Time{}
	for _, f := range findings {
		if f.Verdict == Unnamed || f.Verdict == Forgotten {
			name := f.Subscription.Name
			seen[name] = readAt
			if since, ok := j.unnamed[name]; ok {
				seen[name] = since
			}
		}
	}
	j.unnamed = seen
	return findings, nil
}

// Clean removes what goes of the findings of the last Look and returns which ones it has removed. One that
// cannot be removed does not keep it from the others. A minute after the rows were read it stops, with [ErrLeft]: what is
// left goes after another Look.
func (j *Janitor) Clean(ctx context.Context, findings []Finding) (removed []Finding, err error) {
	var errs []error
	left := 0
	for _, f := range findings {
		switch {
		case !f.Verdict.Goes():
		case ctx.Err() != nil || time.Since(j.readAt) > staleAfter:
			left++
		default:
			if err := j.cleaner.Unsubscribe(ctx, j.site, f.Subscription); err != nil {
				errs = append(errs, fmt.Errorf("remove %q: %w", f.Subscription.Name, err))
				continue
			}
			removed = append(removed, f)
		}
	}
	if left > 0 {
		errs = append(errs, fmt.Errorf("%d more subscriptions were not removed: %w", left, ErrLeft))
	}
	return removed, errors.Join(errs...)
}
