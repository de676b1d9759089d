package carillon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A Broker is one instance's part in the events of its site. It is safe for
// concurrent use. Use [Open] to make one, and Shutdown or Close to end it.
type Broker struct {
	cfg    Config // with defaults; read-only
	log    *slog.Logger
	siteID site.ID
	local  bool // no providers: events stay in this process
	trust  bool // tags of event frames need not be checked, see Config
	opener *seal.Opener
	outs   []*outlet // one per transport, those of Config.Providers first; read-only

	events   sync.Map                     // ID → *Event
	payloads sync.Pool                    // *[]byte
	incoming sync.Pool                    // *[]incoming
	self     atomic.Pointer[Source]       // this instance; never nil
	sealers  atomic.Pointer[[]*sealer]    // newest first; a sealer per stream and key of this instance
	keyring  atomic.Pointer[keyring]      // never nil
	own      atomic.Pointer[ownStreams]   // never nil
	taps     atomic.Pointer[[]*tapSub]    // changed with mu held
	missed   atomic.Pointer[[]*missedSub] // all of all events; changed with mu held
	doubts   atomic.Pointer[[]*doubtSub]  // changed with mu held

	health   health
	drops    drops
	panicLog rate
	misses   misses
	counts   struct {
		unasked, lost, panics                       atomic.Uint64
		framesReceived, bytesReceived, controlDrops atomic.Uint64
		clones                                      atomic.Uint64
	}

	running  running // goroutines that call subscribers
	loans    loans   // of goroutines of providers
	handlers context.Context
	stopCall func()        // ends handlers
	stopped  atomic.Bool   // handlers has ended
	noted    atomic.Bool   // notes holds something
	closing  atomic.Bool   // Shutdown or Close has begun; set with mu held
	hard     chan struct{} // closed when Close has begun
	done     chan struct{} // closed when all has ended

	senders atomic.Pointer[[]*outlet] // that events are sent on; changed with hand.turn held
	chosen  atomic.Pointer[[]*outlet] // that they are to be sent on; of follow, and of Open before it
	turning sync.WaitGroup            // goroutines that start and stop providers, begun by follow
	route   netip.Addr                // see provider.Env; read-only after Open
	carried atomic.Uint64             // see site.Member.Carries
	way     atomic.Pointer[wayStatus] // nil before the first look at it

	// Of follow, and of Open before it.
	rowDirty bool   // the row lacks addresses, or names of transports
	told     string // what was logged last of what is missing

	hand      hand
	loops     sync.WaitGroup  // tick, send
	loopCtx   context.Context // ends tick and send
	stopLoops context.CancelFunc
	rowLoop   sync.WaitGroup              // follow, clean
	ended     map[site.StreamID]site.Mark // where the streams that this instance had ended; of follow, and of teardown after it
	followCtx context.Context             // ends follow and clean
	stopRows  context.CancelFunc

	tickWake   chan struct{} // capacity 1: Machine.Next has become earlier
	sendWake   chan struct{} // capacity 1: there is something to send
	followWake chan struct{} // capacity 1: read the member table now
	inStep     chan struct{} // closed when in step

	// mu guards the fields below. Nobody is called while it is held: neither
	// subscribers nor providers nor the database. What the machine wants told is
	// pushed into the subscribers' queues before it is released, so that all queues
	// have it in the order of the machine.
	mu            sync.Mutex
	machine       *engine.Machine        // nil until the member row is committed
	fx            engine.Effects         // of the call just made
	offer         offer                  // of the goroutine that receives
	verdicts      [numDropReasons]uint64 // drops counted by the machine that b.drops has
	nextTick      time.Time              // when tick wakes; zero: only when woken
	enabled       bool
	sending       bool // event frames may be taken
	sendDue       bool // somebody was asked to send what was raised, and has not taken it yet
	hardClosed    bool
	hold          holdBack
	crowd         crowd
	orderedEvents []*Event
	control       []controlFrame
	repairs       []controlFrame // sealed already
	repairBytes   int
	notes         []note
	controlQueued uint64    // control frames queued so far
	controlSent   uint64    // of those, tried
	raised        uint64    // events numbered so far, in all streams
	handed        uint64    // of those, accepted by a provider
	space         broadcast // Raise may try again
	progress      broadcast // controlSent or handed has grown, or others have acknowledged
	rows          memberTable
	guard         guard
	asked         bool          // the machine wants the member table read
	gone          bool          // the own row is gone
	keyReadAt     time.Time     // unknown keys provoke no read before
	keyWait       time.Duration // between the last two reads that they provoked
}

// Enable begins dispatch: what was received since Open is told to subscribers, then
// what comes, and what was raised meanwhile is sent. Call it when the
// application has loaded what its subscribers keep in step, such as caches.
// Calling it again does nothing.
func (b *Broker) Enable() {
	b.mu.Lock()
	b.enabled, b.sending = true, true
	b.releaseHeldLocked()
	b.mu.Unlock()
	b.logDropped()
	poke(b.sendWake)
}

