package sqlsite

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/site"
)

// ensure returns the site of this name and creates it if there is none. The counters' row, which the transaction
// locks first, makes those who come at the same time wait and then find it.
func (d *Database) ensure(ctx context.Context, c *conn, name string) (site.Site, error) {
	found, err := d.readSites(ctx, c, `WHERE s.name = ?`, name)
	if err != nil {
		return site.Site{}, err
	}
	if len(found) > 0 {
		return found[0], nil
	}
	var s site.Site
	err = c.write(ctx, func() error {
		rev, err := c.nextRevision(ctx)
		if err != nil {
			return err
		}
		found, err := d.readSites(ctx, c, `WHERE s.name = ?`, name)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			s = found[0]
			return nil
		}
		s = site.NewSite(name)
		if s.Generation, err = c.nextGeneration(ctx); err != nil {
			return err
		}
		if err := c.exec(ctx, `INSERT INTO {sites} (id, name, generation, mac_required, encryption_required, lowest_version, created_ms)
			VALUES (?, ?, ?, ?, ?, ?, ?)`,
			s.ID[:], s.Name, int64(s.Generation), bit(s.Floors.MACRequired), bit(s.Floors.EncryptionRequired), int64(s.Floors.Version), rev.now); err != nil {
			return err
		}
		s.Keys[0].Changed = s.Generation
		if err := d.insertKey(ctx, c, s.ID, s.Keys[0], rev); err != nil {
			return err
		}
		return c.exec(ctx, `UPDATE {counters} SET site_revision = ? WHERE id = 1`, rev.number)
	})
	return s, err
}

