package udpbus

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/carillon-go/carillon/provider"
)

const (
	readBatch    = 32      // messages taken from the kernel at once
	datagramSize = 1 << 16 // no datagram is longer, nor are those that the kernel hands over in one piece
	deliverBytes = 1 << 16 // handed over at once, about: what comes first is not kept until all is read
	maxNames     = 256     // sources whose printed form is remembered
)

// read delivers what arrives on l until it is closed. It waits after an error, but never gives up:
// on some systems a datagram of ours that nobody wanted makes the next read fail.
func (p *Provider) read(l *link) {
	defer close(l.done)
	// Only the pages that datagrams were written to take memory.
	buffer := make([]byte, readBatch*datagramSize)
	messages := make([]ipv4.Message, readBatch)
	for i := range messages {
		messages[i].Buffers = [][]byte{buffer[i*datagramSize : (i+1)*datagramSize]}
		messages[i].OOB = make([]byte, controlBytes)
	}
	names := make(map[netip.AddrPort]string)
	var failures failures
	for {
		n, err := l.inMsg.ReadBatch(messages, 0)
		if l.closing.Load() {
			return
		}
		if err != nil {
			p.suspectLink()
			if !failures.pause(p.ctx, p.log, err) {
				return
			}
			continue
		}
		failures.reset()
		p.deliver(l, messages[:n], names)
	}
}

// deliver hands over datagrams, those in a row from one source together, unless they are many. Frames live as long
// as somebody wants them, so each gets memory of its own.
func (p *Provider) deliver(l *link, messages []ipv4.Message, names map[netip.AddrPort]string) {
	var from netip.AddrPort
	var frames [][]byte
	size := 0
	flush := func() {
		if len(frames) > 0 {
			p.env.Deliver(provider.Batch{Frames: frames, From: printed(from, names)})
		}
		clear(frames)
		frames, size = frames[:0], 0
	}
	for i := range messages {
		m := &messages[i]
		src := source(m.Addr)
		if m.N == 0 || l.own(src) {
			continue
		}
		if src != from || size >= deliverBytes {
			flush()
			from = src
		}
		size += m.N
		frames = cut(frames, m.Buffers[0][:m.N], segmentOf(m.OOB[:m.NN]))
	}
	flush()
}

// cut appends the datagrams in a piece, which have this length, but for the last that may be
// shorter; 0 means that it is one.
func cut(frames [][]byte, piece []byte, length int) [][]byte {
	if length <= 0 {
		length = len(piece)
	}
	for len(piece) > 0 {
		n := min(length, len(piece))
		frames = append(frames, slices.Clip(bytes.Clone(piece[:n])))
		piece = piece[n:]
	}
	return frames
}

func source(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// printed returns the text of from. The few that send all the time are printed once.
func printed(from netip.AddrPort, names map[netip.AddrPort]string) string {
	s, ok := names[from]
	if !ok {
		if len(names) >= maxNames { // strangers can invent sources
			clear(names)
		}
		s = from.String()
		names[from] = s
	}
	return s
}

// failures counts errors in a row, and waits longer the more there are.
type failures struct {
	n      int
	timer  *time.Timer
	report reporter
}

func (f *failures) reset() { f.n = 0 }

// pause waits a moment, and returns false if ctx has ended.
func (f *failures) pause(ctx context.Context, log *slog.Logger, err error) bool {
	f.n++
	f.report.add(1, log, "receiving failed", slog.String(keyError, err.Error()))
	if f.n == 1 {
		return ctx.Err() == nil // one alone is nothing
	}
	d := min(time.Millisecond<<min(f.n, 10), time.Second)
	if f.timer == nil {
		f.timer = time.NewTimer(d)
	} else {
		f.timer.Reset(d)
	}
	select {
	case <-ctx.Done():
		f.timer.Stop()
		return false
	case <-f.timer.C:
		return true
	}
}
