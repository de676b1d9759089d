package providertest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// Faults is what [Faulty] does to frames. The zero Faults do nothing.
type Faults struct {
	// Seed chooses which frames are hit. The n-th frame of a connection (and the n-th
	// frame given to Send, and to SendTo) has the same fate in every run
	// with the same Seed, whatever happens on other connections. Connections are
	// told apart by [provider.Batch.From].
	Seed uint64

	Out Rates // what happens to frames that this instance sends, for all receivers alike
	In  Rates // what happens to frames that arrive at this instance
}

// Rates says how often a fault happens and how much it delays. Probabilities lie between 0,
// never, and 1, always, and are drawn for each frame.
type Rates struct {
	Drop      float64 // the frame is lost
	Duplicate float64 // the frame comes twice
	Reorder   float64 // the frame is held back for Hold, and overtaken by what comes after it
	Corrupt   float64 // one bit of a copy of the frame is wrong

	Delay  time.Duration // of every frame
	Jitter time.Duration // up to this much more, for each frame by itself, so that frames overtake each other
	Hold   time.Duration // see Reorder; zero means 5 ms
}

// delays reports whether frames may have to wait.
func (r Rates) delays() bool { return r.Delay > 0 || r.overtakes() }

// overtakes reports whether frames may change their order.
func (r Rates) overtakes() bool { return r.Jitter > 0 || r.Reorder > 0 }

// Direction is one of Out, In and Both, seen from the instance.
type Direction uint8

// The zero Direction is neither.
const (
	Out  Direction = 1 << iota // what the instance sends
	In                         // what arrives at it
	Both = Out | In
)

// Injected counts the faults that happened, in frames, in both directions.
type Injected struct {
	Dropped, Duplicated, Reordered, Corrupted uint64

	Partitioned uint64 // lost because of SetPartition
	Overflowed  uint64 // lost because more than 65,536 frames waited for their delay
}

// A FaultyProvider is a Provider whose transport has faults. It is a
// [provider.Unicaster], [provider.MemberWatcher], [provider.Advertiser] and [provider.Cleaner] if
// the Provider inside is one. It is safe for concurrent use as far as that one is.
type FaultyProvider interface {
	provider.Provider

	// SetPartition loses everything in the direction given from now on, what is
	// delayed at the moment included, and nothing in the other. Nobody is told.
	SetPartition(d Direction)

	// Heal ends what SetPartition began. Nobody is told of that either.
	Heal()

	// SetRates replaces the rates. Capabilities stay what they were: a transport
	// that turns out worse than it claims is one more fault.
	SetRates(out, in Rates)

	// Injected returns how often each fault has happened.
	Injected() Injected
}

// Faulty returns a Provider that is p with faults. It does not claim Ordered if
// the faults change the order, and claims Redelivers if they duplicate. Its
// timers are those of package time, so that delays cost nothing in a
// testing/synctest bubble. Frames are never changed: a corrupted one is a copy.
//
// Close sends at once what Out delays, and loses what In delays.
func Faulty(p provider.Provider, faults Faults) FaultyProvider {
	f := &faulty{inner: p, out: newFates(faults.Seed, Out), in: newFates(faults.Seed, In)}
	f.caps = p.Capabilities()
	f.caps.Ordered = f.caps.Ordered && !faults.Out.overtakes() && !faults.In.overtakes()
	f.caps.Redelivers = f.caps.Redelivers || faults.Out.Duplicate > 0 || faults.In.Duplicate > 0
	f.SetRates(faults.Out, faults.In)

	u, isUnicaster := p.(provider.Unicaster)
	w, isWatcher := p.(provider.MemberWatcher)
	f.unicaster = u
	both := faultyBoth{faultyUnicast{f, faultyUnicaster{f}}, w}
	// A type that has a method for what p cannot do would claim it.
	switch {
	case isUnicaster && isWatcher:
		switch a := p.(type) {
		case provider.Cleaner:
			return struct {
				faultyBoth
				cleaner
			}{both, a}
		case provider.Advertiser:
			return struct {
				faultyBoth
				advertiser
			}{both, a}
		}
		return both
	case isUnicaster:
		switch a := p.(type) {
		case provider.Cleaner:
			return struct {
				faultyUnicast
				cleaner
			}{both.faultyUnicast, a}
		case provider.Advertiser:
			return struct {
				faultyUnicast
				advertiser
			}{both.faultyUnicast, a}
		}
		return both.faultyUnicast
	case isWatcher:
		watch := faultyWatch{f, w}
		switch a := p.(type) {
		case provider.Cleaner:
			return struct {
				faultyWatch
				cleaner
			}{watch, a}
		case provider.Advertiser:
			return struct {
				faultyWatch
				advertiser
			}{watch, a}
		}
		return watch
	}
	switch a := p.(type) {
	case provider.Cleaner:
		return struct {
			*faulty
			cleaner
		}{f, a}
	case provider.Advertiser:
		return struct {
			*faulty
			advertiser
		}{f, a}
	}
	return f
}

