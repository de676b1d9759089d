//go:build linux

package limit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/net/ipv4"

	"github.com/carillon-go/carillon/bench/internal/system"
)

// group lies in the part of the multicast range that is left to everybody. It is joined on the loopback interface.
var group = net.IPv4(239, 255, 67, 83)

func overUDP(name, title, note string, pack, window int) system.System {
	return system.System{
		Name: name, Title: title, Note: note + "; window for events of 128 B", Window: window,
		Publish: func(context.Context, system.Spec, string) (system.Publisher, error) {
			return publishUDP(pack)
		},
		Subscribe: func(_ context.Context, _ system.Spec, address string, deliver func([]byte)) (io.Closer, error) {
			return subscribeUDP(address, pack, deliver)
		},
	}
}

// A udpPublisher sends a datagram for all.
type udpPublisher struct {
	*packer
	pack int // bytes of a datagram; 0: an event each
	conn *net.UDPConn
}

func publishUDP(pack int) (system.Publisher, error) {
	// A port that is free, so that no two runs share one.
	probe, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	port := probe.LocalAddr().(*net.UDPAddr).Port
	probe.Close()
	lo, err := loopback()
	if err != nil {
		return nil, err
	}
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: group, Port: port})
	if err != nil {
		return nil, err
	}
	c := ipv4.NewPacketConn(conn)
	if err := errors.Join(c.SetMulticastInterface(lo), c.SetMulticastLoopback(true)); err != nil {
		conn.Close()
		return nil, err
	}
	return &udpPublisher{newPacker(0, nil, max(pack, pathBytes)), pack, conn}, nil
}

func loopback() (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			return &i, nil
		}
	}
	return nil, fmt.Errorf("no loopback interface: %w", system.ErrMissing)
}

// Address implements system.Publisher.
func (p *udpPublisher) Address() string { return p.conn.RemoteAddr().String() }

// Ready implements system.Publisher: those who have joined the group are there.
func (p *udpPublisher) Ready(context.Context) error { return nil }

// Publish implements system.Publisher.
func (p *udpPublisher) Publish(event []byte) error {
	if p.pack == 0 {
		_, err := p.conn.Write(event)
		return err
	}
	if len(p.buf)+p.need(len(event)) > p.pack {
		if err := p.Flush(); err != nil {
			return err
		}
	}
	p.add(event)
	return nil
}

// Flush implements system.Publisher.
func (p *udpPublisher) Flush() error {
	data := p.take()
	if len(data) == 0 {
		return nil
	}
	_, err := p.conn.Write(data)
	return err
}

// Close implements system.Publisher.
func (p *udpPublisher) Close() error { return p.conn.Close() }

func subscribeUDP(address string, pack int, deliver func([]byte)) (io.Closer, error) {
	at, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return nil, err
	}
	lo, err := loopback()
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenMulticastUDP("udp4", lo, at)
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadBuffer(receiveBuffer); err != nil {
		conn.Close()
		return nil, err
	}
	r := &reader{conn, make(chan error, 1)}
	go func() { r.ended <- receive(conn, pack, deliver) }()
	return r, nil
}

func receive(conn *net.UDPConn, pack int, deliver func([]byte)) error {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case err != nil:
			return err
		case pack == 0:
			deliver(buf[:n])
			continue
		}
		if taken, err := unpack(buf[:n], 0, nil, deliver); err != nil || taken != n {
			return errors.Join(errPacked, err)
		}
	}
}
