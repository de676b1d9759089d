package sqlsite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/site"
)

// tombstone is how long a closed row stays.
const tombstone = 24 * time.Hour

// A revision is the number that a transaction gave its changes, and when.
type revision struct {
	number int64
	now    int64 // milliseconds since 1970 by the database's clock
}

// nextRevision takes the next revision. Its row stays locked until the transaction ends, so
// revisions become visible in their order: who has read one has read every lower one. It comes first in every
// transaction that changes sites or members, so that these wait here and nowhere else.
func (c *conn) nextRevision(ctx context.Context) (revision, error) {
	if err := c.exec(ctx, `UPDATE {counters} SET revision = revision + 1 WHERE id = 1`); err != nil {
		return revision{}, err
	}
	var r revision
	// A statement of its own: its clock is read after the lock was taken.
	err := c.queryRow(ctx, `SELECT revision, `+c.site.dialect.nowMS()+` FROM {counters} WHERE id = 1`).Scan(&r.number, &r.now)
	if errors.Is(err, sql.ErrNoRows) {
		err = errDamaged
	}
	return r, err
}

// ms rounds up, so that no lease is nothing.
func ms(d time.Duration) int64 {
	n := d.Milliseconds()
	if d%time.Millisecond > 0 {
		n++
	}
	return n
}

// errUnchanged ends a transaction that has nothing to change.
var errUnchanged = &findingError{errors.New("nothing to change")}

