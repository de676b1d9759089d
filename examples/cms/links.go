package cms

import (
	"context"

	"github.com/carillon-go/carillon"
)

// linkMap keeps where permanent links lead, until an event says that one leads
// elsewhere.
type linkMap struct {
	store *store
	byID  memo[int64, string]
}

func (m *linkMap) load(ctx context.Context) error {
	return m.byID.fill(func() (map[int64]string, error) {
		all, err := m.store.pages(ctx)
		if err != nil {
			return nil, err
		}
		links := make(map[int64]string, len(all))
		for _, p := range all {
			links[p.ID] = p.Slug
		}
		return links, nil
	})
}

// resolve returns the current address of a page, and whether it was in the map.
func (m *linkMap) resolve(ctx context.Context, id int64) (slug string, hit bool, err error) {
	return m.byID.get(ctx, id, func(ctx context.Context) (string, error) { return m.store.address(ctx, id) })
}

func (m *linkMap) subscribe(b *carillon.Broker, e events) {
	e.link.OnRaised(b, func(_ context.Context, r carillon.Raised[LinkChanged]) { m.byID.drop(r.Parameter.Page) })
	e.link.OnMissed(b, func(context.Context, carillon.Missed) { m.byID.clear() })
}
