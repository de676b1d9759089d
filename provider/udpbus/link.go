package udpbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// batchConn is what ipv4.PacketConn and ipv6.PacketConn have in common; their
// messages are the same type.
type batchConn interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// A link is the open sockets on one interface. It never changes; when the interface
// does, another link takes its place.
type link struct {
	where place

	// Datagrams are sent from a socket of their own, whose port nobody shares, so that an
	// instance knows its own by their source. In unicast mode both are one.
	in, out      *net.UDPConn
	inMsg        batchConn
	outMsg       batchConn
	self         netip.AddrPort      // where our datagrams come from
	selfAnywhere map[netip.Addr]bool // if self's address is unspecified: the addresses of this machine

	group   netip.AddrPort // where datagrams go; not valid in unicast mode
	granted int            // bytes of receive buffer that the kernel gave

	segments atomic.Bool // several datagrams of one length are given to the kernel in one piece
	closing  atomic.Bool
	once     sync.Once
	done     chan struct{} // closed when its reader has ended
}

// open opens the sockets at a place.
func (p *Provider) open(where place) (*link, error) {
	l := &link{where: where, done: make(chan struct{})}
	var err error
	switch p.cfg.Mode {
	case Multicast:
		err = p.openMulticast(l)
	case Broadcast:
		err = p.openBroadcast(l)
	case Unicast:
		err = p.openUnicast(l)
	}
	if err == nil {
		err = l.prepare(p.log)
	}
	if err != nil {
		l.close()
		if !where.all() {
			err = &placeError{fmt.Sprintf("%s (%v)", where.name, where.local.Addr()), err}
		}
		return nil, err
	}
	p.log.LogAttrs(p.ctx, slog.LevelInfo, "listening", p.describe(l)...)
	level := slog.LevelInfo
	if l.granted < readBufferBytes {
		level = slog.LevelWarn
	}
	p.log.LogAttrs(p.ctx, level, "receive buffer", slog.Int(keyAsked, readBufferBytes), slog.Int(keyGranted, l.granted))
	p.env.ReceiveBuffer(l.granted)
	return l, nil
}

func (p *Provider) describe(l *link) []slog.Attr {
	attrs := []slog.Attr{slog.String(keyMode, string(p.cfg.Mode)), slog.Int(keyPort, p.cfg.Port)}
	if !l.where.all() {
		attrs = append(attrs, slog.String(keyInterface, l.where.name), slog.String(keyAddress, l.where.local.Addr().String()))
	}
	if l.group.IsValid() {
		attrs = append(attrs, slog.String(keyGroup, l.group.String()))
	} else {
		attrs = append(attrs, slog.Any(keyPeers, *p.peers.Load()))
	}
	return attrs
}

func (p *Provider) openMulticast(l *link) (err error) {
	l.group = netip.AddrPortFrom(p.cfg.Group, uint16(p.cfg.Port))
	if err := p.openShared(l); err != nil {
		return err
	}
	ifi := &net.Interface{Index: l.where.index, Name: l.where.name}
	group := net.UDPAddrFromAddrPort(l.group)
	if p.cfg.v6() {
		in, out := ipv6.NewPacketConn(l.in), ipv6.NewPacketConn(l.out)
		return errors.Join(
			explain("join", in.JoinGroup(ifi, group)),
			explain("choose the interface", out.SetMulticastInterface(ifi)),
			explain("set the hop limit", out.SetMulticastHopLimit(p.cfg.TTL)),
			explain("switch the loopback on", out.SetMulticastLoopback(true)),
			explain("leave out other groups", control(l.in, groupOnly(true))))
	}
	in, out := ipv4.NewPacketConn(l.in), ipv4.NewPacketConn(l.out)
	return errors.Join(
		explain("join", in.JoinGroup(ifi, group)),
		explain("choose the interface", out.SetMulticastInterface(ifi)),
		explain("set the TTL", out.SetMulticastTTL(p.cfg.TTL)),
		explain("switch the loopback on", out.SetMulticastLoopback(true)),
		explain("leave out other groups", control(l.in, groupOnly(false))))
}

func (p *Provider) openBroadcast(l *link) error {
	to, ok := broadcast(l.where.local)
	if !ok {
		return fmt.Errorf("the network %v has no broadcast address", l.where.local)
	}
	l.group = netip.AddrPortFrom(to, uint16(p.cfg.Port))
	return p.openShared(l) // package net lets every UDP socket broadcast
}

