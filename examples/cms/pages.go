package cms

import (
	"context"

	"github.com/carillon-go/carillon"
)

// pageCache keeps the pages that were asked for, and the list of all, until an
// event says that they have changed.
type pageCache struct {
	store  *store
	bySlug memo[string, page]
	list   memo[struct{}, []page] // one entry: all pages, by ID
}

// load fills the cache, so that the first visitor of an instance finds it warm.
func (c *pageCache) load(ctx context.Context) error {
	return c.bySlug.fill(func() (map[string]page, error) {
		all, err := c.store.pages(ctx)
		if err != nil {
			return nil, err
		}
		m := make(map[string]page, len(all))
		for _, p := range all {
			m[p.Slug] = p
		}
		return m, nil
	})
}

// page returns the page at an address, and whether it was in the cache.
func (c *pageCache) page(ctx context.Context, slug string) (page, bool, error) {
	if !possibleSlug(slug) { // nothing that could fill the cache with nonsense
		return page{}, false, errNotFound
	}
	return c.bySlug.get(ctx, slug, func(ctx context.Context) (page, error) { return c.store.page(ctx, slug) })
}

// all returns all pages in their order, and whether they were in the cache.
func (c *pageCache) all(ctx context.Context) ([]page, bool, error) {
	return c.list.get(ctx, struct{}{}, c.store.pages)
}

// subscribe keeps the cache in step. The local raise of the instance that
// publishes comes this way too.
func (c *pageCache) subscribe(b *carillon.Broker, e events) {
	e.page.OnRaised(b, func(_ context.Context, r carillon.Raised[PageChanged]) {
		c.bySlug.drop(r.Parameter.Slug, r.Parameter.Was)
		c.list.clear()
	})
	e.page.OnMissed(b, func(context.Context, carillon.Missed) {
		c.bySlug.clear()
		c.list.clear()
	})
}
