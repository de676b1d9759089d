package carillon

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A sealer seals the frames of one of this instance's streams under one key.
type sealer struct {
	*seal.Sealer
	stream site.StreamID
	key    site.KeyID
}

// maxSealers is how many are remembered. Frames that were numbered under an
// older one have long been sent.
const maxSealers = 8

// addSealer makes s known to sealFrame. It is never called concurrently.
func (b *Broker) addSealer(s *sealer) {
	list := []*sealer{s}
	if old := b.sealers.Load(); old != nil {
		list = append(list, *old...)
	}
	list = list[:min(len(list), maxSealers)]
	b.sealers.Store(&list)
}

// sealFrame seals a frame of this instance in place.
func (b *Broker) sealFrame(frame []byte) {
	h, err := wire.ParseHeader(frame)
	if err == nil {
		for _, s := range *b.sealers.Load() {
			if s.stream == h.Stream && s.key == h.Key {
				s.Seal(frame)
				return
			}
		}
		err = errors.New("no sealer for its stream and key")
	}
	panic("carillon: a frame of our own cannot be sealed: " + err.Error())
}

// A hand is what is being handed to the providers. Whoever holds turn hands over.
type hand struct {
	// turn holds a token while nobody hands over. It is taken before the Broker's mutex, and guards the
	// fields below.
	turn chan struct{}

	control  []controlFrame
	repairs  []controlFrame
	jobs     []job           // their memory is reused
	frames   []*engine.Frame // in hand: no provider has accepted them yet, or one that works is far behind
	batch    [][]byte        // their bytes; its memory is reused where one provider alone sends
	shipment *shipment       // of the frames, if lanes have it; nil: they have not
	again    time.Time       // when to look at the shipment again; zero: when a lane wakes

	prompt atomic.Bool  // one provider alone is sent on, and keeps nobody waiting
	opened time.Time    // read-only
	last   atomic.Int64 // when event frames were handed over last, in nanoseconds since opened
}

// promptAfter is how long no event may have been sent for the next one to be sent by who raises
// it. Then waking another goroutine would take most of the time that the event takes. Those that come
// closer together are sent by that other goroutine, so that what is raised meanwhile goes together.
const promptAfter = 100 * time.Microsecond

// send hands frames to the providers until loopCtx ends.
func (b *Broker) send() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		<-b.hand.turn
		b.handOver()
		again := b.hand.again
		b.hand.turn <- struct{}{}
		select {
		case <-alarm(timer, again):
		case <-b.sendWake:
		case <-b.loopCtx.Done():
			return
		}
	}
}

// sendSoon has sent what was just raised: at once, or by the goroutine for it.
func (b *Broker) sendSoon() {
	h := &b.hand
	if h.prompt.Load() && int64(time.Since(h.opened))-h.last.Load() >= int64(promptAfter) {
		select {
		case <-h.turn:
			done := false
			if h.shipment == nil { // else a lane wakes the goroutine
				b.handOver()
				done = h.shipment == nil
			}
			h.turn <- struct{}{}
			if done {
				return
			}
		default:
		}
	}
	poke(b.sendWake)
}

// handOver hands what waits to the providers that are sent on: control frames once,
// because they are repeated as long as they matter, and event frames until
// a provider has accepted them. b.hand.turn is held.
func (b *Broker) handOver() {
	h := &b.hand
	was := b.senders.Load()
	outs := b.useSenders()
	if b.senders.Load() != was {
		poke(b.followWake) // to be said in the row
	}
	h.again = b.settle(outs)
	b.mu.Lock()
	h.control = append(h.control[:0], b.control...)
	clear(b.control)
	b.control = b.control[:0]
	h.repairs = append(h.repairs[:0], b.repairs...)
	clear(b.repairs)
	b.repairs, b.repairBytes = b.repairs[:0], 0
	if len(h.frames) == 0 && b.sending {
		h.frames = b.machine.Take(time.Now(), h.frames)
		b.sendDue = b.machine.Shut() // then Effects.Send wakes, not the next Raise
	}
	b.mu.Unlock()

	only := b.takeLane(outs)
	if only != nil {
		defer only.lane.release()
	}
	b.sendControl(only, outs)
	b.sendAgain(only, outs)
	if len(h.frames) == 0 || h.shipment != nil {
		return
	}
	if only != nil {
		h.batch = b.sealBatch(h.batch[:0])
		if only.try(b.loopCtx, b.log, site.StreamID{}, h.batch) != notYet {
			clear(h.batch)
			b.batchHanded()
			return
		}
		if b.loopCtx.Err() != nil {
			return
		}
		h.shipment = newShipment(h.batch)
		h.batch = nil // it belongs to the shipment
		only.lane.push(h.shipment, true)
	} else {
		h.shipment = newShipment(b.sealBatch(make([][]byte, 0, len(h.frames))))
		for _, o := range outs {
			o.lane.push(h.shipment, false)
		}
	}
	b.mu.Lock() // one may have accepted them, and its receivers may ask, before this instance knows
	b.machine.Sent(h.frames[len(h.frames)-1].Number)
	b.mu.Unlock()
}

