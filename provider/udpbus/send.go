package udpbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/carillon-go/carillon/provider"
)

const (
	// writeBatch is how many messages are given to the kernel at once.
	writeBatch = 64

	// What the kernel cuts into datagrams, as far as Linux has it since the beginning.
	maxSegments     = 64
	maxSegmentBytes = 65_000 // an IP packet with its headers has at most 65,535
)

// outbox is memory that one Send after the other uses.
type outbox struct {
	messages []ipv4.Message // each with one datagram, or with several of one length
	single   []ipv4.Message // those of one that was refused
	to       []*net.UDPAddr // parallel to dests
	dests    []netip.AddrPort
}

// Send implements [provider.Provider]. It returns when the kernel has taken the datagrams; a
// datagram that is too long for the interface, and one for a peer
// that cannot be reached, is counted, logged and lost, as it could be anywhere
// on its way.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	p.mu.Lock()
	state := p.state
	p.mu.Unlock()
	switch state {
	case stateClosed:
		return provider.ErrClosed
	case stateNew, stateStarting:
		return errors.New("udp: send before start")
	}
	for _, f := range frames {
		if len(f) > p.cfg.MaxFrameBytes {
			return fmt.Errorf("udp: a frame of %d bytes, MaxFrameBytes is %d: %w", len(f), p.cfg.MaxFrameBytes, provider.ErrFrameTooLarge)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l := p.link.Load()
	if l == nil {
		return fmt.Errorf("udp: send: %w", *p.away.Load())
	}
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	defer l.bounded(ctx)()
	if err := p.write(l, frames); err != nil {
		return p.sendError(ctx, l, err)
	}
	return nil
}

// bounded makes writing fail when ctx ends. The function that it returns ends that.
func (l *link) bounded(ctx context.Context) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		l.out.SetWriteDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-ended // else it could set the deadline after we have taken it away
			l.out.SetWriteDeadline(time.Time{})
		}
	}
}

// destinations returns where a frame goes. p.sendMu is held.
func (p *Provider) destinations(l *link) []*net.UDPAddr {
	dests := []netip.AddrPort{l.group}
	if p.cfg.Mode == Unicast {
		dests = *p.peers.Load()
	}
	if len(p.out.to) == len(dests) && equal(p.out.dests, dests) {
		return p.out.to
	}
	p.out.dests, p.out.to = dests, nil
	for _, d := range dests {
		p.out.to = append(p.out.to, net.UDPAddrFromAddrPort(d))
	}
	return p.out.to
}

func equal(a, b []netip.AddrPort) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// write gives the kernel one datagram per frame and destination. p.sendMu is held.
func (p *Provider) write(l *link, frames [][]byte) error {
	if p.out.messages == nil {
		p.out.messages = make([]ipv4.Message, writeBatch)
	}
	defer forget(p.out.messages)
	to, n := p.destinations(l), 0
	for len(frames) > 0 {
		together := 1
		if l.segments.Load() {
			together = equals(frames)
		}
		for _, d := range to {
			if p.cfg.Mode == Unicast && l.own(source(d)) {
				continue // a list may be the same in all instances
			}
			m := &p.out.messages[n]
			m.Buffers, m.Addr, m.OOB = append(m.Buffers[:0], frames[:together]...), d, m.OOB[:0]
			if together > 1 {
				m.OOB = segmentSize(m.OOB, len(frames[0]))
			}
			if n++; n == writeBatch {
				if err := p.writeAll(l, p.out.messages); err != nil {
					return err
				}
				n = 0
			}
		}
		frames = frames[together:]
	}
	return p.writeAll(l, p.out.messages[:n])
}

// equals returns how many frames from the front can go in one piece that the kernel cuts: all are of one
// length, and only the last may be shorter.
func equals(frames [][]byte) int {
	size := len(frames[0])
	total := size
	for n, f := range frames[1:] {
		total += len(f)
		if n+1 == maxSegments || total > maxSegmentBytes || len(f) > size || len(f) == 0 {
			return n + 1
		}
		if len(f) < size {
			return n + 2
		}
	}
	return len(frames)
}

// forget keeps no frame alive.
func forget(messages []ipv4.Message) {
	for i := range messages {
		clear(messages[i].Buffers[:cap(messages[i].Buffers)])
	}
}

func (p *Provider) writeAll(l *link, messages []ipv4.Message) error {
	for len(messages) > 0 {
		n, err := l.outMsg.WriteBatch(messages, 0)
		if err != nil && n <= 0 {
			// It is the first one that the kernel did not take.
			m := &messages[0]
			if len(m.Buffers) > 1 && !l.closing.Load() && !isTimeout(err) {
				if err := p.writeApart(l, m, err); err != nil {
					return err
				}
			} else if !p.forgive(l, m, err) {
				return err
			}
			n = 1
		}
		messages = messages[n:]
	}
	return nil
}

// writeApart sends the datagrams of a message one by one, because the kernel did not take them in one piece. If it
// never will on this link, it is not tried again.
func (p *Provider) writeApart(l *link, m *ipv4.Message, why error) error {
	if segmentsRefused(why) && l.segments.Swap(false) {
		p.log.LogAttrs(p.ctx, slog.LevelInfo, "the interface takes datagrams one by one only, which is slower", slog.String(keyError, why.Error()))
	}
	defer func() { forget(p.out.single) }()
	p.out.single = p.out.single[:0]
	for i := range m.Buffers {
		p.out.single = append(p.out.single, ipv4.Message{Buffers: m.Buffers[i : i+1], Addr: m.Addr})
	}
	return p.writeAll(l, p.out.single)
}

// forgive reports whether err concerns one datagram alone and the next may pass.
func (p *Provider) forgive(l *link, m *ipv4.Message, err error) bool {
	switch {
	case l.closing.Load(), isTimeout(err):
		return false
	case errors.Is(err, syscall.EMSGSIZE):
		p.lost.add(1, p.log, "datagram too long for the network, lost; lower MaxFrameBytes", slog.String(keyError, err.Error()))
		return true
	case errors.Is(err, syscall.ECONNREFUSED): // an answer to an earlier one; this one was not sent
		p.lost.add(1, p.log, "datagram lost", slog.String(keyPeer, m.Addr.String()), slog.String(keyError, err.Error()))
		return true
	case p.cfg.Mode == Unicast && !errors.Is(err, syscall.ENOBUFS):
		p.lost.add(1, p.log, "peer not reachable, datagram lost", slog.String(keyPeer, m.Addr.String()), slog.String(keyError, err.Error()))
		return true
	}
	return false
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// sendError returns what Send says about err.
func (p *Provider) sendError(ctx context.Context, l *link, err error) error {
	if l.closing.Load() {
		if p.ctx.Err() != nil {
			return provider.ErrClosed
		}
		return fmt.Errorf("udp: send: %w", errAway)
	}
	if isTimeout(err) && ctx.Err() != nil {
		return ctx.Err()
	}
	p.suspectLink()
	return fmt.Errorf("udp: send: %w", err)
}
