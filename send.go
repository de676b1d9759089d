package carillon

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// How long to wait before frames that a provider did not accept are sent again.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
)

// controlLimit is how long a provider may hold up control frames and repairs. They
// are repeated, and waiting for one provider keeps the others from theirs.
const controlLimit = time.Second

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

// An outlet is the sending side of one provider.
type outlet struct {
	provider  provider.Provider
	unicaster provider.Unicaster     // or nil
	watcher   provider.MemberWatcher // or nil
	name      string
	cleaning  cleaning

	framesSent, bytesSent, framesReceived, failures atomic.Uint64
	failLog                                         rate
	idle                                            time.Duration // how often it carries what is said while idle; 0: always, negative: never
	buffer                                          atomic.Int64  // bytes that its transport keeps for this instance; 0: it told nothing

	// Of who has the turn, see hand.
	idleAt  time.Time // when what it carried last was said while idle
	owed    bool      // it has not accepted the batch in hand yet
	retryAt time.Time
	backoff time.Duration

	mu      sync.Mutex // guards the fields below
	failing time.Time  // since when it accepts nothing; zero: it does
	err     error      // the last, while failing
}

// receiveBuffer hears from o how much its transport keeps for this instance.
func (b *Broker) receiveBuffer(o *outlet, bytes int) {
	o.buffer.Store(int64(bytes))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machine != nil {
		b.machine.SetWindow(b.window())
	}
}

// window returns how much may be on its way to this instance, or 0 if no transport
// told: what comes through several must fit into the smallest buffer.
func (b *Broker) window() int {
	window := int64(0)
	for _, o := range b.outs {
		if n := o.buffer.Load(); n > 0 && (window == 0 || n < window) {
			window = n
		}
	}
	return int(window)
}

// Both packages say what a frame counts for, as neither may import the other.
const _ = -uint(engine.FrameCharge ^ provider.FrameCharge)

// try sends frames and reports whether that is settled: accepted, or refused for
// good. to is zero for everybody.
func (o *outlet) try(ctx context.Context, log *slog.Logger, to site.StreamID, frames [][]byte) bool {
	err := provider.ErrUnreachable
	if to != (site.StreamID{}) && o.unicaster != nil {
		err = o.unicaster.SendTo(ctx, to, frames)
	}
	if errors.Is(err, provider.ErrUnreachable) {
		err = o.provider.Send(ctx, frames)
	}
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		return o.failed(log, err)
	}
	o.framesSent.Add(uint64(len(frames)))
	for _, f := range frames {
		o.bytesSent.Add(uint64(len(f)))
	}
	o.mu.Lock()
	since := o.failing
	o.failing, o.err = time.Time{}, nil
	o.mu.Unlock()
	if !since.IsZero() {
		log.Info("provider accepts frames again", keyProvider, o.name, "after", time.Since(since))
	}
	return true
}

// failed records that frames were not accepted, and reports whether that is final.
func (o *outlet) failed(log *slog.Logger, err error) bool {
	o.failures.Add(1)
	o.mu.Lock()
	if o.failing.IsZero() {
		o.failing = time.Now()
	}
	o.err = err
	since := o.failing
	o.mu.Unlock()
	final := errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge)
	o.failLog.log(log, "provider does not accept frames", keyProvider, o.name, keyError, err, "since", since, "retry", !final)
	return final
}

// failure returns since when the provider accepts nothing, and why.
func (o *outlet) failure() (since time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failing, o.err
}

