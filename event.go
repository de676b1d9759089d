package carillon

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/carillon-go/carillon/internal/wire"
)

// An Event is what a GUID stands for in one Broker: subscribers are registered
// with it, and it is raised. It is safe for concurrent use. [Broker.Event]
// returns it.
//
// Each registered function has a queue of its own. What comes from elsewhere is
// told to it on a goroutine of the Broker or of a provider, one call at a time and in order, so
// that a slow function delays no other. What this instance raises is told on
// the goroutine that calls Raise, possibly while another call runs. A panic in a
// function is recovered, counted and logged.
//
// The context given to a function is that of the Raise call when it runs inside
// Raise; otherwise it ends when the Broker has stopped.
type Event struct {
	b  *Broker
	id ID

	def atomic.Pointer[definition] // nil: untyped

	mu     sync.Mutex // held to change the two lists
	raised atomic.Pointer[[]*raisedSub]
	missed atomic.Pointer[[]*missedSub]

	sent, kept, received, lost, panics atomic.Uint64 // kept: raised, and told to this instance alone
}

// Counts is how often things happened to one event since the Broker was opened.
type Counts struct {
	Sent     uint64 // raised for other instances
	Received uint64 // raised by other instances, whether or not anybody subscribes
	Local    uint64 // raised by this instance, whether or not it was sent
	Missed   uint64 // missed, as far as they are known to have been this event
	Panics   uint64 // in functions registered with it
}

// ID returns the event's GUID.
func (e *Event) ID() ID { return e.id }

// Counts returns the event's counters.
func (e *Event) Counts() Counts {
	return Counts{
		Sent: e.sent.Load(), Received: e.received.Load(), Local: e.sent.Load() + e.kept.Load(),
		Missed: e.lost.Load(), Panics: e.panics.Load(),
	}
}

// OnRaised registers fn to be told when the event is raised, here or, unless
// this instance's role is Publish, elsewhere. From its return on, every event
// that this instance can know to exist is told to fn, or missed.
//
// The parameter is what the event's definition decodes; without a definition it is
// nil, a []byte or a string. For the order of calls and for panics see [Event]. A fn that is slower than
// events come for so long that [Config.QueueBytes] wait for it misses events.
//
// The function returned removes fn without waiting: a call that runs goes on,
// and none starts after it has returned. Removing twice is fine.
func (e *Event) OnRaised(fn func(ctx context.Context, r Raised[any])) (remove func()) {
	return e.subscribe(&raisedSub{ev: e, fn: fn})
}

func (e *Event) subscribe(s *raisedSub) (remove func()) {
	s.queue.limit, s.queue.handle, s.queue.group = e.b.cfg.QueueBytes, s.handle, &e.b.running
	s.queue.offer = &e.b.offer
	e.mu.Lock()
	defer e.mu.Unlock()
	appendTo(&e.raised, s)
	return func() {
		s.removed.Store(true)
		e.mu.Lock()
		defer e.mu.Unlock()
		removeFrom(&e.raised, s)
	}
}

// OnMissed registers fn to be told of events that were missed: this one, or
// possibly this one when it is not known which. What to do is usually what one
// would do had all of them been raised, such as clearing a cache. Without an
// OnMissed, counters and the log tell.
//
// fn is called at most every 100 ms, for what was missed meanwhile in one
// report. Of an event whose definition is [Ordered], a miss is told before the
// events that follow it. Otherwise see [Event]. The function returned removes fn as that of
// OnRaised does.
func (e *Event) OnMissed(fn func(ctx context.Context, m Missed)) (remove func()) {
	s := &missedSub{ev: e, fn: fn}
	e.mu.Lock()
	appendTo(&e.missed, s)
	e.mu.Unlock()
	e.b.mu.Lock()
	appendTo(&e.b.missed, s)
	e.b.mu.Unlock()
	return func() {
		s.remove()
		e.mu.Lock()
		removeFrom(&e.missed, s)
		e.mu.Unlock()
		e.b.mu.Lock()
		removeFrom(&e.b.missed, s)
		e.b.mu.Unlock()
	}
}

// The lists of subscribers are read without a lock, and copied to be changed.
func appendTo[T any](list *atomic.Pointer[[]T], v T) {
	next := append(slices.Clip(load(list)), v)
	list.Store(&next)
}