// sealBatch seals the frames in hand and appends their bytes to batch.
func (b *Broker) sealBatch(batch [][]byte) [][]byte {
	for _, f := range b.hand.frames {
		b.sealFrame(f.Bytes)
		batch = append(batch, f.Bytes)
	}
	return batch
}

// sendControl sends control frames: on the provider whose lane this goroutine has, or through the lanes
// of all.
func (b *Broker) sendControl(only *outlet, outs []*outlet) {
	h := &b.hand
	if len(h.control) == 0 {
		return
	}
	for i := range h.control {
		b.sealFrame(h.control[i].bytes)
	}
	n := uint64(len(h.control))
	if only != nil {
		h.jobs = only.jobs(h.jobs[:0], h.control)
		only.tryJobs(b.loopCtx, b.log, h.jobs)
		clear(h.jobs)
		b.controlTried(n)
	} else {
		done := whenAll(len(outs), func() { b.controlTried(n) })
		for _, o := range outs {
			o.lane.pushErrand(newErrand(o.jobs(nil, h.control), done))
		}
	}
	clear(h.control)
}

// jobs appends to list what o is to carry of control frames: those for everybody together. b.hand.turn is held.
func (o *outlet) jobs(list []job, control []controlFrame) []job {
	all := job{}
	for _, c := range control {
		switch {
		case c.to != (site.StreamID{}):
			list = append(list, job{to: c.to, frames: [][]byte{c.bytes}})
		case o.carries(c):
			all.frames = append(all.frames, c.bytes)
		}
	}
	if len(all.frames) > 0 {
		list = slices.Insert(list, 0, all)
	}
	return list
}

// whenAll returns a function that calls done when it was called n times.
func whenAll(n int, done func()) func() {
	left := new(atomic.Int32)
	left.Store(int32(n))
	return func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
}

// controlTried records that n more control frames were tried.
func (b *Broker) controlTried(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.controlSent += n
	b.progress.signal()
}

// carries reports whether c goes through o. The machine speaks as often as the provider wants it that
// wants it most often; another may charge for each message.
func (o *outlet) carries(c controlFrame) bool {
	switch {
	case o.idle == 0 || c.idle.IsZero():
		return true
	case o.idle < 0 || c.idle.Sub(o.idleAt) < o.idle:
		return false
	}
	o.idleAt = c.idle
	return true
}

// sendAgain sends repairs, in runs for the same receivers. What a provider does
// not accept is not kept: whoever misses it asks again.
func (b *Broker) sendAgain(only *outlet, outs []*outlet) {
	var jobs []job
	for repairs := b.hand.repairs; len(repairs) > 0; {
		to, n := repairs[0].to, 1
		for n < len(repairs) && repairs[n].to == to {
			n++
		}
		frames := make([][]byte, n)
		for i := range frames {
			frames[i] = repairs[i].bytes
		}
		jobs = append(jobs, job{to: to, frames: frames})
		repairs = repairs[n:]
	}
	switch {
	case len(jobs) == 0:
		return
	case only != nil:
		only.tryJobs(b.loopCtx, b.log, jobs)
	default:
		for _, o := range outs {
			o.lane.pushErrand(newErrand(jobs, func() {}))
		}
	}
	clear(b.hand.repairs)
}

// batchHanded records that the frames in hand were accepted. b.hand.turn is held.
func (b *Broker) batchHanded() {
	h := &b.hand
	frames := h.frames
	b.mu.Lock()
	now := time.Now()
	h.last.Store(int64(now.Sub(h.opened)))
	for _, f := range frames {
		b.handed += uint64(f.Count)
	}
	b.machine.Handed(now, frames[len(frames)-1].Number, &b.fx)
	b.applyLocked(now)
	b.progress.signal()
	if b.machine.Pending() && !b.machine.Shut() { // more has come meanwhile
		poke(b.sendWake)
	}
	b.mu.Unlock()
	clear(h.frames)
	h.frames, h.shipment = h.frames[:0], nil
}