// The optional interfaces without Provider, which faulty itself is.
type (
	memberWatcher interface{ SetMembers(provider.Members) }
	advertiser    interface{ Addresses() []string }
	cleaner       interface {
		advertiser
		Subscriptions(context.Context, site.ID) ([]provider.Subscription, error)
		Unsubscribe(context.Context, site.ID, provider.Subscription) error
	}
)

// What a FaultyProvider is beside a Provider, without Addresses.
type (
	faultyUnicast struct {
		*faulty
		faultyUnicaster
	}
	faultyWatch struct {
		*faulty
		memberWatcher
	}
	faultyBoth struct {
		faultyUnicast
		memberWatcher
	}
)

// faulty is what all FaultyProviders have in common.
type faulty struct {
	inner     provider.Provider
	unicaster provider.Unicaster // inner, or nil
	caps      provider.Capabilities

	out, in   *fates
	rates     atomic.Pointer[[2]Rates] // out, in
	partition atomic.Uint32            // a Direction

	dropped, duplicated, reordered, corrupted, partitioned, overflowed atomic.Uint64

	mu      sync.Mutex // guards the fields below; not held while calling out
	started bool
	closed  chan struct{} // closed when Close has finished; nil before Close is called

	// Send, SendTo and Deliver each have a line of their own, because none of them may be
	// called concurrently with itself. Set by Start.
	toAll, toOne exit
	arriving     *line
}

func (f *faulty) Name() string                        { return f.inner.Name() }
func (f *faulty) Capabilities() provider.Capabilities { return f.caps }
func (f *faulty) SetPartition(d Direction)            { f.partition.Store(uint32(d)) }
func (f *faulty) Heal()                               { f.partition.Store(0) }
func (f *faulty) SetRates(out, in Rates)              { f.rates.Store(&[2]Rates{out, in}) }

func (f *faulty) Injected() Injected {
	return Injected{
		Dropped:     f.dropped.Load(),
		Duplicated:  f.duplicated.Load(),
		Reordered:   f.reordered.Load(),
		Corrupted:   f.corrupted.Load(),
		Partitioned: f.partitioned.Load(),
		Overflowed:  f.overflowed.Load(),
	}
}

func (f *faulty) Start(ctx context.Context, env provider.Env) error {
	f.mu.Lock()
	switch {
	case f.closed != nil:
		f.mu.Unlock()
		return provider.ErrClosed
	case f.started:
		f.mu.Unlock()
		return errors.New("providertest: faulty provider started twice")
	}
	f.started = true
	f.toAll, f.toOne, f.arriving = newExit("all"), newExit("one"), newLine()
	lines := f.lines()
	f.mu.Unlock()

	deliver := env.Deliver
	env.Deliver = func(b provider.Batch) { f.arrive(b, deliver) }
	if err := f.inner.Start(ctx, env); err != nil {
		for _, l := range lines {
			l.stop()
		}
		return err
	}
	return nil
}

// lines returns what Start made, nothing before.
func (f *faulty) lines() []*line {
	if !f.started {
		return nil
	}
	return []*line{f.toAll.line, f.toOne.line, f.arriving}
}

func (f *faulty) Send(ctx context.Context, frames [][]byte) error {
	return f.send(ctx, &f.toAll, frames, f.inner.Send)
}

// faultyUnicaster adds SendTo.
type faultyUnicaster struct{ f *faulty }

func (u faultyUnicaster) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	f := u.f
	return f.send(ctx, &f.toOne, frames, func(ctx context.Context, frames [][]byte) error {
		return f.unicaster.SendTo(ctx, to, frames)
	})
}

// exit is one way out of the instance: Send or SendTo.
type exit struct {
	sequence string // of fates
	line     *line
	turn     chan struct{} // holds a token while the Provider inside is called, which takes one call at a time
}

// newExit starts an exit's line. It is called inside Start, so that the channels belong to
// the synctest bubble of the instance.
func newExit(sequence string) exit {
	return exit{sequence, newLine(), make(chan struct{}, 1)}
}

