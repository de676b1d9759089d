package sqlsite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/site"
)

// A view is what one statement saw of the members.
type view struct {
	site.Snapshot
	sites site.Revision // of the last change to sites
}

// Snapshot implements [site.Database].
func (d *Database) Snapshot(ctx context.Context, self site.StreamID, sites []site.ID) (site.Snapshot, error) {
	var snap site.Snapshot
	err := d.run(ctx, fmt.Sprintf("read a snapshot as %v", self), func(ctx context.Context, c *conn) error {
		return c.read(ctx, func() error {
			ids := slices.Repeat([]string{"?"}, len(sites))
			args := []any{self[:]}
			for i := range sites {
				args = append(args, sites[i][:])
			}
			which := `m.stream_id = ?`
			if len(sites) > 0 {
				which += ` OR m.state = ` + strconv.Itoa(int(site.MemberOpen)) + ` AND m.site_id IN (` + strings.Join(ids, ", ") + `)`
			}
			v, err := d.readMembers(ctx, c, which, args...)
			if err != nil {
				return err
			}
			own := slices.IndexFunc(v.Members, func(m site.Member) bool { return m.Stream == self })
			if own < 0 {
				return finding("%w: it has no row of %v", site.ErrStale, self)
			}
			if m := v.Members[own]; m.State != site.MemberOpen {
				return finding("%w", site.ErrGone)
			} else if !slices.Contains(sites, m.Site) {
				v.Members = slices.Delete(v.Members, own, own+1)
			}
			if len(sites) > 0 {
				if v.Sites, err = d.readSites(ctx, c, `WHERE s.id IN (`+strings.Join(ids, ", ")+`)`, args[1:]...); err != nil {
					return err
				}
			}
			snap = v.Snapshot
			return nil
		})
	})
	return snap, err
}

// Changes implements [site.Database]. It is one round trip unless sites changed.
func (d *Database) Changes(ctx context.Context, since site.Revision) (site.Snapshot, error) {
	var snap site.Snapshot
	err := d.run(ctx, fmt.Sprintf("read the changes after revision %d", since), func(ctx context.Context, c *conn) error {
		which, args := `m.revision > ?`, []any{int64(since)}
		if d.dialect == MySQL { // with an argument its driver would prepare the statement first, two round trips more
			which, args = `m.revision > `+strconv.FormatInt(int64(since), 10), nil
		}
		var v view
		all := func() (err error) {
			if v, err = d.readMembers(ctx, c, which, args...); err != nil {
				return err
			}
			if v.Revision < since {
				return finding("%w: it is at revision %d; if it was restored from a backup, restart this instance", site.ErrStale, v.Revision)
			}
			return nil
		}
		if err := all(); err != nil {
			return err
		}
		if v.sites > since {
			if err := c.read(ctx, func() (err error) {
				if err := all(); err != nil {
					return err
				}
				v.Sites, err = d.readSites(ctx, c, "")
				return err
			}); err != nil {
				return err
			}
		}
		snap = v.Snapshot
		return nil
	})
	return snap, err
}

// readMembers reads the counters and the members that which picks, in one
// statement: what it returns belongs together even outside of a transaction.
func (d *Database) readMembers(ctx context.Context, c *conn, which string, args ...any) (view, error) {
	rows, err := c.query(ctx, `SELECT c.revision, c.site_revision, `+d.dialect.nowMS()+`, `+d.dialect.standby()+`,
			m.stream_id, m.site_id, m.server, m.application, m.version, m.role, m.addresses, m.state,
			m.mark_frame, m.mark_next, m.verifies, m.signs, m.carries, m.has_providers, m.uses_providers, m.witness, m.joined_ms, m.seen_ms, m.lease_until_ms
		FROM {counters} c LEFT JOIN {members} m ON (`+which+`) WHERE c.id = 1`, args...)
	if err != nil {
		return view{}, err
	}
	defer rows.Close()
	var v view
	found := false
	for rows.Next() {
		var now int64
		var standby string
		var stream, in, witness []byte
		var server, application, version, addresses, providers, uses sql.NullString
		var role, state, frame, next, verifies, signs, carries, joined, seen, lease sql.NullInt64
		if err := rows.Scan(&v.Revision, &v.sites, &now, &standby,
			&stream, &in, &server, &application, &version, &role, &addresses, &state,
			&frame, &next, &verifies, &signs, &carries, &providers, &uses, &witness, &joined, &seen, &lease); err != nil {
			return view{}, err
		}
		if isStandby(standby) {
			return view{}, finding("%w: the server is a replica or read-only", site.ErrStale)
		}
		found = true
		v.Now = time.UnixMilli(now)
		if stream == nil { // no member matched
			continue
		}
		m := site.Member{
			Server:      server.String,
			Application: application.String,
			Version:     version.String,
			Role:        site.Role(role.Int64),
			Addresses:   decodeAddresses(addresses.String),
			State:       site.MemberState(state.Int64),
			Mark:        site.Mark{Frame: uint64(frame.Int64), Next: uint64(next.Int64)},
			Verifies:    uint64(max(0, verifies.Int64)),
			Signs:       uint64(max(0, signs.Int64)),
			Carries:     uint64(max(0, carries.Int64)),
			Providers:   decodeNames(providers.String),
			Uses:        decodeNames(uses.String),
			Joined:      time.UnixMilli(joined.Int64),
			Seen:        time.UnixMilli(seen.Int64),
			Lapsed:      lease.Int64 < now,
		}
		if len(stream) != len(m.Stream) || len(in) != len(m.Site) {
			return view{}, finding("a member row has IDs of %d and %d bytes", len(stream), len(in))
		}
		m.Stream, m.Site = site.StreamID(stream), site.ID(in)
		copy(m.Witness[:], witness)
		if m.Mark.Check() != nil {
			// Whoever wrote that, everybody would miss what never was.
			m.Mark = site.Mark{}
		}
		v.Members = append(v.Members, m)
	}
	if err := rows.Err(); err != nil {
		return view{}, err
	}
	if !found {
		return view{}, errDamaged
	}
	return v, nil
}