// Join implements [site.Database].
func (d *Database) Join(ctx context.Context, m site.Member, lease time.Duration) error {
	if err := m.Check(); err != nil {
		return err
	}
	if err := site.CheckLease(lease); err != nil {
		return err
	}
	addresses, err := encodeAddresses(m.Addresses)
	if err != nil {
		return err
	}
	providers, err := encodeNames(m.Providers)
	if err != nil {
		return err
	}
	uses, err := encodeNames(m.Uses)
	if err != nil {
		return err
	}
	return d.run(ctx, fmt.Sprintf("join as %v", m.Stream), func(ctx context.Context, c *conn) error {
		return c.write(ctx, func() error {
			rev, err := c.nextRevision(ctx)
			if err != nil {
				return err
			}
			var sites, open, taken int
			if err := c.queryRow(ctx, `SELECT
					(SELECT COUNT(*) FROM {sites} WHERE id = ?),
					(SELECT COUNT(*) FROM {members} WHERE site_id = ? AND state = ?),
					(SELECT COUNT(*) FROM {members} WHERE stream_id = ?)`,
				m.Site[:], m.Site[:], int64(site.MemberOpen), m.Stream[:]).Scan(&sites, &open, &taken); err != nil {
				return err
			}
			switch {
			case sites == 0:
				return finding("there is no site %v; EnsureSite creates one", m.Site)
			case taken > 0:
				return finding("the stream has a row already")
			case open >= d.maxMembers:
				return finding("%w: %d rows are open; reap those of dead instances, or raise the limit with WithMaxMembers", site.ErrFull, open)
			}
			return c.exec(ctx, `INSERT INTO {members} (stream_id, site_id, server, application, version, role, addresses, state,
					mark_frame, mark_next, verifies, signs, carries, has_providers, uses_providers, joined_ms, seen_ms, lease_until_ms, revision)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				m.Stream[:], m.Site[:], m.Server, m.Application, m.Version, int64(m.Role), addresses, int64(site.MemberOpen),
				int64(m.Mark.Frame), int64(m.Mark.Next), int64(m.Verifies), int64(m.Signs), int64(m.Carries), providers, uses, rev.now, rev.now, rev.now+ms(lease), rev.number)
		})
	})
}

// Renew implements [site.Database].
func (d *Database) Renew(ctx context.Context, self site.StreamID, r site.Renewal) error {
	if err := r.Check(); err != nil {
		return err
	}
	var witness any // nil leaves the column as it is
	if r.Witness != [16]byte{} {
		witness = r.Witness[:]
	}
	var addresses *string // nil leaves the column as it is
	if r.Addresses != nil {
		text, err := encodeAddresses(r.Addresses)
		if err != nil {
			return err
		}
		addresses = &text
	}
	var providers *string // nil leaves the column as it is
	if r.Providers != nil {
		text, err := encodeNames(r.Providers)
		if err != nil {
			return err
		}
		providers = &text
	}
	greater := d.greaterOf
	return d.run(ctx, fmt.Sprintf("renew %v", self), func(ctx context.Context, c *conn) error {
		return c.write(ctx, func() error {
			rev, err := c.nextRevision(ctx)
			if err != nil {
				return err
			}
			n, err := c.affect(ctx, `UPDATE {members} SET
					mark_frame = `+greater("mark_frame")+`, mark_next = `+greater("mark_next")+`,
					verifies = `+greater("verifies")+`, signs = `+greater("signs")+`, carries = `+greater("carries")+`,
					addresses = COALESCE(?, addresses), has_providers = COALESCE(?, has_providers), witness = COALESCE(?, witness), seen_ms = ?, lease_until_ms = ?, revision = ?
				WHERE stream_id = ? AND state = ?`,
				int64(r.Mark.Frame), int64(r.Mark.Next), int64(r.Verifies), int64(r.Signs), int64(r.Carries),
				addresses, providers, witness, rev.now, rev.now+ms(r.Lease), rev.number, self[:], int64(site.MemberOpen))
			if err == nil && n == 0 {
				return finding("%w", site.ErrGone)
			}
			return err
		})
	})
}

// greaterOf is an expression for the greater of column and an argument.
func (d *Database) greaterOf(column string) string {
	return d.dialect.greater() + "(" + column + ", ?)"
}

// Leave implements [site.Database].
func (d *Database) Leave(ctx context.Context, self site.StreamID, final site.Mark) error {
	if err := final.Check(); err != nil {
		return err
	}
	err := d.run(ctx, fmt.Sprintf("leave as %v", self), func(ctx context.Context, c *conn) error {
		return c.write(ctx, func() error {
			rev, err := c.nextRevision(ctx)
			if err != nil {
				return err
			}
			n, err := c.affect(ctx, `UPDATE {members} SET state = ?, mark_frame = `+d.greaterOf("mark_frame")+`, mark_next = `+d.greaterOf("mark_next")+`,
					closed_ms = ?, revision = ?
				WHERE stream_id = ? AND state = ?`,
				int64(site.MemberClosed), int64(final.Frame), int64(final.Next), rev.now, rev.number, self[:], int64(site.MemberOpen))
			if err != nil || n > 0 {
				return err
			}
			n, err = c.affect(ctx, `UPDATE {members} SET mark_frame = ?, mark_next = `+d.greaterOf("mark_next")+`, revision = ?
				WHERE stream_id = ? AND state = ? AND mark_frame < ?`,
				int64(final.Frame), int64(final.Next), rev.number, self[:], int64(site.MemberReaped), int64(final.Frame))
			if err == nil && n == 0 {
				return errUnchanged
			}
			return err
		})
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// Reap implements [site.Database].
func (d *Database) Reap(ctx context.Context, grace time.Duration) ([]site.StreamID, error) {
	if grace < 0 {
		return nil, fmt.Errorf("sqlsite: reap: the grace %v is negative", grace)
	}
	const (
		lapsed = `state = ? AND lease_until_ms < ?`
		ended  = `state <> ? AND closed_ms < ?`
		open   = int64(site.MemberOpen)
	)
	var reaped []site.StreamID
	err := d.run(ctx, "reap", func(ctx context.Context, c *conn) error {
		reaped = nil
		// Mostly there is nothing to do, which a read finds out without locking anybody.
		var now int64
		var todo int
		if err := c.queryRow(ctx, `SELECT `+d.dialect.nowMS()).Scan(&now); err != nil {
			return err
		}
		if err := c.queryRow(ctx, `SELECT COUNT(*) FROM {members} WHERE `+lapsed+` OR `+ended,
			open, now-ms(grace), open, now-ms(tombstone)).Scan(&todo); err != nil || todo == 0 {
			return err
		}
		return c.write(ctx, func() error {
			rev, err := c.nextRevision(ctx)
			if err != nil {
				return err
			}
			if reaped, err = c.streams(ctx, `SELECT stream_id FROM {members} WHERE `+lapsed, open, rev.now-ms(grace)); err != nil {
				return err
			}
			if err := c.exec(ctx, `UPDATE {members} SET state = ?, closed_ms = ?, revision = ? WHERE `+lapsed,
				int64(site.MemberReaped), rev.now, rev.number, open, rev.now-ms(grace)); err != nil {
				return err
			}
			return c.exec(ctx, `DELETE FROM {members} WHERE `+ended, open, rev.now-ms(tombstone))
		})
	})
	if err != nil {
		return nil, err
	}
	return reaped, nil
}

func (c *conn) streams(ctx context.Context, query string, args ...any) ([]site.StreamID, error) {
	rows, err := c.query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var streams []site.StreamID
	for rows.Next() {
		var id []byte
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		if len(id) != len(site.StreamID{}) {
			return nil, finding("a stream ID has %d bytes", len(id))
		}
		streams = append(streams, site.StreamID(id))
	}
	return streams, rows.Err()
}

func encodeAddresses(addresses map[string][]string) (string, error) {
	if len(addresses) == 0 {
		return "{}", nil
	}
	b, err := json.Marshal(addresses)
	return string(b), err
}

// decodeAddresses returns nil for text that is not what [encodeAddresses] wrote or that
// [site.Renewal.Check] would refuse: a row that somebody spoiled must not keep all instances from
// reading the others.
func decodeAddresses(text string) map[string][]string {
	var addresses map[string][]string
	if json.Unmarshal([]byte(text), &addresses) != nil {
		return nil
	}
	if (site.Renewal{Addresses: addresses, Lease: 1}).Check() != nil {
		return nil
	}
	return addresses
}

func encodeNames(names []string) (string, error) {
	if len(names) == 0 {
		return "[]", nil
	}
	b, err := json.Marshal(names)
	return string(b), err
}

// decodeNames returns nil for text that is not what [encodeNames] wrote or that
// [site.Renewal.Check] would refuse, like [decodeAddresses].
func decodeNames(text string) []string {
	var names []string
	if json.Unmarshal([]byte(text), &names) != nil || (site.Renewal{Providers: names, Lease: 1}).Check() != nil || len(names) == 0 {
		return nil
	}
	return names
}
