package udpbus

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
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

// A reader delivers what arrives on a link, on one goroutine after the other: the one that a Deliver
// keeps has nothing more to do with it.
type reader struct {
	p        *Provider
	l        *link
	messages []ipv4.Message
	names    map[netip.AddrPort]string
	failures failures

	from   netip.AddrPort
	frames [][]byte // of one batch; reused
	size   int      // of frames, in bytes
}

func (p *Provider) newReader(l *link) *reader {
	r := &reader{p: p, l: l, messages: make([]ipv4.Message, readBatch), names: make(map[netip.AddrPort]string)}
	// Only the pages that datagrams were written to take memory.
	buffer := make([]byte, readBatch*datagramSize)
	for i := range r.messages {
		r.messages[i].Buffers = [][]byte{buffer[i*datagramSize : (i+1)*datagramSize]}
		r.messages[i].OOB = make([]byte, controlBytes)
	}
	return r
}

// A turn is that of one goroutine to run a reader.
type turn struct {
	over   atomic.Bool // another goroutine has its turn
	resume func()
}

// run ends when the link is closed. It waits after an error, but never gives up:
// on some systems a datagram of ours that nobody wanted makes the next read fail.
func (r *reader) run() {
	t := new(turn)
	t.resume = func() {
		r.frames, r.size = nil, 0 // the slice is that of the Deliver that goes on
		t.over.Store(true)
		go r.run()
	}
	for r.receive(t) {
		if t.over.Load() {
			return
		}
	}
	close(r.l.done)
	r.p.wg.Done()
}

// receive delivers what arrives next, or returns false at the end.
func (r *reader) receive(t *turn) bool {
	n, err := r.l.inMsg.ReadBatch(r.messages, 0)
	if r.l.closing.Load() {
		return false
	}
	if err != nil {
		r.p.suspectLink()
		return r.failures.pause(r.p.ctx, r.p.log, err)
	}
	r.failures.reset()
	r.deliver(r.messages[:n], t)
	return true
}

// deliver hands over datagrams, those in a row from one source together, unless they are many. Frames live as long
// as somebody wants them, so each gets memory of its own.
func (r *reader) deliver(messages []ipv4.Message, t *turn) {
	for i := range messages {
		m := &messages[i]
		src := source(m.Addr)
		if m.N == 0 || r.l.own(src) {
			continue
		}
		if src != r.from || r.size >= deliverBytes {
			r.flush(t, false)
			r.from = src
		}
		r.size += m.N
		r.frames = cut(r.frames, m.Buffers[0][:m.N], segmentOf(m.OOB[:m.NN]))
	}
	r.flush(t, true)
}

// flush delivers what was cut. Only if it is the last of what was read may another goroutine go on.
func (r *reader) flush(t *turn, last bool) {
	if len(r.frames) == 0 {
		return
	}
	b := provider.Batch{Frames: r.frames, From: printed(r.from, r.names)}
	if last {
		b.Resume = t.resume
	}
	r.p.env.Deliver(b)
	if !t.over.Load() {
		clear(r.frames)
		r.frames, r.size = r.frames[:0], 0
	}
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
