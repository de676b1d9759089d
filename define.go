package carillon

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"
)

// A Definition says what an event means to this program: its name, the type of
// its parameter, how that is encoded, and whether its order matters. It is
// usually a variable of a package, is read-only, and serves any number of
// Brokers. Use [Define] to make one.
//
// Only types that a program has defined ever travel: a received event is decoded into the
// type of the definition that its receiver has, and nothing on the wire names a type.
type Definition[T any] struct{ def *definition }

// definition is a Definition without its type parameter.
type definition struct {
	id      ID
	name    string
	typ     reflect.Type
	codec   Codec
	ordered bool

	check  func(v any) error // whether v is of the type
	decode func(payload []byte) (any, error)

	// event is the object of the Broker that was asked for last, usually the only one: to find it by its
	// ID takes longer than all else that a raise does with it. A Broker that closes is forgotten.
	event atomic.Pointer[Event]
}

// A Codec turns parameters into bytes and back. It is safe for concurrent use.
type Codec interface {
	// Name is the codec's name. Definitions of one event that differ in it are
	// in conflict.
	Name() string
	// Encode appends the encoding of v to dst and returns the result.
	Encode(dst []byte, v any) ([]byte, error)
	// Decode decodes data into what v points to. It neither changes nor keeps data, and does not keep v.
	Decode(data []byte, v any) error
}

// JSON returns the default codec, that of package encoding/json.
func JSON() Codec { return jsonCodec{} }

type jsonCodec struct{}

func (jsonCodec) Name() string { return "json" }

func (jsonCodec) Encode(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func (jsonCodec) Decode(data []byte, v any) error { return json.Unmarshal(data, v) }

// Bytes returns the codec for parameters of type []byte, which travel as they
// are. It is the fastest: nothing is copied. A subscriber elsewhere is told a part of
// the frame that arrived, which nobody may change; and what is kept of it keeps the whole frame in
// memory, so clone what is kept for long.
func Bytes() Codec { return bytesCodec{} }

type bytesCodec struct{}

func (bytesCodec) Name() string { return "bytes" }

func (bytesCodec) Encode(dst []byte, v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return dst, fmt.Errorf("the codec Bytes takes a []byte, not %T", v)
	}
	return append(dst, b...), nil
}

func (bytesCodec) Decode(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("the codec Bytes gives a []byte, not %T", v)
	}
	*b = data
	return nil
}

// A DefineOption changes a definition.
type DefineOption func(*definition)

// WithCodec has parameters encoded by c instead of as JSON. All instances of a
// site must agree.
func WithCodec(c Codec) DefineOption { return func(d *definition) { d.codec = c } }

// Ordered has subscribers elsewhere told of the events of one instance in the
// order in which they were raised: a subscriber waits while one that precedes
// is missing, until it arrives or is told as missed. Without it, events are
// told as they come. Nothing is promised between different events, between
// instances, or between raises that run at the same time.
func Ordered() DefineOption { return func(d *definition) { d.ordered = true } }

// Define defines an event. The name is for people and must not be empty, nor
// the ID zero: Define panics.
func Define[T any](id ID, name string, opts ...DefineOption) *Definition[T] {
	if id.IsZero() || name == "" {
		panic(fmt.Sprintf("carillon: define event %q (%v): it needs a name and an ID that is not zero", name, id))
	}
	d := &definition{id: id, name: name, typ: reflect.TypeFor[T](), codec: jsonCodec{}}
	for _, o := range opts {
		o(d)
	}
	d.check = func(v any) error {
		if _, ok := v.(T); !ok && (v != nil || d.typ.Kind() != reflect.Interface) {
			return fmt.Errorf("it is defined with a parameter of type %v, not %T", d.typ, v)
		}
		return nil
	}
	d.decode = func(payload []byte) (any, error) {
		v := new(T)
		err := d.codec.Decode(payload, v)
		return *v, err
	}
	return &Definition[T]{d}
}

func (d *definition) encode(dst []byte, v any) ([]byte, error) {
	if err := d.check(v); err != nil {
		return dst, err
	}
	return d.codec.Encode(dst, v)
}

// sameAs reports whether it makes no difference which of the two is used.
func (d *definition) sameAs(o *definition) bool {
	return d.name == o.name && d.typ == o.typ && d.ordered == o.ordered && d.codec.Name() == o.codec.Name()
}

