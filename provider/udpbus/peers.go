package udpbus

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// lookupTimeout bounds looking up all names in Peers again.
const lookupTimeout = 10 * time.Second

// hasNames reports whether Peers holds names, which may come to mean other
// addresses.
func (p *Provider) hasNames() bool {
	return slices.ContainsFunc(p.cfg.Peers, func(peer string) bool {
		_, err := netip.ParseAddrPort(peer)
		return err != nil
	})
}

// resolve looks Peers up. It is called by Start, then by refreshPeers alone. A name without an address is logged, because its instance may
// not be there yet, and keeps the addresses that it had. The error is that of ctx.
func (p *Provider) resolve(ctx context.Context) error {
	var all []netip.AddrPort
	for _, peer := range p.cfg.Peers {
		if ap, err := netip.ParseAddrPort(peer); err == nil {
			all = append(all, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
			continue
		}
		host, port, _ := net.SplitHostPort(peer) // New has checked both
		n, _ := strconv.ParseUint(port, 10, 16)
		addrs, err := p.lookup(ctx, host)
		if ctx.Err() != nil {
			return fmt.Errorf("udp: look up peer %q: %w", peer, ctx.Err())
		}
		if err != nil {
			p.log.LogAttrs(p.ctx, slog.LevelWarn, "peer has no address, trying again later",
				slog.String(keyPeer, peer), slog.String(keyError, err.Error()))
			addrs = p.resolved[peer]
		}
		p.resolved[peer] = addrs
		for _, a := range addrs {
			all = append(all, netip.AddrPortFrom(a.Unmap(), uint16(n)))
		}
	}
	slices.SortFunc(all, func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
	all = slices.Compact(all) // each address gets one copy
	if len(all) > maxPeers {
		p.log.LogAttrs(p.ctx, slog.LevelWarn, "too many peers, the last ones hear nothing", slog.Int(keyPeers, len(all)))
		all = all[:maxPeers]
	}
	p.peers.Store(&all)
	return nil
}

// refreshPeers looks names up again until Close.
func (p *Provider) refreshPeers() {
	ticker := time.NewTicker(p.refresh)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(p.ctx, lookupTimeout)
		if err := p.resolve(ctx); err != nil && p.ctx.Err() == nil {
			p.log.LogAttrs(p.ctx, slog.LevelWarn, "looking up peers failed", slog.String(keyError, err.Error()))
		}
		cancel()
	}
}