func removeFrom[T comparable](list *atomic.Pointer[[]T], v T) {
	next := slices.DeleteFunc(slices.Clone(load(list)), func(w T) bool { return w == v })
	list.Store(&next)
}

func load[T any](list *atomic.Pointer[[]T]) []T {
	if p := list.Load(); p != nil {
		return *p
	}
	return nil
}

// A RaiseOption changes what one raise does.
type RaiseOption struct{ localOnly bool }

// LocalOnly keeps a raise in this instance. Its parameter may be of any type, if the
// event has no definition.
func LocalOnly() RaiseOption { return RaiseOption{localOnly: true} }

func staysHere(opts []RaiseOption) bool {
	for _, o := range opts {
		if o.localOnly {
			return true
		}
	}
	return false
}

// Raise tells the event to all subscribers: first to those of this instance, in
// the order of their registration and before Raise returns, then to the
// instances elsewhere. raiser is passed along; it may be zero.
//
// The parameter must be of the type of the event's definition. Without one it is
// nil, a []byte or a string, unless the raise stays in this instance. It is encoded
// only if it leaves this instance: a Broker without providers finds no fault with a
// parameter that cannot be.
//
// Raise does not wait for the network: what could not be sent is kept and sent
// later. It waits only while [Config.UnsentBytes] are unsent or a live receiver
// is far behind, and there until ctx ends: then the error is [ErrUnsent]. ctx is not
// looked at otherwise. Before Enable, Raise keeps what is to be sent, never
// waits, and returns ErrUnsent with [ErrNotEnabled] when there is too much.
//
// On every other error nothing was raised: [ErrClosed], [ErrRole],
// [ErrTooLarge], or a parameter that cannot be encoded.
func (e *Event) Raise(ctx context.Context, raiser ID, parameter any, opts ...RaiseOption) error {
	return raise(ctx, e, raiser, parameter, staysHere(opts))
}

// raise is [Event.Raise]. T is any, or the type of the event's definition.
func raise[T any](ctx context.Context, e *Event, raiser ID, parameter T, local bool) error {
	local = local || e.b.local
	if err := e.mayRaise(local); err != nil {
		return err
	}
	// The list before the definition: who is in the list because of a definition
	// must not be told a parameter of another type.
	subs := load(&e.raised)
	def := e.def.Load()
	if local {
		if p, ok := any(&parameter).(*any); ok && def != nil {
			if err := def.check(*p); err != nil {
				return fmt.Errorf("carillon: raise event %s: %w", e.name(), err)
			}
		}
		tellHere(ctx, e, subs, raiser, parameter)
		e.kept.Add(1)
		return nil
	}
	if p, ok := any(&parameter).(*[]byte); ok && def.codec == (bytesCodec{}) {
		if err := e.checkSize(len(*p)); err != nil {
			return err
		}
		tellHere(ctx, e, subs, raiser, parameter)
		return e.send(ctx, raiser, *p, def.ordered)
	}
	payload, err := e.b.encode(e, def, parameter)
	if err != nil {
		return err
	}
	tellHere(ctx, e, subs, raiser, parameter)
	err = e.send(ctx, raiser, *payload, def != nil && def.ordered)
	e.b.payloads.Put(payload)
	return err
}

// tellHere tells the subscribers of this instance.
func tellHere[T any](ctx context.Context, e *Event, subs []*raisedSub, raiser ID, parameter T) {
	if len(subs) == 0 {
		return
	}
	r := Raised[T]{Event: e.id, Raiser: raiser, Parameter: parameter, Local: true, Source: *e.b.self.Load()}
	for len(subs) > 0 {
		subs = tellSome(ctx, subs, &r)
	}
}

// tellSome tells the functions that were not removed until one panics, and returns those
// behind it: a panic in one does not keep the others from theirs.
func tellSome[T any](ctx context.Context, subs []*raisedSub, r *Raised[T]) (rest []*raisedSub) {
	at := 0
	defer func() {
		if v := recover(); v != nil {
			subs[at].ev.panicked("OnRaised", v)
			rest = subs[at+1:]
		}
	}()
	for ; at < len(subs); at++ {
		s := subs[at]
		if s.removed.Load() {
			continue
		}
		if typed, ok := s.alone.(*alone[T]); ok {
			typed.fn(ctx, *r)
		} else {
			s.fn(ctx, withParameter(r, any(r.Parameter)))
		}
	}
	return nil
}