// A hand is what is being handed to the providers. Whoever holds turn hands over.
type hand struct {
	// turn holds a token while nobody hands over. It is taken before the Broker's mutex, and guards the
	// fields below.
	turn chan struct{}

	control []controlFrame
	repairs []controlFrame
	frames  []*engine.Frame // not accepted by every provider yet
	batch   [][]byte        // their bytes
	again   time.Time       // when to try that again; zero: nothing is in hand

	prompt bool         // no provider keeps Send waiting; read-only
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
	if h.prompt && int64(time.Since(h.opened))-h.last.Load() >= int64(promptAfter) {
		select {
		case <-h.turn:
			done := false
			if h.again.IsZero() { // else the goroutine waits for the time to try again
				b.handOver()
				done = h.again.IsZero()
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

// handOver hands what waits to the providers: control frames once,
// because they are repeated as long as they matter, and event frames until
// every provider has accepted them. b.hand.turn is held.
func (b *Broker) handOver() {
	h := &b.hand
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

	b.sendControl(h.control)
	b.sendAgain(h.repairs)
	if len(h.frames) == 0 {
		return
	}
	if len(h.batch) == 0 {
		for _, f := range h.frames {
			b.sealFrame(f.Bytes)
			h.batch = append(h.batch, f.Bytes)
		}
		for _, o := range b.outs {
			o.owed, o.backoff, o.retryAt = true, 0, time.Time{}
		}
	}
	h.again = b.sendBatch(h.batch)
	switch {
	case !h.again.IsZero(): // one did not accept them: the others' receivers may ask all the same
		b.mu.Lock()
		b.machine.Sent(h.frames[len(h.frames)-1].Number)
		b.mu.Unlock()
	case b.loopCtx.Err() == nil:
		b.batchHanded(h.frames)
		clear(h.frames)
		clear(h.batch)
		h.frames, h.batch = h.frames[:0], h.batch[:0]
	}
}

// sendControl sends control frames, those for everybody together.
func (b *Broker) sendControl(control []controlFrame) {
	if len(control) == 0 {
		return
	}
	for i := range control {
		b.sealFrame(control[i].bytes)
	}
	ctx, cancel := context.WithTimeout(b.loopCtx, controlLimit)
	defer cancel()
	var all [][]byte
	for _, o := range b.outs {
		all = all[:0]
		for _, c := range control {
			if c.to == (site.StreamID{}) && o.carries(c) {
				all = append(all, c.bytes)
			}
		}
		if len(all) > 0 {
			o.try(ctx, b.log, site.StreamID{}, all)
		}
		for _, c := range control {
			if c.to != (site.StreamID{}) {
				o.try(ctx, b.log, c.to, [][]byte{c.bytes})
			}
		}
	}
	b.mu.Lock()
	b.controlSent += uint64(len(control))
	b.progress.signal()
	b.mu.Unlock()
	clear(control)
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
func (b *Broker) sendAgain(repairs []controlFrame) {
	if len(repairs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(b.loopCtx, controlLimit)
	defer cancel()
	for len(repairs) > 0 {
		to, n := repairs[0].to, 1
		for n < len(repairs) && repairs[n].to == to {
			n++
		}
		frames := make([][]byte, n)
		for i := range frames {
			frames[i] = repairs[i].bytes
		}
		for _, o := range b.outs {
			o.try(ctx, b.log, to, frames)
		}
		clear(repairs[:n])
		repairs = repairs[n:]
	}
}

// sendBatch sends the frames through the providers that have not accepted them
// and whose time has come. It returns when to try again, or the zero Time when all is settled.
func (b *Broker) sendBatch(batch [][]byte) (again time.Time) {
	for _, o := range b.outs {
		if !o.owed {
			continue
		}
		if now := time.Now(); !now.Before(o.retryAt) {
			if o.owed = !o.try(b.loopCtx, b.log, site.StreamID{}, batch); !o.owed {
				continue
			}
			o.backoff = min(max(firstRetry, 2*o.backoff), lastRetry)
			o.retryAt = time.Now().Add(o.backoff/2 + rand.N(o.backoff/2+1))
		}
		if again.IsZero() || o.retryAt.Before(again) {
			again = o.retryAt
		}
	}
	return again
}

// batchHanded records that every provider has accepted the frames.
func (b *Broker) batchHanded(frames []*engine.Frame) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.hand.last.Store(int64(now.Sub(b.hand.opened)))
	for _, f := range frames {
		b.handed += uint64(f.Count)
	}
	b.machine.Handed(now, frames[len(frames)-1].Number, &b.fx)
	b.applyLocked(now)
	b.progress.signal()
	if b.machine.Pending() && !b.machine.Shut() { // more has come meanwhile
		poke(b.sendWake)
	}
}
