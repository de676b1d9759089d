package carillontest

import (
	"context"
	"net/netip"
	"time"

	"github.com/carillon-go/carillon/site"
)

// cut makes every call fail from now on.
func (c *connection) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
}

func (c *connection) err() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.off {
		return errCrashed
	}
	return nil
}

func (c *connection) EnsureSite(ctx context.Context, name string) (site.Site, error) {
	if err := c.err(); err != nil {
		return site.Site{}, err
	}
	return c.db.EnsureSite(ctx, name)
}

func (c *connection) Sites(ctx context.Context) ([]site.Site, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.db.Sites(ctx)
}

func (c *connection) ChangeSite(ctx context.Context, next site.Site) (site.Site, error) {
	if err := c.err(); err != nil {
		return site.Site{}, err
	}
	return c.db.ChangeSite(ctx, next)
}

func (c *connection) NextEpoch(ctx context.Context) (uint64, error) {
	if err := c.err(); err != nil {
		return 0, err
	}
	return c.db.NextEpoch(ctx)
}

func (c *connection) Join(ctx context.Context, m site.Member, lease time.Duration) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.db.Join(ctx, m, lease)
}

func (c *connection) Snapshot(ctx context.Context, self site.StreamID, sites []site.ID) (site.Snapshot, error) {
	if err := c.err(); err != nil {
		return site.Snapshot{}, err
	}
	return c.db.Snapshot(ctx, self, sites)
}

func (c *connection) Changes(ctx context.Context, since site.Revision) (site.Snapshot, error) {
	if err := c.err(); err != nil {
		return site.Snapshot{}, err
	}
	return c.db.Changes(ctx, since)
}

func (c *connection) Renew(ctx context.Context, self site.StreamID, r site.Renewal) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.db.Renew(ctx, self, r)
}

func (c *connection) Leave(ctx context.Context, self site.StreamID, final site.Mark) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.db.Leave(ctx, self, final)
}

func (c *connection) Reap(ctx context.Context, grace time.Duration) ([]site.StreamID, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.db.Reap(ctx, grace)
}

func (c *connection) ClientAddr(ctx context.Context) (netip.Addr, error) {
	if err := c.err(); err != nil {
		return netip.Addr{}, err
	}
	return c.db.ClientAddr(ctx)
}