// Event returns the object of the event with this ID, the same for every call.
// The first call makes it.
func (b *Broker) Event(id ID) *Event {
	if e := b.lookup(id); e != nil {
		return e
	}
	e, _ := b.events.LoadOrStore(id, &Event{b: b, id: id})
	return e.(*Event)
}

// lookup returns the event, or nil if nobody has asked for it.
func (b *Broker) lookup(id ID) *Event {
	if e, ok := b.events.Load(id); ok {
		return e.(*Event)
	}
	return nil
}

// OnReceived registers fn to be told of every event received from elsewhere,
// also of those that nobody here asked for. It is for watching: what does not
// fit into its queue of [Config.QueueBytes] is dropped and counted, and nothing is
// told of misses. Otherwise it is like [Event.OnRaised].
func (b *Broker) OnReceived(fn func(Received)) (remove func()) {
	s := &tapSub{b: b, fn: fn}
	s.queue.limit, s.queue.handle, s.queue.group = b.cfg.QueueBytes, s.handle, &b.running
	b.mu.Lock()
	defer b.mu.Unlock()
	appendTo(&b.taps, s)
	return func() {
		s.removed.Store(true)
		b.mu.Lock()
		defer b.mu.Unlock()
		removeFrom(&b.taps, s)
	}
}

// maxDoubts bounds the notices that wait for one OnInDoubt function.
const maxDoubts = 256

// OnInDoubt registers fn to be told that something an instance raised has been missing
// here for a quarter of a second, and may still be repaired. A cache can use the
// time to ask its database whether what it holds is still true. Whatever it
// was ends as Raised or Missed later. There is at most one notice per
// instance in a quarter of a second. Otherwise it is like [Event.OnRaised].
func (b *Broker) OnInDoubt(fn func(Source)) (remove func()) {
	s := &doubtSub{b: b, fn: fn}
	s.queue.limit, s.queue.handle, s.queue.group = maxDoubts*entryBytes, s.handle, &b.running
	b.mu.Lock()
	defer b.mu.Unlock()
	appendTo(&b.doubts, s)
	return func() {
		s.removed.Store(true)
		b.mu.Lock()
		defer b.mu.Unlock()
		removeFrom(&b.doubts, s)
	}
}

// Done returns a channel that is closed when the Broker has ended: after Close, or
// after Shutdown.
func (b *Broker) Done() <-chan struct{} { return b.done }

// number gives ev to the machine, waiting for room if it must.
func (b *Broker) number(ctx context.Context, ev *wire.Event, ordered bool) error {
	for {
		b.mu.Lock()
		if b.closing.Load() {
			b.mu.Unlock()
			return fmt.Errorf("%w: %w", ErrUnsent, ErrClosed)
		}
		if !ordered && b.machine.Add(ev) { // the usual case, in which no time is needed
			wake := b.raisedLocked()
			b.mu.Unlock()
			if wake {
				b.sendSoon()
			}
			return nil
		}
		now := time.Now()
		_, err := b.machine.Raise(now, ev, ordered)
		wake := err == nil && b.raisedLocked()
		b.applyLocked(now)
		enabled := b.enabled
		var room <-chan struct{}
		if err != nil {
			room = b.space.wait()
		}
		b.mu.Unlock()
		if wake {
			b.sendSoon()
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, engine.ErrFull):
			return fmt.Errorf("%w: %w", ErrUnsent, err)
		case !enabled:
			return fmt.Errorf("%w: %w: %d bytes are waiting (Config.UnsentBytes)", ErrUnsent, ErrNotEnabled, b.cfg.UnsentBytes)
		}
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnsent, context.Cause(ctx))
		case <-b.hard:
			return fmt.Errorf("%w: %w", ErrUnsent, ErrClosed)
		}
	}
}

// raisedLocked notes that an event was numbered, and reports whether sendSoon must be called for
// it. b.mu is held.
func (b *Broker) raisedLocked() (wake bool) {
	b.raised++
	wake, b.sendDue = !b.sendDue, true
	return wake
}

// Flush waits until everything raised so far was accepted by a provider, or
// until ctx ends. Accepted does not mean received. Before Enable it waits for
// Enable, if anything was raised.
func (b *Broker) Flush(ctx context.Context) error {
	if b.closing.Load() {
		return ErrClosed
	}
	return b.flush(ctx)
}

func (b *Broker) flush(ctx context.Context) error {
	b.mu.Lock()
	want := b.raised
	b.mu.Unlock()
	left, err := b.waitProgress(ctx, func() uint64 { return want - min(b.handed, want) })
	if err != nil {
		b.mu.Lock()
		enabled := b.enabled
		b.mu.Unlock()
		if !enabled {
			return fmt.Errorf("carillon: flush: %d events wait for Enable: %w", left, err)
		}
		return fmt.Errorf("carillon: flush: %d events were not handed to a provider: %w", left, err)
	}
	return nil
}

