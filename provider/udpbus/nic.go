package udpbus

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// nic is what we know of a network interface.
type nic struct {
	name  string
	index int
	mtu   int // bytes
	flags net.Flags
	addrs []netip.Prefix // each with its own address, not that of the network
}

// place is a network interface and the address in it that we use. The zero place is all
// interfaces.
type place struct {
	name  string
	index int
	mtu   int
	local netip.Prefix
}

func (w place) all() bool { return w.index == 0 }

// placeError says where something went wrong: on an interface, or at one of its
// addresses.
type placeError struct {
	at  string
	err error
}

func (e *placeError) Error() string { return e.at + ": " + e.err.Error() }
func (e *placeError) Unwrap() error { return e.err }

// errAway marks an interface that exists, or existed, and cannot be used now.
var errAway = errors.New("the interface is down")

// systemInterfaces returns the interfaces of this machine.
func systemInterfaces() ([]nic, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	nics := make([]nic, 0, len(interfaces))
	for _, i := range interfaces {
		n := nic{name: i.Name, index: i.Index, mtu: i.MTU, flags: i.Flags}
		addrs, err := i.Addrs()
		if err != nil {
			continue // gone between the two calls
		}
		for _, a := range addrs {
			if ipNet, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(ipNet.IP); ok {
					ones, _ := ipNet.Mask.Size()
					n.addrs = append(n.addrs, netip.PrefixFrom(ip.Unmap(), ones))
				}
			}
		}
		nics = append(nics, n)
	}
	return nics, nil
}

// routeTo returns the address that the system would send from. Nothing is sent.
func routeTo(to netip.AddrPort) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone(""), nil
}

// choose returns where to listen and send now. It is asked again and again, because
// interfaces come and go and change their addresses.
func (p *Provider) choose() (place, error) {
	if p.cfg.Mode == Unicast && p.cfg.Interface == "" {
		return place{}, nil
	}
	nics, err := p.interfaces()
	if err != nil {
		return place{}, err
	}
	n, addr, err := p.pick(nics)
	if err != nil {
		return place{}, err
	}
	const up = net.FlagUp | net.FlagRunning
	if n.flags&up != up {
		return place{}, &placeError{n.name, errAway}
	}
	local, ok := n.local(addr, p.cfg.v6(), p.cfg.Mode == Unicast)
	if !ok {
		family := "IPv4"
		if p.cfg.v6() {
			family = "IPv6"
		}
		return place{}, &placeError{n.name, fmt.Errorf("it has no %s address; its addresses: %s", family, list(n.addrs))}
	}
	where := place{name: n.name, index: n.index, mtu: n.mtu, local: local}
	if room := n.mtu - headerBytes(p.cfg.v6() || local.Addr().Is6()); p.cfg.MaxFrameBytes > room {
		return place{}, &placeError{n.name, fmt.Errorf("MaxFrameBytes is %d, but its MTU of %d leaves room for %d; set MaxFrameBytes to that or less",
			p.cfg.MaxFrameBytes, n.mtu, room)}
	}
	return where, nil
}

// headerBytes is what IP and UDP add to a datagram.
func headerBytes(v6 bool) int {
	if v6 {
		return 40 + 8
	}
	return 20 + 8
}

// pick returns the interface that is wanted, and the address in it that is, if
// a certain one is.
func (p *Provider) pick(nics []nic) (nic, netip.Addr, error) {
	if want := p.cfg.Interface; want != "" {
		if addr, err := netip.ParseAddr(want); err == nil {
			addr = addr.Unmap().WithZone("")
			if n, ok := holder(nics, addr); ok {
				return n, addr, nil
			}
			return nic{}, addr, &placeError{want, errors.New("no interface has this address; " + p.choices(nics))}
		}
		if i := slices.IndexFunc(nics, func(n nic) bool { return n.name == want }); i >= 0 {
			return nics[i], netip.Addr{}, nil
		}
		return nic{}, netip.Addr{}, &placeError{want, errors.New("no such interface; " + p.choices(nics))}
	}
	// A proxy or address translation before the site database makes the route one
	// that is not ours.
	if route := p.env.Route.Unmap().WithZone(""); route.IsValid() {
		if n, ok := holder(nics, route); ok {
			return n, route, nil
		}
	}
	addr, err := p.localAddr()
	if err == nil {
		if n, ok := holder(nics, addr); ok {
			return n, addr, nil
		}
		err = fmt.Errorf("no interface has the address %v that the system would send from", addr)
	}
	return nic{}, netip.Addr{}, fmt.Errorf("no interface leads there: %w; name one in Interface; %s", err, p.choices(nics))
}

func holder(nics []nic, addr netip.Addr) (nic, bool) {
	for _, n := range nics {
		for _, a := range n.addrs {
			if a.Addr() == addr {
				return n, true
			}
		}
	}
	return nic{}, false
}

// local returns the address of n to use: the wanted one if it is of the right family, else
// the first that is. With either, the family does not matter.
func (n nic) local(wanted netip.Addr, v6, either bool) (netip.Prefix, bool) {
	fits := func(a netip.Prefix) bool { return either || a.Addr().Is6() == v6 }
	for _, a := range n.addrs {
		if a.Addr() == wanted && fits(a) {
			return a, true
		}
	}
	for _, a := range n.addrs {
		if fits(a) {
			return a, true
		}
	}
	return netip.Prefix{}, false
}

// choices says which interfaces could be named.
func (p *Provider) choices(nics []nic) string {
	flag, what := net.FlagMulticast, "interfaces with multicast"
	switch p.cfg.Mode {
	case Broadcast:
		flag, what = net.FlagBroadcast, "interfaces with broadcast"
	case Unicast:
		flag, what = net.FlagUp, "interfaces"
	}
	var names []string
	for _, n := range nics {
		// Linux lets the loopback interface do both without saying so.
		if n.flags&net.FlagUp != 0 && n.flags&(flag|net.FlagLoopback) != 0 {
			names = append(names, n.name)
		}
	}
	if len(names) == 0 {
		return what + ": none is up"
	}
	return what + ": " + strings.Join(names, ", ")
}

func list(addrs []netip.Prefix) string {
	if len(addrs) == 0 {
		return "none"
	}
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// broadcast returns the address of everybody in the network of p.
func broadcast(p netip.Prefix) (netip.Addr, bool) {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, false
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b), true
}