// mayRaise returns why there is no raise, here or, unless local, elsewhere; or nil.
func (e *Event) mayRaise(local bool) error {
	switch {
	case e.b.closing.Load():
		return ErrClosed
	case e.id.IsZero():
		return fmt.Errorf("carillon: raise event %v: the ID is zero; it names no event", e.id)
	case !local && e.b.cfg.Role&Publish == 0:
		return fmt.Errorf("%w: its role is %v; use LocalOnly or change Config.Role", ErrRole, e.b.cfg.Role)
	}
	return nil
}

// send has the event told to the subscribers elsewhere. It does not keep payload.
func (e *Event) send(ctx context.Context, raiser ID, payload []byte, ordered bool) error {
	err := e.b.number(ctx, &wire.Event{ID: e.id, Raiser: raiser, Payload: payload}, ordered)
	if err == nil {
		e.sent.Add(1)
	} else {
		e.kept.Add(1)
	}
	return err
}

func (e *Event) checkSize(bytes int) error {
	if most := e.b.cfg.MaxEventBytes; bytes > most {
		return fmt.Errorf("%w: %d bytes of parameter for event %s, at most %d", ErrTooLarge, bytes, e.name(), most)
	}
	return nil
}

// encode returns the parameter as it travels, in memory to be put back into
// b.payloads.
func (b *Broker) encode(e *Event, def *definition, parameter any) (*[]byte, error) {
	buf, ok := b.payloads.Get().(*[]byte)
	if !ok || cap(*buf) > 1<<16 {
		buf = new([]byte)
	}
	var err error
	if def != nil {
		*buf, err = def.encode((*buf)[:0], parameter)
	} else {
		*buf, err = encodeUntyped((*buf)[:0], parameter)
	}
	if err != nil {
		return nil, fmt.Errorf("carillon: raise event %s: encode the parameter: %w", e.name(), err)
	}
	return buf, e.checkSize(len(*buf))
}

// decode turns a payload into a parameter, or says that it cannot.
func (e *Event) decode(payload []byte) (v any, ok bool) {
	def := e.def.Load()
	if def == nil {
		v, err := decodeUntyped(payload)
		return v, err == nil
	}
	defer func() {
		if p := recover(); p != nil {
			e.panicked("the codec", p)
			v, ok = nil, false
		}
	}()
	v, err := def.decode(payload)
	return v, err == nil
}

// ordered reports whether the event's definition is Ordered.
func (e *Event) ordered() bool {
	def := e.def.Load()
	return def != nil && def.ordered
}

// name returns what people call the event: its name and its ID.
func (e *Event) name() string {
	if def := e.def.Load(); def != nil {
		return fmt.Sprintf("%q (%v)", def.name, e.id)
	}
	return e.id.String()
}

// panicked counts and logs a panic in the application's code.
func (e *Event) panicked(where string, v any) {
	e.panics.Add(1)
	e.b.panicked(where, e.id, v)
}

func (b *Broker) panicked(where string, event ID, v any) {
	b.counts.panics.Add(1)
	b.panicLog.log(b.log, "a function of the application panicked",
		"where", where, keyEvent, event, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
}

// Untyped parameters begin with a byte that says what they are.
const (
	untypedNil = iota
	untypedBytes
	untypedString
)

func encodeUntyped(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, untypedNil), nil
	case []byte:
		return append(append(dst, untypedBytes), v...), nil
	case string:
		return append(append(dst, untypedString), v...), nil
	}
	return dst, fmt.Errorf("a parameter of type %T does not travel: define the event with Define, or use LocalOnly", v)
}

func decodeUntyped(payload []byte) (any, error) {
	if len(payload) > 0 {
		switch rest := payload[1:]; {
		case payload[0] == untypedNil && len(rest) == 0:
			return nil, nil
		case payload[0] == untypedBytes:
			return slices.Clone(rest), nil // frames are immutable, and this is the application's
		case payload[0] == untypedString:
			return string(rest), nil
		}
	}
	return nil, fmt.Errorf("carillon: not an untyped parameter")
}
