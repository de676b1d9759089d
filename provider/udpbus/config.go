package udpbus

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/carillon-go/carillon/provider"
)

// Mode is how a datagram reaches the other instances.
type Mode string

// The zero Mode means Multicast.
const (
	Multicast Mode = "multicast" // one datagram to a group that all instances join
	Broadcast Mode = "broadcast" // one datagram to everybody in the subnet of the interface (IPv4)
	Unicast   Mode = "unicast"   // one datagram to each of Peers
)

// DefaultPort is used in every mode. It lies below the ports that systems hand
// out by themselves.
const DefaultPort = 24482

// DefaultGroup returns 239.255.67.82, an address in the part of the multicast range that
// is left to every organisation and stays within its site (RFC 2365, section 6.1).
func DefaultGroup() netip.Addr { return netip.AddrFrom4([4]byte{239, 255, 67, 82}) }

const (
	defaultFrameBytes = 1200
	localFrameBytes   = 65_000 // where no datagram leaves the machine: nearly what an MTU of 65,536 takes
	minFrameBytes     = 512
	maxFrameBytes     = 65507   // what one IPv4 datagram holds
	readBufferBytes   = 4 << 20 // asked of the kernel
	maxPeers          = 1024    // addresses that one frame is sent to in unicast mode
)

// Config says where datagrams go. The zero Config is multicast with everything at
// its default.
type Config struct {
	// Mode is Multicast, Broadcast or Unicast. Empty means Multicast.
	Mode Mode

	// Group is the multicast group, IPv4 or IPv6, the same in all instances. The
	// zero Addr means [DefaultGroup].
	Group netip.Addr

	// Port is that of the group or of the broadcast, the same in all instances. In
	// unicast mode it is the port listened at, another one for each instance on a
	// machine. 0 means [DefaultPort].
	Port int

	// Interface is the network interface to use, by its name, such as "eth0", or by one of
	// its addresses. Empty means the one that holds the local end of the route to the
	// site database, which is the loopback interface where the database is on this machine; and
	// where that is not known, the one that the system would send from. In
	// unicast mode empty means to listen at all addresses.
	Interface string

	// TTL is how many routers a multicast may pass, plus one. 0 means 1: this network
	// only. At most 255.
	TTL int

	// Peers lists host:port of the instances in unicast mode; this instance itself may be
	// among them. A name that stands for several addresses means all of them, and
	// names are looked up again every 30 s.
	Peers []string

	// MaxFrameBytes bounds one frame, which is one datagram. More carries more
	// events at once, but every network on the way must take it whole: with
	// 1,500-byte Ethernet that is 1,472, with jumbo frames 8,972, on the loopback
	// interface 65,507, which is the most. At least 512. 0 means 1,200, which passes everywhere; or
	// 65,000 where Interface names the loopback interface or one of its addresses, since
	// all instances are on this machine then.
	MaxFrameBytes int
}

// withDefaults returns a copy of c with every zero field replaced, or an error that names
// the field and what it may be.
func (c Config) withDefaults() (Config, error) {
	switch c.Mode {
	case "":
		c.Mode = Multicast
	case Multicast, Broadcast, Unicast:
	default:
		return c, provider.WrongSetting("udp", "Mode", "%q: want %q, %q or %q", c.Mode, Multicast, Broadcast, Unicast)
	}
	if !c.Group.IsValid() {
		c.Group = DefaultGroup()
	}
	if c.Group = c.Group.Unmap(); !c.Group.IsMulticast() || c.Group.Zone() != "" {
		return c, provider.WrongSetting("udp", "Group", "%v: not a multicast address; take one like %v, or ff15::4352 for IPv6, and name the interface in Interface", c.Group, DefaultGroup())
	}
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if c.Port < 0 || c.Port > 65535 {
		return c, provider.WrongSetting("udp", "Port", "%d: want 1 to 65535, or 0 for %d", c.Port, DefaultPort)
	}
	if c.TTL == 0 {
		c.TTL = 1
	}
	if c.TTL < 0 || c.TTL > 255 {
		return c, provider.WrongSetting("udp", "TTL", "%d: want 1 to 255, or 0 for 1", c.TTL)
	}
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = defaultFrameBytes
		if c.local() {
			c.MaxFrameBytes = localFrameBytes
		}
	}
	if c.MaxFrameBytes < minFrameBytes || c.MaxFrameBytes > maxFrameBytes {
		return c, provider.WrongSetting("udp", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes, defaultFrameBytes)
	}
	return c.checkPeers()
}

// local reports whether Interface says that no datagram leaves the machine. An interface that is
// chosen when the Provider starts is too late for that: how long frames are is asked before.
func (c Config) local() bool {
	if a, err := netip.ParseAddr(c.Interface); err == nil {
		return a.IsLoopback()
	}
	ifi, err := net.InterfaceByName(c.Interface)
	return err == nil && ifi.Flags&net.FlagLoopback != 0
}

// checkPeers looks at what concerns unicast mode.
func (c Config) checkPeers() (Config, error) {
	c.Peers = slices.Clone(c.Peers)
	switch {
	case c.Mode != Unicast && len(c.Peers) > 0:
		return c, provider.WrongSetting("udp", "Peers", "are given, but Mode is %q; set it to %q, or leave Peers away", c.Mode, Unicast)
	case c.Mode == Unicast && len(c.Peers) == 0:
		return c, provider.WrongSetting("udp", "Mode", "is \"unicast\", but Peers is empty; list host:port of the instances")
	case len(c.Peers) > maxPeers:
		return c, provider.WrongSetting("udp", "Peers", "%d of them; at most %d", len(c.Peers), maxPeers)
	}
	for _, peer := range c.Peers {
		host, port, err := net.SplitHostPort(peer)
		if err != nil {
			return c, provider.WrongSetting("udp", "Peers", "%q: %w; write host:port", peer, err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
			return c, provider.WrongSetting("udp", "Peers", "%q: write host:port with a port from 1 to 65535", peer)
		}
	}
	return c, nil
}

// what says what Start tries, for its errors.
func (c Config) what() string {
	switch c.Mode {
	case Broadcast:
		return fmt.Sprintf("broadcast to port %d", c.Port)
	case Unicast:
		return fmt.Sprintf("listen at port %d", c.Port)
	}
	return "join " + netip.AddrPortFrom(c.Group, uint16(c.Port)).String()
}

// v6 reports whether datagrams are sent over IPv6 alone.
func (c Config) v6() bool { return c.Mode == Multicast && c.Group.Is6() }
