//go:build linux

package database

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/keyring"
	"github.com/carillon-go/carillon/site/sqlsite"
)

const (
	rotatePoll     = 200 * time.Millisecond
	rotatePatience = 20 * time.Second // with an instance that was killed
)

// Rotate rotates the key of a site, from this process, to the end. Its suite becomes one that encrypts, or if it does, that of a new site.
func (d *Database) Rotate(ctx context.Context, siteName string, overlap time.Duration) error {
	return d.use(func(db *sqlsite.Database) error {
		active, err := activeKey(ctx, db, siteName)
		if err != nil {
			return err
		}
		suite := site.SuiteAES256GCM
		if active.Suite == suite {
			suite = site.DefaultSuite()
		}
		_, err = keyring.Rotate(ctx, db, siteName, keyring.Options{
			Suite: suite, Overlap: overlap, Poll: rotatePoll, Force: true, Patience: rotatePatience,
		})
		return err
	})
}

// Compromise declares the active key of a site compromised.
func (d *Database) Compromise(ctx context.Context, siteName string) error {
	return d.use(func(db *sqlsite.Database) error {
		active, err := activeKey(ctx, db, siteName)
		if err == nil {
			_, err = keyring.RevokeNow(ctx, db, siteName, []site.KeyID{active.ID})
		}
		return err
	})
}

// use opens the database in this process for a while.
func (d *Database) use(f func(*sqlsite.Database) error) error {
	pool, err := sql.Open(d.Driver, d.own)
	if err != nil {
		return err
	}
	defer pool.Close()
	db, err := sqlsite.New(pool)
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db)
}

func activeKey(ctx context.Context, db *sqlsite.Database, siteName string) (site.Key, error) {
	sites, err := db.Sites(ctx)
	if err != nil {
		return site.Key{}, err
	}
	i := slices.IndexFunc(sites, func(s site.Site) bool { return s.Name == siteName })
	if i < 0 {
		return site.Key{}, fmt.Errorf("database: there is no site %q", siteName)
	}
	return sites[i].Active(), nil
}
