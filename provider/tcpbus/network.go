package tcpbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"github.com/carillon-go/carillon/provider"
)

// usual are the networks allowed when nothing is configured: private (RFC 1918,
// RFC 4193), shared by carriers and overlay networks (RFC 6598), loopback, link-local.
func usual() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("fc00::/7"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("fe80::/10"),
	}
}

// allowed returns the networks that c allows on a machine with these
// interface networks and this route to the site database.
func allowed(c Config, local []netip.Prefix, route netip.Addr) []netip.Prefix {
	if c.AllowNetworks != nil {
		return c.AllowNetworks
	}
	networks := usual()
	if !route.IsValid() {
		return networks
	}
	if i := slices.IndexFunc(local, func(n netip.Prefix) bool { return n.Addr() == route }); i >= 0 {
		return append(networks, local[i].Masked())
	}
	return append(networks, netip.PrefixFrom(route, route.BitLen()))
}

// contains reports whether a lies in one of networks.
func contains(networks []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// unmapped turns a network of IPv4-mapped IPv6 addresses, which contains none
// of the addresses that we compare, into the IPv4 network it means.
func unmapped(n netip.Prefix) netip.Prefix {
	if n.Addr().Is4In6() && n.Bits() >= 96 {
		return netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return n
}

// interfaces returns the addresses of this machine with their networks.
func interfaces() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("tcp: read the addresses of this machine: %w", err)
	}
	var local []netip.Prefix
	for _, a := range addrs {
		if n, err := netip.ParsePrefix(a.String()); err == nil {
			local = append(local, unmapped(n))
		}
	}
	return local, nil
}

// listen opens the listener and sets what Start sets before any goroutine runs. p.mu
// is held.
func (p *Provider) listen(ctx context.Context) error {
	local, err := interfaces()
	if err != nil {
		return err
	}
	route := p.env.Route.Unmap().WithZone("")
	mine := func(a netip.Addr) bool {
		return slices.ContainsFunc(local, func(n netip.Prefix) bool { return n.Addr() == a }) || a.IsLoopback()
	}
	at := p.cfg.Listen
	if at == "" {
		at = ":0"
		if route.IsValid() && mine(route) {
			at = net.JoinHostPort(p.env.Route.Unmap().String(), "0")
		} else {
			p.logLocked(slog.LevelWarn, "the route to the site database starts at no address of this machine; listening at all addresses, set Listen to choose",
				slog.Any("route", p.env.Route))
		}
	}
	lc := net.ListenConfig{
		KeepAliveConfig: p.keepAlive(),
		Control: func(_, _ string, c syscall.RawConn) error {
			return setUserTimeout(c, p.cfg.PeerTimeout) // accepted sockets inherit it
		},
	}
	lc.SetMultipathTCP(false) // its sockets take fewer options
	ln, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return fmt.Errorf("tcp: listen at %q: %w; choose another address with Listen", at, err)
	}
	p.ln = ln
	p.networks = allowed(p.cfg, local, route)
	bound := ln.Addr().(*net.TCPAddr).AddrPort()
	p.addrs, err = advertised(p.cfg, bound, local, route, p.networks)
	if err != nil {
		ln.Close()
		return err
	}
	for _, a := range p.addrs {
		if ap, err := netip.ParseAddrPort(a); err == nil && !contains(p.networks, ap.Addr()) {
			p.logLocked(slog.LevelWarn, "the advertised address is outside AllowNetworks, so others with the same settings will not dial it",
				slog.String(keyAddress, a))
		}
	}
	return nil
}

// maxAdvertised bounds the addresses in a member row; each one that does not
// answer costs others a DialTimeout.
const maxAdvertised = 4

// advertised returns what to tell others, who listen at bound.
func advertised(c Config, bound netip.AddrPort, local []netip.Prefix, route netip.Addr, networks []netip.Prefix) ([]string, error) {
	port := bound.Port()
	if c.Advertise != "" {
		host, p, err := net.SplitHostPort(c.Advertise)
		if err != nil {
			host, p = c.Advertise, "" // a host alone; an IPv6 address with or without brackets
			if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
				host = host[1 : n-1]
			}
		}
		if p == "" || p == "0" {
			p = strconv.Itoa(int(port))
		}
		if host == "" {
			return nil, provider.WrongSetting("tcp", "Advertise", "%q: write the host that others reach, with or without a port", c.Advertise)
		}
		return []string{net.JoinHostPort(host, p)}, nil
	}
	if !bound.Addr().IsUnspecified() {
		return []string{netip.AddrPortFrom(bound.Addr().Unmap(), port).String()}, nil
	}
	isLocal := slices.ContainsFunc(local, func(n netip.Prefix) bool { return n.Addr() == route })
	var addrs []string
	if route.IsValid() && (isLocal || c.Listen != "") {
		addrs = append(addrs, netip.AddrPortFrom(route, port).String())
		if isLocal {
			return addrs, nil
		}
	}
	// Link-local addresses mean nothing on another machine, loopback ones only
	// when there is nothing else.
	rank := func(a netip.Addr) int {
		switch {
		case a.IsLinkLocalUnicast():
			return 2
		case a.IsLoopback():
			return 1
		}
		return 0
	}
	candidates := slices.DeleteFunc(slices.Clone(local), func(n netip.Prefix) bool { return !contains(networks, n.Addr()) })
	slices.SortStableFunc(candidates, func(a, b netip.Prefix) int { return rank(a.Addr()) - rank(b.Addr()) })
	for _, n := range candidates {
		if len(addrs) == maxAdvertised || len(addrs) > 0 && rank(n.Addr()) > 0 {
			break
		}
		if bound.Addr().Is4() && !n.Addr().Is4() {
			continue
		}
		addrs = append(addrs, netip.AddrPortFrom(n.Addr(), port).String())
	}
	if len(addrs) == 0 {
		return nil, errors.New("tcp: no address of this machine lies in AllowNetworks; set Advertise to the address under which others reach it")
	}
	return addrs, nil
}