// ID returns the event's GUID.
func (d *Definition[T]) ID() ID { return d.def.id }

// Name returns the event's name.
func (d *Definition[T]) Name() string { return d.def.name }

// Event returns b's object of the event, which has this definition from then
// on. It panics when it has another one already that differs in name, type, codec or
// order: two parts of the program use one GUID for two events.
func (d *Definition[T]) Event(b *Broker) *Event {
	if e := d.def.event.Load(); e != nil && e.b == b {
		return e
	}
	e := b.Event(d.def.id)
	d.def.define(e)
	if !b.closing.Load() {
		d.def.event.Store(e)
	}
	return e
}

// define makes d the definition of e.
func (d *definition) define(e *Event) {
	if e.def.Load() == d {
		return
	}
	if !e.def.CompareAndSwap(nil, d) {
		if was := e.def.Load(); !was.sameAs(d) {
			panic(fmt.Sprintf("carillon: event %v is defined twice: as %q with %v and as %q with %v",
				d.id, was.name, was.typ, d.name, d.typ))
		}
		return
	}
	if d.ordered {
		e.b.mu.Lock()
		e.b.orderedEvents = append(e.b.orderedEvents, e)
		e.b.mu.Unlock()
	}
}

// OnRaised is [Event.OnRaised] with the parameter's type. An event received
// whose parameter does not decode is missed.
//
// What this instance raises is told on the goroutine that raises it, what others raise on one of
// the Broker's, so fn may run twice at the same time: what it changes needs a mutex.
func (d *Definition[T]) OnRaised(b *Broker, fn func(ctx context.Context, r Raised[T])) (remove func()) {
	e := d.Event(b)
	return e.subscribe(&raisedSub{
		ev: e,
		fn: func(ctx context.Context, r Raised[any]) {
			v, _ := r.Parameter.(T) // of this type or, if that is an interface, nil: see definition.check
			fn(ctx, withParameter(&r, v))
		},
		alone: &alone[T]{codec: d.def.codec, fn: fn},
	})
}

// withParameter returns r with another parameter.
func withParameter[T, U any](r *Raised[U], v T) Raised[T] {
	return Raised[T]{
		Event: r.Event, Raiser: r.Raiser, Parameter: v, Local: r.Local,
		Source: r.Source, Ordinal: r.Ordinal, Sent: r.Sent,
	}
}

// An alone decodes parameters for the one function that is told of them, into
// memory that it uses again: nothing is allocated but what the codec needs. It is used by
// one goroutine at a time.
type alone[T any] struct {
	codec     Codec
	fn        func(context.Context, Raised[T])
	parameter T // that was decoded last
	decoding  bool
}

func (a *alone[T]) tell(s *raisedSub, d *delivery) {
	// What fn gets is put together in a variable of this function: out of memory that others could see it would be
	// copied twice.
	r := Raised[T]{Event: s.ev.id, Source: *d.source, Sent: time.UnixMicro(d.clock)}
	raw, isRaw := any(&r.Parameter).(*[]byte)
	isRaw = isRaw && a.codec == (bytesCodec{})
	for d.next < d.end {
		i, wanted := s.take(d)
		switch {
		case !wanted:
			continue
		case isRaw:
			*raw = d.events.Payload(i)
		case a.decode(d.events.Payload(i)) != nil:
			s.missed(d.miss(i))
			continue
		default:
			r.Parameter = a.parameter
		}
		r.Raiser, r.Ordinal = d.events.Raiser(i), d.ordinal+uint64(i)
		a.fn(s.ev.b.handlers, r)
	}
}

// decode decodes payload into a.parameter.
func (a *alone[T]) decode(payload []byte) error {
	var zero T
	a.parameter = zero
	a.decoding = true
	err := a.codec.Decode(payload, &a.parameter)
	a.decoding = false
	return err
}

func (a *alone[T]) panicked() (inCodec bool) {
	inCodec, a.decoding = a.decoding, false
	return inCodec
}

// OnMissed is [Event.OnMissed].
func (d *Definition[T]) OnMissed(b *Broker, fn func(ctx context.Context, m Missed)) (remove func()) {
	return d.Event(b).OnMissed(fn)
}

// Raise is [Event.Raise] with the parameter's type.
func (d *Definition[T]) Raise(ctx context.Context, b *Broker, raiser ID, v T, opts ...RaiseOption) error {
	return raise(ctx, d.Event(b), raiser, v, staysHere(opts))
}