// waitProgress waits until missing, which is called with the mutex held, is 0, and
// returns what was missing when it gave up.
func (b *Broker) waitProgress(ctx context.Context, missing func() uint64) (uint64, error) {
	for {
		b.mu.Lock()
		n := missing()
		progress := b.progress.wait()
		b.mu.Unlock()
		if n == 0 {
			return 0, nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return n, context.Cause(ctx)
		case <-b.hard:
			return n, ErrClosed
		}
	}
}

// tick calls the machine when its time has come.
func (b *Broker) tick() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		b.mu.Lock()
		now := time.Now()
		if at := b.machine.Next(); !at.IsZero() && !now.Before(at) {
			b.machine.Tick(now, &b.fx)
			b.applyLocked(now)
			b.countVerdictsLocked()
		}
		if len(b.crowd.subs) > 0 {
			b.machine.SetRoom(now, b.roomLocked(now), &b.fx)
			b.applyLocked(now)
		}
		b.nextTick = b.machine.Next()
		at := b.nextTick
		b.mu.Unlock()
		b.logDropped()

		select {
		case <-alarm(timer, at):
		case <-b.tickWake:
		case <-b.loopCtx.Done():
			return
		}
	}
}

// alarm sets timer to go off at the time given, and returns its channel; nil,
// which is never ready, for the zero Time.
func alarm(timer *time.Timer, at time.Time) <-chan time.Time {
	timer.Stop()
	if at.IsZero() {
		return nil
	}
	timer.Reset(time.Until(at))
	return timer.C
}

// applyLocked does what the machine asks for. b.mu is held.
func (b *Broker) applyLocked(now time.Time) {
	fx := &b.fx
	for i := range fx.Items {
		b.itemLocked(&fx.Items[i])
	}
	for i := range fx.Control {
		b.queueControlLocked(now, &fx.Control[i])
	}
	for _, r := range fx.Repairs {
		if b.repairBytes < maxRepairs { // whoever needs the rest asks again
			b.repairs = append(b.repairs, controlFrame{bytes: r.Frame, to: r.To})
			b.repairBytes += len(r.Frame)
		}
	}
	if len(fx.Control)+len(fx.Repairs) > 0 {
		poke(b.sendWake)
	}
	for _, d := range fx.InDoubt {
		b.tellDoubtLocked(d)
	}
	for _, s := range fx.Strangers {
		b.suspectLocked(s)
	}
	for _, h := range fx.Witnesses {
		b.heardWitnessLocked(h)
	}
	if fx.Cloned {
		b.counts.clones.Add(1)
		b.sayLocked(slog.LevelError, "another process speaks in the name of this instance, or did: its memory was copied, or put back to what it was; going on with a new stream")
		b.gone = true
		poke(b.followWake)
	}
	if fx.AskMembers {
		b.asked = true
		poke(b.followWake)
	}
	if fx.Gone && !b.gone {
		b.gone = true
		poke(b.followWake)
	}
	if fx.InStep {
		close(b.inStep)
	}
	if fx.Send {
		poke(b.sendWake)
	}
	if fx.Space {
		b.space.signal()
		b.progress.signal()
	}
	fx.Reset()
	if at := b.machine.Next(); !at.IsZero() && (b.nextTick.IsZero() || at.Before(b.nextTick)) {
		b.nextTick = at
		poke(b.tickWake)
	}
}

// A controlFrame waits to be sealed and sent.
type controlFrame struct {
	bytes []byte
	to    site.StreamID // zero: everybody
	idle  time.Time     // when it was said though nothing had happened; zero: something had
}

// maxRepairs bounds the bytes of repairs that wait while a provider holds them up.
const maxRepairs = 512 << 10

// maxControl bounds the control frames that wait. They are repeated as
// long as they matter, so the oldest can go.
const maxControl = 1024

func (b *Broker) queueControlLocked(now time.Time, c *engine.Control) {
	if len(b.control) >= maxControl {
		b.control = slices.Delete(b.control, 0, 1)
		b.counts.controlDrops.Add(1)
		b.controlSent++
	}
	f := controlFrame{bytes: c.Frame, to: c.To}
	if c.Idle {
		f.idle = now
	}
	b.control = append(b.control, f)
	b.controlQueued++
}

// verdictDrops says which drop each verdict of the machine is.
var verdictDrops = [...]struct {
	verdict engine.Verdict
	reason  DropReason
}{
	{engine.Duplicate, DropDuplicate}, {engine.Late, DropLate}, {engine.BeforeBaseline, DropBeforeBaseline},
	{engine.UnknownStream, DropUnknownStream}, {engine.ClosedStream, DropClosedStream},
	{engine.HoldOverflow, DropHeldOverflow}, {engine.Inconsistent, DropInconsistent},
	{engine.Undecodable, DropUndecodable}, {engine.Full, DropWindowFull},
}

// countVerdictsLocked counts what the machine dropped since the last call.
func (b *Broker) countVerdictsLocked() {
	counts := b.machine.Counts()
	for _, v := range verdictDrops {
		if n := counts[v.verdict]; n > b.verdicts[v.reason] {
			b.drops.add(v.reason, n-b.verdicts[v.reason])
			b.verdicts[v.reason] = n
		}
	}
}
