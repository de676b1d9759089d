package cms

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// raiseTimeout bounds how long an editor waits when the network is congested.
const raiseTimeout = 5 * time.Second

// An announcer raises the events of the site.
type announcer interface {
	pageChanged(context.Context, PageChanged) error
	linkChanged(context.Context, LinkChanged) error
	workflowChanged(context.Context, WorkflowChanged) error
}

// A publisher changes the content: first the database, then, once that is
// committed, the events. The other way round, another instance could read the
// old state after it has heard of the new one.
type publisher struct {
	store    *store
	instance int
	announce announcer
}

// An untoldError reports that a change is committed but could not be announced.
type untoldError struct {
	slug string
	err  error
}

func (e *untoldError) Error() string {
	return fmt.Sprintf("announce the change of %q: %v", e.slug, e.err)
}
func (e *untoldError) Unwrap() error { return e.err }

func (p *publisher) publish(ctx context.Context, slug, title, body string, revision int64) error {
	c, err := p.store.publish(ctx, slug, title, body, revision, p.instance)
	if err != nil {
		return err
	}
	return p.tell(ctx, c.page.Slug, p.page(c))
}

func (p *publisher) rename(ctx context.Context, slug, to string) error {
	c, err := p.store.rename(ctx, slug, to, p.instance)
	if err != nil || c.was == c.page.Slug {
		return err
	}
	return p.tell(ctx, c.page.Slug, p.page(c), func(ctx context.Context) error {
		return p.announce.linkChanged(ctx, LinkChanged{Change: c.change, Page: c.page.ID, Slug: c.page.Slug})
	})
}

// notice writes on the notice board.
func (p *publisher) notice(ctx context.Context, now time.Time) error {
	c, err := p.store.notice(ctx, fmt.Sprintf("Notice board: a word from instance %d", p.instance), func(revision int64) string {
		return fmt.Sprintf("Instance %d posted this notice at %s. It is notice number %d.\n\n"+
			"It went the same way as any other change: written into the shared database, [announced by an event](/link/2), "+
			"and read again by whoever is asked for this page. If another instance still shows an older notice, it has not heard of this one; "+
			"the dashboard says whether it [missed](/link/5) it.",
			p.instance, now.Format("15:04:05.000"), revision)
	}, p.instance)
	if err != nil {
		return err
	}
	return p.tell(ctx, c.page.Slug, p.page(c))
}

func (p *publisher) saveDraft(ctx context.Context, pg page, title, body string) error {
	change, err := p.store.saveDraft(ctx, pg.ID, title, body, p.instance)
	if err != nil {
		return err
	}
	return p.tell(ctx, pg.Slug, p.work(pg, change, stateDraft))
}

func (p *publisher) move(ctx context.Context, pg page, from, to state) error {
	change, err := p.store.move(ctx, pg.ID, from, to, p.instance)
	if err != nil {
		return err
	}
	return p.tell(ctx, pg.Slug, p.work(pg, change, to))
}

// discard ends the work on a page, whether it is a draft or in review.
func (p *publisher) discard(ctx context.Context, pg page) error {
	err := p.move(ctx, pg, stateDraft, statePublished)
	if e, ok := errors.AsType[*stateError](err); ok && e.is == stateReview {
		err = p.move(ctx, pg, stateReview, statePublished)
	}
	return err
}

func (p *publisher) approve(ctx context.Context, pg page) error {
	c, err := p.store.approve(ctx, pg.ID, p.instance)
	if err != nil {
		return err
	}
	return p.tell(ctx, c.page.Slug, p.page(c), p.work(c.page, c.change, statePublished))
}

func (p *publisher) page(c committed) func(context.Context) error {
	e := PageChanged{Change: c.change, Page: c.page.ID, Slug: c.page.Slug, Revision: c.page.Revision}
	if c.was != c.page.Slug {
		e.Was = c.was
	}
	return func(ctx context.Context) error { return p.announce.pageChanged(ctx, e) }
}

func (p *publisher) work(pg page, change int64, to state) func(context.Context) error {
	e := WorkflowChanged{Change: change, Page: pg.ID, Slug: pg.Slug, State: to.Word()}
	return func(ctx context.Context) error { return p.announce.workflowChanged(ctx, e) }
}

// tell raises the events of one committed change. It goes on when the editor
// has closed the browser, and tries all of them even if one fails.
func (p *publisher) tell(ctx context.Context, slug string, raise ...func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), raiseTimeout)
	defer cancel()
	var errs []error
	for _, fn := range raise {
		errs = append(errs, fn(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return &untoldError{slug, err}
	}
	return nil
}