// openShared opens a socket for receiving whose port is shared with the other instances on
// this machine, each of which gets its own copy of what is sent to all, and one for sending.
func (p *Provider) openShared(l *link) (err error) {
	network, anywhere := "udp4", netip.IPv4Unspecified()
	if p.cfg.v6() {
		network, anywhere = "udp6", netip.IPv6Unspecified()
	}
	if l.in, err = p.listen(network, netip.AddrPortFrom(anywhere, uint16(p.cfg.Port)), share); err != nil {
		return err
	}
	local := l.where.local.Addr()
	if local.IsLinkLocalUnicast() && local.Is6() {
		local = local.WithZone(l.where.name)
	}
	l.out, err = p.listen(network, netip.AddrPortFrom(local, 0), nil)
	return err
}

func (p *Provider) openUnicast(l *link) (err error) {
	at := fmt.Sprintf(":%d", p.cfg.Port)
	if !l.where.all() {
		at = netip.AddrPortFrom(l.where.local.Addr(), uint16(p.cfg.Port)).String()
	}
	l.in, err = p.listenAt("udp", at, nil)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; give each instance on a machine a Port of its own", err)
	}
	if err != nil {
		return err
	}
	l.out = l.in
	if l.addr().Addr().IsUnspecified() {
		l.selfAnywhere = make(map[netip.Addr]bool)
		nics, err := p.interfaces()
		if err != nil {
			return err
		}
		for _, n := range nics {
			for _, a := range n.addrs {
				l.selfAnywhere[a.Addr()] = true
			}
		}
	}
	return nil
}

func (p *Provider) listen(network string, at netip.AddrPort, before func(fd uintptr) error) (*net.UDPConn, error) {
	return p.listenAt(network, at.String(), before)
}

// listenAt opens a socket; before, if not nil, is called before it is bound.
func (p *Provider) listenAt(network, at string, before func(fd uintptr) error) (*net.UDPConn, error) {
	lc := net.ListenConfig{}
	if before != nil {
		lc.Control = func(_, _ string, raw syscall.RawConn) error { return controlRaw(raw, before) }
	}
	conn, err := lc.ListenPacket(context.Background(), network, at)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// addr returns the local address of the socket for sending.
func (l *link) addr() netip.AddrPort {
	a := l.out.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// prepare does what the sockets of all modes need.
func (l *link) prepare(log *slog.Logger) error {
	l.self = l.addr()
	l.inMsg, l.outMsg = batches(l.in), batches(l.out)
	// The kernel may give less, which open reports; what it gives is what counts.
	l.in.SetReadBuffer(readBufferBytes)
	if err := control(l.in, func(fd uintptr) (err error) {
		l.granted, err = growReadBuffer(fd, readBufferBytes)
		return err
	}); err != nil {
		return explain("ask for the receive buffer", err)
	}
	v6 := isV6(l.out)
	if err := control(l.out, func(fd uintptr) error {
		l.segments.Store(sendsSegments(fd))
		return dontFragment(fd, v6)
	}); err != nil {
		return explain("switch IP fragmentation off", err)
	}
	if err := control(l.in, func(fd uintptr) error { receiveSegments(fd); return nil }); err != nil {
		return explain("ask for datagrams in one piece", err)
	}
	if l.group.IsValid() {
		if err := leaveOutOwn(l.in, l.self); err != nil { // then the reader does it alone
			log.LogAttrs(context.Background(), slog.LevelDebug, "the kernel does not leave out our own datagrams", slog.String(keyError, err.Error()))
		}
		// Receivers overlook an empty datagram, and without a route, or with a firewall, it does
		// not even leave.
		_, err := l.out.WriteToUDPAddrPort(nil, l.group)
		return explain("send there", err)
	}
	return nil
}

func isV6(c *net.UDPConn) bool { return c.LocalAddr().(*net.UDPAddr).IP.To4() == nil }

func batches(c *net.UDPConn) batchConn {
	if isV6(c) {
		return ipv6.NewPacketConn(c)
	}
	return ipv4.NewPacketConn(c)
}

// own reports whether a datagram from src is one that this instance sent.
func (l *link) own(src netip.AddrPort) bool {
	if l.selfAnywhere != nil {
		return src.Port() == l.self.Port() && l.selfAnywhere[src.Addr()]
	}
	return src == l.self
}

// close closes the sockets, which ends the reader and a Send that waits. Closing
// twice is fine.
func (l *link) close() {
	l.once.Do(func() {
		l.closing.Store(true)
		if l.in != nil {
			l.in.Close()
		}
		if l.out != nil && l.out != l.in {
			l.out.Close()
		}
	})
}

// control calls fn with the file descriptor of c.
func control(c *net.UDPConn, fn func(fd uintptr) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return controlRaw(raw, fn)
}

func controlRaw(raw syscall.RawConn, fn func(fd uintptr) error) error {
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = fn(fd) }); err != nil {
		return err
	}
	return failed
}

// explain says what was tried, if err is an error.
func explain(tried string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", tried, err)
}
