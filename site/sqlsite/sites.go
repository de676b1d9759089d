package sqlsite

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

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
		if err := c.exec(ctx, `INSERT INTO {sites} (id, name, generation, mac_required, encryption_required, lowest_version, created_ms)
			VALUES (?, ?, ?, ?, ?, ?, ?)`,
			s.ID[:], s.Name, int64(s.Generation), bit(s.Floors.MACRequired), bit(s.Floors.EncryptionRequired), int64(s.Floors.Version), rev.now); err != nil {
			return err
		}
		for _, k := range s.Keys {
			if err := c.exec(ctx, `INSERT INTO {keys} (site_id, key_id, state, suite, wire_version, secret, created_ms, changed_ms)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
				s.ID[:], int64(k.ID), int64(k.State), int64(k.Suite), int64(k.Version), k.Secret.Reveal(), rev.now, rev.now); err != nil {
				return err
			}
		}
		return c.exec(ctx, `UPDATE {counters} SET site_revision = ? WHERE id = 1`, rev.number)
	})
	return s, err
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
	rows, err := c.query(ctx, `SELECT s.id, s.name, s.generation, s.mac_required, s.encryption_required, s.lowest_version,
			k.key_id, k.state, k.suite, k.wire_version, k.secret
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
		if err := rows.Scan(&id, &s.Name, &s.Generation, &s.Floors.MACRequired, &s.Floors.EncryptionRequired, &s.Floors.Version,
			&k.ID, &k.State, &k.Suite, &k.Version, &secret); err != nil {
			return nil, err
		}
		if len(id) != len(s.ID) {
			return nil, finding("the ID of site %q has %d bytes", s.Name, len(id))
		}
		s.ID = site.ID(id)
		if k.Secret, err = site.NewSecret(secret); err != nil {
			return nil, finding("key %d of site %q: %w", k.ID, s.Name, err)
		}
		if byID[s.ID] == nil {
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
