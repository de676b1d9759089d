package cms

import (
	"context"

	"github.com/carillon-go/carillon"
)

// workflowCache keeps the work in progress on each page, also that there is
// none, until an event says that it has changed.
type workflowCache struct {
	store  *store
	byPage memo[int64, work]
}

func (c *workflowCache) load(ctx context.Context) error {
	return c.byPage.fill(func() (map[int64]work, error) {
		pages, err := c.store.pages(ctx)
		if err != nil {
			return nil, err
		}
		works, err := c.store.works(ctx)
		if err != nil {
			return nil, err
		}
		m := make(map[int64]work, len(pages))
		for _, p := range pages {
			m[p.ID] = work{Page: p.ID}
		}
		for _, w := range works {
			m[w.Page] = w
		}
		return m, nil
	})
}

// work returns the work in progress on a page, and whether it was in the cache.
func (c *workflowCache) work(ctx context.Context, page int64) (work, bool, error) {
	return c.byPage.get(ctx, page, func(ctx context.Context) (work, error) { return c.store.work(ctx, page) })
}

func (c *workflowCache) subscribe(b *carillon.Broker, e events) {
	e.workflow.OnRaised(b, func(_ context.Context, r carillon.Raised[WorkflowChanged]) { c.byPage.drop(r.Parameter.Page) })
	e.workflow.OnMissed(b, func(context.Context, carillon.Missed) { c.byPage.clear() })
}