// insertKey adds a key to a site.
func (d *Database) insertKey(ctx context.Context, c *conn, s site.ID, k site.Key, rev revision) error {
	return c.exec(ctx, `INSERT INTO {keys} (site_id, key_id, state, suite, wire_version, secret, created_ms, changed_ms, changed_generation)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		s[:], int64(k.ID), int64(k.State), int64(k.Suite), int64(k.Version), d.sealSecret(s, k), rev.now, rev.now, int64(k.Changed))
}

// nextGeneration takes the next generation. The counters' row is locked already,
// see [conn.nextRevision].
func (c *conn) nextGeneration(ctx context.Context) (generation uint64, err error) {
	if err := c.exec(ctx, `UPDATE {counters} SET generation = generation + 1 WHERE id = 1`); err != nil {
		return 0, err
	}
	err = c.queryRow(ctx, `SELECT generation FROM {counters} WHERE id = 1`).Scan(&generation)
	return generation, err
}

// ChangeSite implements [site.Database].
func (d *Database) ChangeSite(ctx context.Context, next site.Site) (site.Site, error) {
	var s site.Site
	err := d.run(ctx, fmt.Sprintf("change site %q from generation %d", next.Name, next.Generation), func(ctx context.Context, c *conn) error {
		return c.write(ctx, func() error {
			rev, err := c.nextRevision(ctx)
			if err != nil {
				return err
			}
			found, err := d.readSites(ctx, c, `WHERE s.id = ?`, next.ID[:])
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return finding("there is no site %v", next.ID)
			}
			old := found[0]
			if old.Generation != next.Generation {
				return finding("%w: it has generation %d", site.ErrConflict, old.Generation)
			}
			if err := site.CheckChange(old, next); err != nil {
				return finding("%w", err)
			}
			s, err = d.storeChange(ctx, c, old, next, rev)
			return err
		})
	})
	return s, err
}

// storeChange stores what next has in place of old, and returns what the site is then.
func (d *Database) storeChange(ctx context.Context, c *conn, old, next site.Site, rev revision) (site.Site, error) {
	s := old
	s.Keys, s.Floors = slices.Clone(next.Keys), next.Floors
	var err error
	if s.Generation, err = c.nextGeneration(ctx); err != nil {
		return site.Site{}, err
	}
	for i := range s.Keys {
		k := &s.Keys[i]
		if !k.Until.IsZero() {
			k.Until = time.UnixMilli(k.Until.UnixMilli())
		}
		if i >= len(old.Keys) {
			k.Changed = s.Generation
			if err := d.insertKey(ctx, c, s.ID, *k, rev); err != nil {
				return site.Site{}, err
			}
			continue
		}
		was := old.Keys[i]
		k.Changed = was.Changed
		if was.State == k.State && was.Until.Equal(k.Until) {
			continue
		}
		k.Changed = s.Generation
		set, args := `state = ?, until_ms = ?, changed_ms = ?, changed_generation = ?`, []any{int64(k.State), untilMS(k.Until), rev.now, int64(k.Changed)}
		if k.State.Ended() {
			k.Secret = site.Secret{}
			set, args = set+`, secret = ?`, append(args, []byte{})
		}
		if err := c.exec(ctx, `UPDATE {keys} SET `+set+` WHERE site_id = ? AND key_id = ?`, append(args, s.ID[:], int64(k.ID))...); err != nil {
			return site.Site{}, err
		}
	}
	if !old.Transports.Equal(next.Transports) {
		s.Transports = next.Transports.Clone()
		s.Transports.Changed = s.Generation
		text, err := encodeTransports(s.Transports)
		if err != nil {
			return site.Site{}, err
		}
		if err := c.exec(ctx, `UPDATE {sites} SET transports = ? WHERE id = ?`, text, s.ID[:]); err != nil {
			return site.Site{}, err
		}
		if !s.Transports.Until.IsZero() {
			s.Transports.Until = time.UnixMilli(s.Transports.Until.UnixMilli())
		}
	}
	if err := c.exec(ctx, `UPDATE {sites} SET generation = ?, mac_required = ?, encryption_required = ?, lowest_version = ? WHERE id = ?`,
		int64(s.Generation), bit(s.Floors.MACRequired), bit(s.Floors.EncryptionRequired), int64(s.Floors.Version), s.ID[:]); err != nil {
		return site.Site{}, err
	}
	return s, c.exec(ctx, `UPDATE {counters} SET site_revision = ? WHERE id = 1`, rev.number)
}

// untilMS is a time as it is stored: NULL for the zero Time.
func untilMS(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return new(t.UnixMilli())
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// readSites returns sites by name with their keys, all of them or those that
// where picks. It is one statement, so that keys and generation belong together.
func (d *Database) readSites(ctx context.Context, c *conn, where string, args ...any) ([]site.Site, error) {
	rows, err := c.query(ctx, `SELECT s.id, s.name, s.generation, s.mac_required, s.encryption_required, s.lowest_version, s.transports,
			k.key_id, k.state, k.suite, k.wire_version, k.secret, k.until_ms, k.changed_generation
		FROM {sites} s JOIN {keys} k ON k.site_id = s.id `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	byID := map[site.ID]*site.Site{}
	for rows.Next() {
		var id, secret []byte
		var s site.Site
		var k site.Key
		var until *int64
		var transports *string
		if err := rows.Scan(&id, &s.Name, &s.Generation, &s.Floors.MACRequired, &s.Floors.EncryptionRequired, &s.Floors.Version, &transports,
			&k.ID, &k.State, &k.Suite, &k.Version, &secret, &until, &k.Changed); err != nil {
			return nil, err
		}
		if len(id) != len(s.ID) {
			return nil, finding("the ID of site %q has %d bytes", s.Name, len(id))
		}
		s.ID = site.ID(id)
		if until != nil {
			k.Until = time.UnixMilli(*until)
		}
		if k.Secret, err = d.openSecret(s.ID, s.Name, k, secret); err != nil {
			return nil, err
		}
		if byID[s.ID] == nil {
			if s.Transports, err = decodeTransports(s.Name, transports); err != nil {
				return nil, err
			}
			byID[s.ID] = &s
		}
		byID[s.ID].Keys = append(byID[s.ID].Keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	sites := make([]site.Site, 0, len(byID))
	for _, s := range byID {
		slices.SortFunc(s.Keys, func(a, b site.Key) int { return int(int64(a.ID) - int64(b.ID)) })
		sites = append(sites, *s)
	}
	slices.SortFunc(sites, func(a, b site.Site) int { return strings.Compare(a.Name, b.Name) })
	return sites, nil
}

// ClientAddr implements [site.Database]. Over a Unix socket, and for SQLite,
// it is the loopback address.
func (d *Database) ClientAddr(ctx context.Context) (netip.Addr, error) {
	const tried = "read this client's address"
	var host string
	err := d.run(ctx, tried, func(ctx context.Context, c *conn) error {
		switch d.dialect {
		case PostgreSQL:
			return c.queryRow(ctx, `SELECT COALESCE(host(inet_client_addr()), '')`).Scan(&host)
		case MySQL:
			if err := c.queryRow(ctx, `SELECT USER()`).Scan(&host); err != nil {
				return err
			}
			host = host[strings.LastIndexByte(host, '@')+1:] // "user@host"
		}
		return nil
	})
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := parseHost(ctx, host, net.DefaultResolver.LookupNetIP)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("sqlsite: %s: %w", tried, err)
	}
	return addr, nil
}

// parseHost turns a server's name for its client into an address. MySQL looks
// the address up in the DNS unless skip_name_resolve is set, and accepts only a name that leads back to it, so
// looking up the name finds the address again.
func parseHost(ctx context.Context, host string, lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)) (netip.Addr, error) {
	if host == "" || host == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap(), nil
	}
	addrs, err := lookup(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("the server knows this client as %q: %w; configure the address to advertise, or set skip_name_resolve on the server", host, err)
	}
	for _, a := range addrs {
		if a.IsValid() {
			return a.Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the server knows this client as %q, which has no address; configure the address to advertise", host)
}
