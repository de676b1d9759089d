package sqlsite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/carillon-go/carillon/site"
)

// ErrLive reports instances that run on a database, so that it is no copy that nobody
// uses yet.
var ErrLive = errors.New("sqlsite: instances are live in the database")

// WithLowestGeneration refuses a database in which the last change to any site has a
// generation below n, with [site.ErrRestored]. [Database.AcceptRestore] is how an operator says
// that it is the right one nevertheless. Kept outside of the database and raised after each change to
// keys, it notices a restored backup, in which keys that were revoked may be in use again.
func WithLowestGeneration(n uint64) Option {
	return func(d *Database) { d.lowestGeneration = n }
}

// checkGeneration returns [site.ErrRestored] if the database is below its floor.
func (d *Database) checkGeneration(ctx context.Context, c *conn) error {
	if d.lowestGeneration == 0 {
		return nil
	}
	var n uint64
	err := c.queryRow(ctx, `SELECT generation FROM {counters} WHERE id = 1`).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return errDamaged
	}
	if err == nil && n < d.lowestGeneration {
		return finding("%w: it has generation %d, and %d is the lowest to be accepted; if it is the right database and was restored from a backup, say so to it: carillon site accept-restore",
			site.ErrRestored, n, d.lowestGeneration)
	}
	return err
}

// afterRestore is what numbers jump by that must not repeat what was before a restore: more than
// were ever given out since the backup.
const afterRestore = 1 << 32

// AcceptRestore is an operator's word that the database was restored from a
// backup and is the right one nevertheless: epochs, generations and revisions jump above those that were given
// out since the backup, and above the generation given, which may be 0. Every key that verifies
// is revoked, because it may have been revoked before the restore, and every
// site gets a new active key. It returns the sites as they are then.
func (d *Database) AcceptRestore(ctx context.Context, above uint64) ([]site.Site, error) {
	var sites []site.Site
	err := d.run(ctx, "accept the restored database", func(ctx context.Context, c *conn) error {
		return c.write(ctx, func() error {
			rev, err := c.nextRevision(ctx)
			if err != nil {
				return err
			}
			if err := c.exec(ctx, `UPDATE {counters} SET epoch = epoch + ?, revision = revision + ?, generation = `+d.greaterOf("generation")+` + ? WHERE id = 1`,
				int64(afterRestore), int64(afterRestore), int64(above), int64(afterRestore)); err != nil {
				return err
			}
			rev.number += afterRestore
			if sites, err = d.readSites(ctx, c, ""); err != nil {
				return err
			}
			for i, s := range sites {
				next := s
				next.Keys = append([]site.Key{}, s.Keys...)
				for i := range next.Keys {
					if k := &next.Keys[i]; k.State.Verifies() {
						k.State = site.KeyRevoked
					}
				}
				// IDs that were used after the backup must not come again either.
				key := site.NewKey(s.NextKeyID()+1<<16, s.Active().Suite)
				key.State = site.KeyActive
				next.Keys = append(next.Keys, key)
				if sites[i], err = d.storeChange(ctx, c, s, next, rev); err != nil {
					return err
				}
			}
			// Whoever had read further before the restore reads all rows anew.
			return c.exec(ctx, `UPDATE {members} SET revision = ?`, rev.number)
		})
	})
	return sites, err
}

// Fork makes the site of this name, in a copy of a database, another site: with an ID and a key of
// its own, the floors it had, and no members. Instances of the original and of
// the copy then have nothing to do with each other. Rows of live instances are
// [ErrLive], unless force is said: in a copy they run out with their lease.
func (d *Database) Fork(ctx context.Context, name string, force bool) (site.Site, error) {
	var s site.Site
	err := d.run(ctx, "fork site "+name, func(ctx context.Context, c *conn) error {
		return c.write(ctx, func() error {
			rev, err := c.nextRevision(ctx)
			if err != nil {
				return err
			}
			found, err := d.readSites(ctx, c, `WHERE s.name = ?`, name)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return finding("there is no site %q", name)
			}
			old := found[0]
			var live int
			if err := c.queryRow(ctx, `SELECT COUNT(*) FROM {members} WHERE site_id = ? AND state = ? AND lease_until_ms >= ?`,
				old.ID[:], int64(site.MemberOpen), rev.now).Scan(&live); err != nil {
				return err
			}
			if live > 0 && !force {
				return finding("%w: %d of site %q", ErrLive, live, name)
			}
			s = site.Site{ID: site.NewID(), Name: name, Floors: old.Floors}
			if s.Generation, err = c.nextGeneration(ctx); err != nil {
				return err
			}
			key := site.NewKey(1, old.Active().Suite)
			key.State, key.Changed = site.KeyActive, s.Generation
			s.Keys = []site.Key{key}
			for _, change := range []struct {
				query string
				args  []any
			}{
				{`UPDATE {sites} SET id = ?, generation = ?, created_ms = ? WHERE id = ?`, []any{s.ID[:], int64(s.Generation), rev.now, old.ID[:]}},
				{`DELETE FROM {keys} WHERE site_id = ?`, []any{old.ID[:]}},
				{`DELETE FROM {members} WHERE site_id = ?`, []any{old.ID[:]}},
				{`UPDATE {counters} SET site_revision = ? WHERE id = 1`, []any{rev.number}},
			} {
				if err := c.exec(ctx, change.query, change.args...); err != nil {
					return err
				}
			}
			return d.insertKey(ctx, c, s.ID, key, rev)
		})
	})
	return s, err
}
