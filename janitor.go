package carillon

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/janitor"
	"github.com/carillon-go/carillon/site"
)

const (
	cleanEvery   = 5 * time.Minute // between two looks at what ended instances left behind, with jitter
	cleanTimeout = time.Minute     // of one look, with what is removed
)

// CleaningStats is what this instance did about what ended instances left at a provider's
// service. One instance does it for the site, the one that has been there longest. All fields
// are 0 unless the provider is a [provider.Cleaner].
type CleaningStats struct {
	Looks    uint64 // how often what is at the service was held against the member rows
	Removed  uint64 // subscriptions that were removed because their instance is gone
	Failures uint64 // looks and removals that failed

	Found   int // subscriptions that the last look found
	Waiting int // of those, without a member row, so that they may go later
}

// cleaning is what clean does at one provider.
type cleaning struct {
	// Of clean.
	janitor *janitor.Janitor // nil while another instance does it
	of      provider.Cleaner // that it asks
	said    string           // the last problem that was logged

	looks, removed, failures atomic.Uint64
	found, waiting           atomic.Int64
}

func (c *cleaning) stats() CleaningStats {
	return CleaningStats{
		Looks: c.looks.Load(), Removed: c.removed.Load(), Failures: c.failures.Load(),
		Found: int(c.found.Load()), Waiting: int(c.waiting.Load()),
	}
}

// cleaner returns the provider if it is in use and instances leave something at its service, and nil otherwise.
func (o *outlet) cleaner() provider.Cleaner {
	if !o.listening.Load() {
		return nil
	}
	c, _ := o.link.Load().provider.(provider.Cleaner)
	return c
}

// cleans reports whether there is a provider, in use or standing by, at whose service instances leave something.
func (b *Broker) cleans() bool {
	return slices.ContainsFunc(b.outs, func(o *outlet) bool {
		_, ok := o.link.Load().provider.(provider.Cleaner)
		return ok
	})
}

// clean removes what ended instances left at the services of providers, now and then, until followCtx ends.
func (b *Broker) clean() {
	timer := time.NewTimer(cleanIn())
	defer timer.Stop()
	for {
		select {
		case <-b.followCtx.Done():
			return
		case <-timer.C:
		}
		for _, o := range b.outs {
			b.cleanAt(o)
		}
		timer.Reset(cleanIn())
	}
}

func cleanIn() time.Duration { return cleanEvery*3/4 + rand.N(cleanEvery/2) }

// cleanAt does it at one provider, if there is something to do and it is this instance's turn.
func (b *Broker) cleanAt(o *outlet) {
	c, cleaner := &o.cleaning, o.cleaner()
	if cleaner == nil || !b.longestThere(o.name) {
		c.janitor = nil // what it has seen may be different when it is its turn again
		return
	}
	if c.janitor == nil || c.of != cleaner {
		c.janitor, c.of = janitor.New(cleaner, b.siteID, b.allRows, janitor.Grace(b.cfg.Lease)), cleaner
	}
	ctx, cancel := context.WithTimeout(b.followCtx, cleanTimeout)
	defer cancel()
	findings, err := c.janitor.Look(ctx)
	if err == nil {
		c.looks.Add(1)
		waiting := 0
		for _, f := range findings {
			if f.Verdict == janitor.Unnamed {
				waiting++
			}
		}
		c.found.Store(int64(len(findings)))
		c.waiting.Store(int64(waiting))
		var removed []janitor.Finding
		removed, err = c.janitor.Clean(ctx, findings)
		c.removed.Add(uint64(len(removed)))
		for _, f := range removed {
			b.log.Info("removed what an instance that is gone left behind", keyProvider, o.name, slog.String("subscription", f.Subscription.Name), slog.String("why", f.Why()))
		}
	}
	if b.followCtx.Err() != nil {
		return // it is this instance that stops
	}
	text := ""
	if err != nil {
		c.failures.Add(1)
		if text = err.Error(); text != c.said {
			b.log.Warn("what instances that are gone left behind was not removed", keyProvider, o.name, keyError, err)
		}
	}
	c.said = text
}

// longestThere reports whether this one has the smallest stream, that is the oldest epoch, of the instances of this
// site that use the provider, or of all if none does. The others need not look then. Where two think
// so for a moment, both look, and what one has removed is no error for the other.
func (b *Broker) longestThere(name string) bool {
	var first, firstUser site.StreamID
	for _, m := range b.Members() {
		if m.Site != b.siteID {
			continue
		}
		first = firstStream(first, m.Stream)
		if len(m.Addresses[name]) > 0 {
			firstUser = firstStream(firstUser, m.Stream)
		}
	}
	return cmp.Or(firstUser, first) == b.self.Load().Stream
}

// firstStream returns the smaller of two streams, of which the zero one is none.
func firstStream(x, y site.StreamID) site.StreamID {
	if x == (site.StreamID{}) || bytes.Compare(y[:], x[:]) < 0 {
		return y
	}
	return x
}

// allRows reads all member rows at once, and makes sure that the answer is not older than what this
// instance has read, and knows it.
func (b *Broker) allRows(ctx context.Context) (snap site.Snapshot, err error) {
	b.mu.Lock()
	known := b.rows.revision
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	if snap, err = b.cfg.Database.Changes(ctx, 0); err != nil {
		return site.Snapshot{}, err
	}
	if snap.Revision < known {
		return site.Snapshot{}, fmt.Errorf("at revision %d the database is older than what was read from it before: %w", snap.Revision, site.ErrStale)
	}
	self := b.self.Load().Stream
	if !slices.ContainsFunc(snap.Members, func(m site.Member) bool { return m.Stream == self && m.State == site.MemberOpen }) {
		return site.Snapshot{}, errors.New("the row of this instance is not among them")
	}
	return snap, nil
}