// send lets faults happen to frames and hands over the rest, at once if nothing
// delays it and nothing waits before it.
func (f *faulty) send(ctx context.Context, through *exit, frames [][]byte, hand func(context.Context, [][]byte) error) error {
	f.mu.Lock()
	closed, started, x := f.closed != nil, f.started, *through
	f.mu.Unlock()
	// What the transport would say must not depend on which frames are hit.
	if closed {
		return provider.ErrClosed
	}
	if !started {
		return hand(ctx, frames)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, frame := range frames {
		if f.caps.MaxFrameBytes > 0 && len(frame) > f.caps.MaxFrameBytes {
			return provider.ErrFrameTooLarge
		}
	}
	inTurn := func(ctx context.Context, frames [][]byte) error {
		select {
		case x.turn <- struct{}{}:
			defer func() { <-x.turn }()
			return hand(ctx, frames)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	rates := f.rates.Load()[0]
	parcels := f.befall(Out, f.out, rates, x.sequence, frames)
	if !rates.delays() && x.line.idle() && len(parcels) > 0 {
		for _, p := range parcels {
			if err := inTurn(ctx, p.frames); err != nil {
				return err
			}
		}
		return nil
	}
	// An empty batch asks whether the transport, or the instance, is there now. A later error has
	// nobody to go to, as on a real network.
	if err := inTurn(ctx, nil); err != nil {
		return err
	}
	now := time.Now()
	for _, p := range parcels {
		f.queue(x.line, now, p, func(ctx context.Context) {
			if !f.lost(Out, len(p.frames)) {
				inTurn(ctx, p.frames)
			}
		})
	}
	return nil
}

// arrive lets faults happen to what the Provider inside delivers.
func (f *faulty) arrive(b provider.Batch, deliver func(provider.Batch)) {
	rates := f.rates.Load()[1]
	parcels := f.befall(In, f.in, rates, b.From, b.Frames)
	done := countdown(len(parcels), b.Done)
	if !rates.delays() && f.arriving.idle() {
		for _, p := range parcels {
			deliver(provider.Batch{Frames: p.frames, From: b.From, Done: done})
		}
		return
	}
	now := time.Now()
	for _, p := range parcels {
		queued := f.queue(f.arriving, now, p, func(context.Context) {
			if !f.lost(In, len(p.frames)) {
				deliver(provider.Batch{Frames: p.frames, From: b.From, Done: done})
			} else if done != nil {
				done()
			}
		})
		if !queued && done != nil {
			done()
		}
	}
}

// countdown returns a function that calls done when it has been called n times. With n = 0
// it calls done now. A nil done gives nil.
func countdown(n int, done func()) func() {
	if done == nil {
		return nil
	}
	if n == 0 {
		done()
		return nil
	}
	var left atomic.Int64
	left.Store(int64(n))
	return func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
}

// parcel is a run of frames that have the same delay.
type parcel struct {
	delay  time.Duration
	frames [][]byte
}

// befall draws the fate of each frame and returns what is left of them.
func (f *faulty) befall(d Direction, fates *fates, rates Rates, sequence string, frames [][]byte) []parcel {
	drawn := fates.draw(sequence, len(frames))
	if f.lost(d, len(frames)) {
		return nil
	}
	var parcels []parcel
	add := func(delay time.Duration, frame []byte) {
		if n := len(parcels); n > 0 && parcels[n-1].delay == delay {
			parcels[n-1].frames = append(parcels[n-1].frames, frame)
			return
		}
		parcels = append(parcels, parcel{delay, [][]byte{frame}})
	}
	hold := rates.Hold
	if hold == 0 {
		hold = 5 * time.Millisecond
	}
	for i, frame := range frames {
		fate := drawn[i]
		if fate.drop < rates.Drop {
			f.dropped.Add(1)
			continue
		}
		if fate.corrupt < rates.Corrupt && len(frame) > 0 {
			f.corrupted.Add(1)
			bit := fate.bit % (8 * uint64(len(frame)))
			frame = bytes.Clone(frame)
			frame[bit/8] ^= 1 << (bit % 8)
		}
		delay := rates.Delay + time.Duration(fate.jitter*float64(rates.Jitter))
		if fate.reorder < rates.Reorder {
			f.reordered.Add(1)
			delay += hold
		}
		add(delay, frame)
		if fate.duplicate < rates.Duplicate {
			f.duplicated.Add(1)
			add(rates.Delay+time.Duration(fate.jitterOfCopy*float64(rates.Jitter)), frame)
		}
	}
	return slices.Clip(parcels)
}

// lost reports whether n frames are lost to a partition.
func (f *faulty) lost(d Direction, n int) bool {
	if Direction(f.partition.Load())&d == 0 {
		return false
	}
	f.partitioned.Add(uint64(n))
	return true
}

// queue makes fn run when the parcel's delay is over. False means that the line is full.
func (f *faulty) queue(l *line, now time.Time, p parcel, fn func(context.Context)) bool {
	if l.put(now.Add(p.delay), len(p.frames), fn) {
		return true
	}
	f.overflowed.Add(uint64(len(p.frames)))
	return false
}

// flushTime is how long Close goes on sending what was delayed.
const flushTime = time.Second

func (f *faulty) Close() error {
	f.mu.Lock()
	if closed := f.closed; closed != nil {
		f.mu.Unlock()
		<-closed
		return nil
	}
	closed := make(chan struct{})
	f.closed = closed
	lines := f.lines()
	f.mu.Unlock()
	defer close(closed)

	if lines != nil {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		f.toAll.line.flush(ctx)
		f.toOne.line.flush(ctx)
	}
	// It ends the Send that a line may wait in, and waits for the Deliver that runs inline.
	err := f.inner.Close()
	for _, l := range lines {
		l.stop()
	}
	return err
}
