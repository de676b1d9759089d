package carillon

import (
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// ownStreams are the streams that this instance has or had, the present one
// last. They are read-only.
type ownStreams []site.StreamID

func (o ownStreams) has(s site.StreamID) bool { return slices.Contains(o, s) }

// An incoming is a frame on its way through the checks.
type incoming struct {
	header wire.Header
	own    bool // of this instance's stream
	frame  []byte
	body   []byte // in the clear, once it was opened
}

// deliver takes what arrived through a provider. What is not proven to come from
// an instance of an accepted site changes nothing but a counter.
func (b *Broker) deliver(o *outlet, batch provider.Batch) {
	o.framesReceived.Add(uint64(len(batch.Frames)))
	list := b.incoming.Get().(*[]incoming)
	in := b.admit((*list)[:0], batch.Frames)
	if o.heard.on.Load() {
		b.noteHeard(o, in)
	}
	in = b.precheck(in)
	in = b.unseal(in)
	taken := b.receive(in, batch.Resume != nil)
	clear(in[:cap(in)])
	*list = in[:0]
	b.incoming.Put(list)

	if taken == nil {
		runtime.Gosched()
	}
	b.logDropped(slog.String(keyProvider, o.name), slog.String(keyFrom, batch.From))
	if batch.Done != nil {
		batch.Done()
	}
	if taken != nil {
		taken.runLent(&b.loans, batch.Resume)
	}
}

// admit appends to in the frames whose header says that they may concern this
// instance: first length, magic and version, then the site, then whether it is an echo.
func (b *Broker) admit(in []incoming, frames [][]byte) []incoming {
	ring, own, self := b.keyring.Load(), *b.own.Load(), b.self.Load().Stream
	var bytes uint64
	for _, f := range frames {
		bytes += uint64(len(f))
		h, err := wire.ParseHeader(f)
		switch {
		case err != nil:
			b.drops.add(headerDrop(f, err), 1)
		case !ring.accepts(h.Site):
			b.drops.add(DropForeignSite, 1)
		case h.Stream == self:
			in = append(in, incoming{header: h, frame: f, own: true})
		case own.has(h.Stream):
			b.drops.add(DropOwn, 1)
		default:
			in = append(in, incoming{header: h, frame: f})
		}
	}
	b.counts.framesReceived.Add(uint64(len(frames)))
	b.counts.bytesReceived.Add(bytes)
	return in
}

func headerDrop(frame []byte, err error) DropReason {
	switch {
	case len(frame) > wire.MaxFrameLen:
		return DropTooLarge
	case errors.Is(err, wire.ErrVersion):
		return DropVersion
	}
	return DropMalformed
}

// precheck drops what is known to be a duplicate, or the echo of what was sent,
// before a tag is computed for it.
func (b *Broker) precheck(in []incoming) []incoming {
	if len(in) == 0 {
		return in
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machine == nil {
		// The row of this instance is not committed, so the sender is in the
		// snapshot that will be read, and its baseline will be above this.
		b.drops.add(DropBeforeBaseline, uint64(len(in)))
		return in[:0]
	}
	keep := in[:0]
	for _, f := range in {
		if f.own && b.machine.Echo(f.header, f.frame) {
			b.drops.add(DropOwn, 1)
			continue
		}
		if v := b.machine.Precheck(f.header); v != engine.Accepted {
			b.machine.Drop(v)
			continue
		}
		keep = append(keep, f)
	}
	if len(keep) < len(in) {
		b.countVerdictsLocked()
	}
	return keep
}

// unseal drops what is not sealed with a key of its site.
func (b *Broker) unseal(in []incoming) []incoming {
	open := b.opener.Open
	if b.trust && !b.keyring.Load().self.Floors.MACRequired {
		open = b.opener.OpenTrusting
	}
	keep := in[:0]
	for _, f := range in {
		body, err := open(f.header.Site, f.header.Key, f.header.Stream, f.frame)
		if err != nil {
			b.drops.add(b.openDrop(err), 1)
			continue
		}
		f.body = body
		keep = append(keep, f)
	}
	return keep
}

func (b *Broker) openDrop(err error) DropReason {
	switch {
	case errors.Is(err, seal.ErrTag):
		return DropBadTag
	case errors.Is(err, seal.ErrUnknownKey):
		b.keyWanted()
		if since, _ := b.health.away(); !since.IsZero() {
			return DropIsolated
		}
		return DropUnknownKey
	case errors.Is(err, seal.ErrRevoked):
		return DropRetiredKey
	case errors.Is(err, seal.ErrFloor):
		return DropFloor
	case errors.Is(err, seal.ErrUnsupported):
		return DropUnsupportedKey
	case errors.Is(err, seal.ErrVersion):
		return DropVersion
	}
	return DropForeignSite
}

// receive gives proven frames to the machine, and what it makes of them to the
// subscribers' queues. If the caller's goroutine may be lent, the queue returned is to be run on it.
func (b *Broker) receive(in []incoming, lend bool) (taken borrower) {
	if len(in) == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.offer.open = lend
	now := time.Now()
	b.machine.SetRoom(now, b.roomLocked(now), &b.fx)
	for _, f := range in {
		if f.header.Count > 0 {
			b.crowd.noteFrame(len(f.frame))
		}
		if f.own {
			b.machine.Own(f.header, f.frame, &b.fx)
			b.drops.add(DropOwn, 1)
			continue
		}
		if v := b.machine.Receive(now, f.header, f.frame, f.body, &b.fx); v == engine.Accepted && b.cfg.Role&Subscribe == 0 {
			b.drops.add(DropRole, uint64(f.header.Count))
		}
	}
	b.applyLocked(now)
	b.countVerdictsLocked()
	return b.offer.end()
}
