package carillon_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

func TestEvent_IsTheSameObjectForTheSameID(t *testing.T) { // E1
	b := local(t)
	id := carillon.NewID()
	first := b.Event(id)
	if b.Event(id) != first || b.Event(carillon.NewID()) == first || first.ID() != id {
		t.Error("Event does not return one object per ID")
	}
	objects := make(chan *carillon.Event, 16)
	other := carillon.NewID()
	for range cap(objects) {
		go func() { objects <- b.Event(other) }()
	}
	one := <-objects
	for range cap(objects) - 1 {
		if <-objects != one {
			t.Fatal("concurrent calls of Event made two objects for one ID")
		}
	}
}

func TestEvent_NobodyAskedForIsCountedAndMakesNoObject(t *testing.T) { // E1
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		if err := c.Broker(0).Event(id).Raise(t.Context(), carillon.ID{}, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := c.Broker(1).Stats().Drops[carillon.DropUnasked]; n != 1 {
			t.Errorf("dropped as unasked: %d, want 1", n)
		}
		if n := c.Broker(1).Event(id).Counts().Received; n != 0 {
			t.Errorf("an object made later has received %d: there was one before anybody asked", n)
		}
	})
}

func TestRaise_TellsSubscribersHereAndElsewhere(t *testing.T) { // E2, E3, E10
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 3)
		d := define()
		var rec []*carillontest.Recorder[note]
		for i := range 3 {
			rec = append(rec, carillontest.Record(t, c.Broker(i), d))
		}
		raiser := carillon.NewID()
		sent := time.Now()
		if err := d.Raise(t.Context(), c.Broker(1), raiser, note{7, "seven"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, r := range rec {
			got := r.Raised()
			if len(got) != 1 {
				t.Fatalf("instance %d was told %d events, want 1", i, len(got))
			}
			e := got[0]
			if e.Event != d.ID() || e.Raiser != raiser || e.Parameter != (note{7, "seven"}) || e.Local != (i == 1) ||
				e.Source.Server != "instance-1" || e.Source.Application != "carillontest" || e.Ordinal != 0 {
				t.Errorf("instance %d was told %+v", i, e)
			}
			if d := e.Sent.Sub(sent); !e.Local && (d < -time.Microsecond || d > time.Millisecond) || e.Local && !e.Sent.IsZero() { // clocks travel in microseconds
				t.Errorf("instance %d: sent %v after the raise", i, d)
			}
		}
		if rec[0].Raised()[0].Source != rec[1].Raised()[0].Source {
			t.Error("the source is not the same where it was raised and elsewhere")
		}
	})
}

func TestRaise_TellsLocalSubscribersFirstAndInOrder(t *testing.T) { // E4
	bubble(t, func(t *testing.T) {
		var order []string
		note1 := func(s string) { order = append(order, s) }
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		p.send = func(ctx context.Context, frames [][]byte) error { return p.Provider.Send(ctx, frames) }
		b := mustOpen(t, config(db, p))
		b.Enable()
		synctest.Wait()
		e := b.Event(carillon.NewID())
		e.OnRaised(func(context.Context, carillon.Raised[any]) { note1("first") })
		e.OnRaised(func(context.Context, carillon.Raised[any]) {
			if n := b.Stats().Sent; n != 0 {
				t.Errorf("%d events are numbered while a local subscriber runs", n)
			}
			note1("second")
		})
		if err := e.Raise(t.Context(), carillon.ID{}, "x"); err != nil {
			t.Fatal(err)
		}
		note1("returned")
		if want := []string{"first", "second", "returned"}; !slices.Equal(order, want) {
			t.Errorf("order %q, want %q", order, want)
		}
		synctest.Wait()
		if n := b.Stats().Handed.Next; n != 1 {
			t.Errorf("handed to the provider: %d events, want 1", n)
		}
	})
}

func TestRaise_InsideALocalSubscriberIsNumberedBeforeTheOuterOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		outer, inner := define(), define()
		outer.OnRaised(c.Broker(0), func(ctx context.Context, r carillon.Raised[note]) {
			if r.Local {
				raise(t, inner, c.Broker(0), 1, 1)
			}
		})
		in, out := carillontest.Record(t, c.Broker(1), inner), carillontest.Record(t, c.Broker(1), outer)
		raise(t, outer, c.Broker(0), 1, 1)
		if i, o := in.WaitRaised(1)[0].Ordinal, out.WaitRaised(1)[0].Ordinal; i != 0 || o != 1 {
			t.Errorf("ordinals of the inner and outer raise: %d, %d, want 0, 1", i, o)
		}
	})
}

func TestRaise_LocalOnlyStaysHere(t *testing.T) { // E5
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		here, there := carillontest.RecordEvent(t, c.Broker(0).Event(id)), carillontest.RecordEvent(t, c.Broker(1).Event(id))
		value := make(chan int) // of a type that cannot travel
		if err := c.Broker(0).Event(id).Raise(t.Context(), carillon.ID{}, value, carillon.LocalOnly()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := here.Raised(); len(got) != 1 || got[0].Parameter != any(value) {
			t.Errorf("told here: %+v", got)
		}
		if got := there.Raised(); len(got) != 0 {
			t.Errorf("told elsewhere: %+v", got)
		}
	})
}

func TestRaise_UntypedParametersTravel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		rec := carillontest.RecordEvent(t, c.Broker(1).Event(id))
		want := []any{nil, "text", "", []byte{1, 2, 3}, []byte{}}
		for _, v := range want {
			if err := c.Broker(0).Event(id).Raise(t.Context(), carillon.ID{}, v); err != nil {
				t.Fatal(err)
			}
		}
		rec.WaitRaised(len(want))
		if got := rec.Parameters(); !reflect.DeepEqual(got, want) {
			t.Errorf("received %#v, want %#v", got, want)
		}
	})
}

// Frames are immutable: senders keep them for repair, and other receivers of this
// process may share them.
func TestRaise_ReceivedBytesAreTheSubscribers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		payload := make(chan []byte, 1)
		c.Broker(1).OnReceived(func(r carillon.Received) { payload <- r.Payload })
		altered := make(chan struct{})
		c.Broker(1).Event(id).OnRaised(func(_ context.Context, r carillon.Raised[any]) {
			clear(r.Parameter.([]byte))
			close(altered)
		})
		if err := c.Broker(0).Event(id).Raise(t.Context(), carillon.ID{}, []byte("text")); err != nil {
			t.Fatal(err)
		}
		<-altered
		if got := <-payload; string(got) != "\x01text" {
			t.Errorf("a subscriber that alters its parameter alters the frame to %q", got)
		}
	})
}

func TestRaise_RefusesWhatCannotTravelAndRaisesNothing(t *testing.T) { // E11
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2, carillontest.Configure(func(_ int, cfg *carillon.Config) { cfg.MaxEventBytes = 1000 }))
		b := c.Broker(0)
		untyped := b.Event(carillon.NewID())
		d := define()
		broken := carillon.Define[chan int](carillon.NewID(), "broken")
		for _, tt := range []struct {
			name  string
			event *carillon.Event
			value any
			opts  []carillon.RaiseOption
			want  error
		}{
			{name: "untyped of a type of the program", event: untyped, value: note{}},
			{name: "typed of another type", event: d.Event(b), value: "text"},
			{name: "typed of another type, kept local", event: d.Event(b), value: "text", opts: []carillon.RaiseOption{carillon.LocalOnly()}},
			{name: "typed and nil", event: d.Event(b), value: nil},
			{name: "the codec cannot", event: broken.Event(b), value: make(chan int)},
			{name: "one byte too large", event: untyped, value: strings.Repeat("x", 1000), want: carillon.ErrTooLarge},
		} {
			rec := carillontest.RecordEvent(t, tt.event)
			err := tt.event.Raise(t.Context(), carillon.ID{}, tt.value, tt.opts...)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), "carillon: ") {
				t.Errorf("%s: error %v", tt.name, err)
			}
			if n := len(rec.Raised()); n != 0 {
				t.Errorf("%s: told %d times", tt.name, n)
			}
		}
		if err := untyped.Raise(t.Context(), carillon.ID{}, strings.Repeat("x", 999)); err != nil {
			t.Errorf("the largest parameter: %v", err)
		}
		if err := b.Event(carillon.ID{}).Raise(t.Context(), carillon.ID{}, nil); err == nil {
			t.Error("the zero ID can be raised")
		}
		if n := b.Stats().Sent; n != 1 {
			t.Errorf("%d events sent, want 1", n)
		}
	})
}

func TestDefinition_UndecodableIsMissed(t *testing.T) { // E11
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		id := carillon.NewID()
		text := carillon.Define[string](id, "as text")
		number := carillon.Define[int](id, "as a number")
		rec := carillontest.Record(t, c.Broker(1), number)
		second := carillontest.Record(t, c.Broker(1), number)
		if err := text.Raise(t.Context(), c.Broker(0), carillon.ID{}, "seven"); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*carillontest.Recorder[int]{rec, second} {
			r.WaitMissed(1)
			time.Sleep(time.Second)
			synctest.Wait()
			if m := r.Missed(); len(m) != 1 || m[0].Reason != carillon.MissedUndecodable || !m[0].Known || m[0].Event != id ||
				m[0].Count != 1 || !m[0].Exact || m[0].Source.Server != "instance-0" {
				t.Errorf("missed: %+v", m)
			}
			if got := r.Raised(); len(got) != 0 {
				t.Errorf("raised: %+v", got)
			}
		}
		s := c.Broker(1).Stats()
		if s.Drops[carillon.DropUndecodable] != 1 || s.Missed != 1 {
			t.Errorf("undecodable %d, missed %d, want 1 and 1 whatever the number of subscribers", s.Drops[carillon.DropUndecodable], s.Missed)
		}
		if n := number.Event(c.Broker(1)).Counts(); n.Missed != 1 || n.Received != 1 {
			t.Errorf("counts %+v", n)
		}
	})
}

// codec counts, and panics where it is told to.
type codec struct {
	carillon.Codec
	name    string
	decoded chan struct{}
	panics  bool
}

func (c codec) Name() string { return c.name }

func (c codec) Decode(data []byte, v any) error {
	if c.panics {
		panic("the codec panics")
	}
	c.decoded <- struct{}{}
	return c.Codec.Decode(data, v)
}

func TestDefinition_DecodesOnceForAllSubscribers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		k := codec{Codec: carillon.JSON(), name: "counting", decoded: make(chan struct{}, 100)}
		d := define(carillon.WithCodec(k))
		var rec []*carillontest.Recorder[note]
		for range 5 {
			rec = append(rec, carillontest.Record(t, c.Broker(1), d))
		}
		raise(t, d, c.Broker(0), 1, 3)
		for _, r := range rec {
			r.WaitRaised(3)
		}
		if n := len(k.decoded); n != 3 {
			t.Errorf("decoded %d times, want 3", n)
		}
	})
}

func TestDefinition_PanickingCodecIsUndecodable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define(carillon.WithCodec(codec{Codec: carillon.JSON(), name: "panicking", panics: true}))
		rec := carillontest.Record(t, c.Broker(1), d)
		raise(t, d, c.Broker(0), 1, 1)
		if m := rec.WaitMissed(1); m[0].Reason != carillon.MissedUndecodable {
			t.Errorf("missed: %+v", m)
		}
		if n := d.Event(c.Broker(1)).Counts().Panics; n != 1 {
			t.Errorf("%d panics counted, want 1", n)
		}
	})
}

func TestDefinition_ConflictPanicsWithBothNames(t *testing.T) {
	id := carillon.NewID()
	first := carillon.Define[note](id, "first")
	for _, tt := range []struct {
		name string
		bind func(*carillon.Broker) *carillon.Event
		ok   bool
	}{
		{"the same again", first.Event, true},
		{"equal", carillon.Define[note](id, "first").Event, true},
		{"another name", carillon.Define[note](id, "second").Event, false},
		{"another type", carillon.Define[string](id, "first").Event, false},
		{"another codec", carillon.Define[note](id, "first", carillon.WithCodec(codec{name: "x"})).Event, false},
		{"ordered", carillon.Define[note](id, "first", carillon.Ordered()).Event, false},
	} {
		b := local(t)
		want := first.Event(b)
		func() {
			defer func() {
				p := recover()
				if (p == nil) != tt.ok {
					t.Errorf("%s: panic %v", tt.name, p)
				}
				if text := fmt.Sprint(p); p != nil && (!strings.Contains(text, `"first"`) || tt.name == "another name" && !strings.Contains(text, `"second"`)) {
					t.Errorf("%s: the panic %q does not have both names", tt.name, text)
				}
			}()
			if got := tt.bind(b); got != want {
				t.Errorf("%s: another object", tt.name)
			}
		}()
	}
}

func TestDefine_NeedsNameAndID(t *testing.T) {
	for _, fn := range []func(){
		func() { carillon.Define[note](carillon.ID{}, "no ID") },
		func() { carillon.Define[note](carillon.NewID(), "") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("Define does not panic")
				}
			}()
			fn()
		}()
	}
	id := carillon.NewID()
	if d := carillon.Define[note](id, "named"); d.ID() != id || d.Name() != "named" {
		t.Errorf("a definition with ID %v and name %q", d.ID(), d.Name())
	}
}

func TestDefinition_ServesSeveralBrokers(t *testing.T) {
	d := carillon.Define[int](carillon.NewID(), "count")
	var heard [2]int
	var brokers [2]*carillon.Broker
	for i := range brokers {
		brokers[i] = local(t)
		d.OnRaised(brokers[i], func(_ context.Context, r carillon.Raised[int]) { heard[i] += r.Parameter })
	}
	for i := range 6 {
		if err := d.Raise(t.Context(), brokers[i%2], carillon.ID{}, 1<<i); err != nil {
			t.Fatal(err)
		}
	}
	if want := [2]int{0b010101, 0b101010}; heard != want {
		t.Errorf("heard %b, want %b", heard, want)
	}
}

func TestDefinition_DoesNotKeepAClosedBroker(t *testing.T) {
	d := carillon.Define[int](carillon.NewID(), "count")
	closed := func() weak.Pointer[carillon.Broker] {
		b, err := carillon.Open(t.Context(), carillon.Config{Application: "test"})
		if err != nil {
			t.Fatal(err)
		}
		b.Enable()
		if err := d.Raise(t.Context(), b, carillon.ID{}, 1); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if err := d.Raise(t.Context(), b, carillon.ID{}, 2); !errors.Is(err, carillon.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		return weak.Make(b)
	}()
	eventually(t, "the closed Broker is collected", func() bool {
		runtime.GC()
		return closed.Value() == nil
	})
	runtime.KeepAlive(d)
}

func TestDefinition_OfAnInterfaceTakesNil(t *testing.T) {
	b := local(t)
	d := carillon.Define[fmt.Stringer](carillon.NewID(), "anything with a String method")
	rec := carillontest.Record(t, b, d)
	if err := d.Raise(t.Context(), b, carillon.ID{}, nil); err != nil {
		t.Fatal(err)
	}
	if got := rec.Raised(); len(got) != 1 || got[0].Parameter != nil {
		t.Errorf("told %+v", got)
	}
}

func TestRole_SaysWhoTakesPartInEvents(t *testing.T) { // E14
	bubble(t, func(t *testing.T) {
		roles := []carillon.Role{carillon.Publish, carillon.Subscribe, carillon.Both, 0}
		c := carillontest.NewCluster(t, len(roles), carillontest.Configure(func(i int, cfg *carillon.Config) { cfg.Role = roles[i] }))
		d := define()
		var rec []*carillontest.Recorder[note]
		for i := range roles {
			rec = append(rec, carillontest.Record(t, c.Broker(i), d))
		}
		for i, role := range roles {
			err := d.Raise(t.Context(), c.Broker(i), carillon.ID{}, note{N: i})
			if role == carillon.Subscribe {
				wantErr(t, "raise by a subscriber", err, carillon.ErrRole)
				err = d.Raise(t.Context(), c.Broker(i), carillon.ID{}, note{N: i}, carillon.LocalOnly())
			}
			if err != nil {
				t.Errorf("raise by instance %d: %v", i, err)
			}
		}
		synctest.Wait()
		for i, want := range [][]int{{0}, {0, 1, 2, 3}, {0, 2, 3}, {0, 2, 3}} {
			got := numbers(rec[i].Raised())
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("instance %d (%v) was told %v, want %v", i, roles[i], got, want)
			}
		}
		time.Sleep(time.Minute) // control frames are for every role: nobody takes anybody for dead, or its tail for lost
		for i := range roles {
			if s := c.Broker(i).Stats(); len(s.Peers) != 3 || s.Missed != 0 {
				t.Errorf("instance %d after a minute: %d peers, %d missed", i, len(s.Peers), s.Missed)
			}
			for _, p := range c.Broker(i).Stats().Peers {
				if time.Since(p.HeardAt) > 3*time.Second {
					t.Errorf("instance %d has not heard %v for %v", i, p.Source.Server, time.Since(p.HeardAt))
				}
			}
			for j, m := range c.Broker(i).Members() { // by server, so by number
				if want := cmp.Or(roles[j], carillon.Both); m.Role != want {
					t.Errorf("instance %d has %v with role %v, want %v", i, m.Server, m.Role, want)
				}
			}
		}
		if n := c.Broker(0).Stats().Drops[carillon.DropRole]; n != 2 {
			t.Errorf("the publisher dropped %d events because of its role, want 2", n)
		}
	})
}

func TestCounts_SayWhatHappenedToAnEvent(t *testing.T) { // E16
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		d.Event(c.Broker(1)) // asked for, and nobody subscribes
		raise(t, d, c.Broker(0), 1, 3)
		if err := d.Raise(t.Context(), c.Broker(0), carillon.ID{}, note{}, carillon.LocalOnly()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, want := d.Event(c.Broker(0)).Counts(), (carillon.Counts{Sent: 3, Local: 4}); got != want {
			t.Errorf("where it was raised: %+v, want %+v", got, want)
		}
		if got, want := d.Event(c.Broker(1)).Counts(), (carillon.Counts{Received: 3}); got != want {
			t.Errorf("elsewhere: %+v, want %+v", got, want)
		}
		if s := c.Broker(0).Stats(); s.Sent != 3 || s.Local != 4 || s.Backlog != 0 {
			t.Errorf("stats where it was raised: %+v", s)
		}
		if s := c.Broker(1).Stats(); s.Received != 3 {
			t.Errorf("stats elsewhere: %+v", s)
		}
	})
}

func TestOnReceived_SeesEveryEventFromElsewhere(t *testing.T) { // E16
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		asked, unasked := define(), carillon.NewID()
		asked.OnRaised(c.Broker(1), func(context.Context, carillon.Raised[note]) {})
		got := make(chan carillon.Received, 10)
		remove := c.Broker(1).OnReceived(func(r carillon.Received) { got <- r })
		c.Broker(0).OnReceived(func(r carillon.Received) { t.Errorf("the instance that raises receives %+v", r) })

		raiser := carillon.NewID()
		raise(t, asked, c.Broker(0), 1, 1)
		if err := c.Broker(0).Event(unasked).Raise(t.Context(), raiser, "x"); err != nil {
			t.Fatal(err)
		}
		first, second := <-got, <-got
		if first.Event != asked.ID() || first.Name != "note" || !first.Wanted || string(first.Payload) != `{"N":1,"Text":""}` {
			t.Errorf("first: %+v", first)
		}
		if second.Event != unasked || second.Raiser != raiser || second.Name != "" || second.Wanted || second.Ordinal != 1 ||
			second.Source.Server != "instance-0" || string(second.Payload) != "\x02x" || second.Sent.IsZero() {
			t.Errorf("second: %+v", second)
		}

		remove()
		remove()
		raise(t, asked, c.Broker(0), 2, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(got) != 0 {
			t.Error("a removed tap is called")
		}
	})
}

func TestRemove_NoCallStartsAfterIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		b := c.Broker(1)
		entered, leave := make(chan int, 10), make(chan struct{})
		remove := d.OnRaised(b, func(_ context.Context, r carillon.Raised[note]) {
			entered <- r.Parameter.N
			<-leave
		})
		raise(t, d, c.Broker(0), 1, 3)
		if n := <-entered; n != 1 {
			t.Fatalf("first call with %d", n)
		}
		synctest.Wait() // until the others are in the queue
		remove()        // does not wait for the call that runs
		remove()
		close(leave)
		raise(t, d, c.Broker(0), 4, 4)
		raise(t, d, b, 5, 5)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(entered) != 0 {
			t.Errorf("called with %d after remove", <-entered)
		}
		if s := b.Stats().Queues; s.Events != 0 || s.Bytes != 0 {
			t.Errorf("the queue of a removed function holds %+v", s)
		}
	})
}

func TestRemove_InsideAnotherSubscriberOfTheSameRaise(t *testing.T) {
	b := local(t)
	e := b.Event(carillon.NewID())
	var remove func()
	called := false
	e.OnRaised(func(context.Context, carillon.Raised[any]) { remove() })
	remove = e.OnRaised(func(context.Context, carillon.Raised[any]) { called = true })
	if err := e.Raise(t.Context(), carillon.ID{}, nil); err != nil || called {
		t.Errorf("raise: %v; the function removed a moment ago was called: %v", err, called)
	}
}

func TestRaise_GivesTheCallersContextToLocalSubscribers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		type key struct{}
		c := carillontest.NewCluster(t, 2)
		d := define()
		values := make(chan any, 2)
		for i := range 2 {
			d.OnRaised(c.Broker(i), func(ctx context.Context, _ carillon.Raised[note]) {
				if ctx.Err() != nil {
					t.Error("the context has ended")
				}
				values <- ctx.Value(key{})
			})
		}
		if err := d.Raise(context.WithValue(t.Context(), key{}, "mine"), c.Broker(0), carillon.ID{}, note{}); err != nil {
			t.Fatal(err)
		}
		if v := <-values; v != "mine" {
			t.Errorf("value %v in the local subscriber's context", v)
		}
		if v := <-values; v != nil {
			t.Errorf("value %v in the remote subscriber's context", v)
		}
	})
}

func TestRaise_DoesNotLookAtAContextThatHasEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := carillontest.NewCluster(t, 2)
		d := define()
		rec := carillontest.Record(t, c.Broker(1), d)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Raise(ctx, c.Broker(0), carillon.ID{}, note{}); err != nil {
			t.Fatal(err)
		}
		rec.WaitRaised(1)
	})
}

func TestOpen_WithoutProvidersKeepsEventsInTheProcess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := local(t)
		e := b.Event(carillon.NewID())
		rec := carillontest.RecordEvent(t, e)
		if err := e.Raise(t.Context(), carillon.ID{}, struct{ X int }{1}); err != nil {
			t.Fatal(err)
		}
		if got := rec.Raised(); len(got) != 1 || !got[0].Local {
			t.Errorf("told %+v", got)
		}
		if s := b.Status(); !s.Ready || len(s.Problems) != 0 {
			t.Errorf("status %+v", s)
		}
		if m := b.Members(); m != nil {
			t.Errorf("members %+v", m)
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Errorf("flush: %v", err)
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("shut down: %v", err)
		}
		<-b.Done()
		wantErr(t, "raise after Shutdown", e.Raise(t.Context(), carillon.ID{}, nil), carillon.ErrClosed)
	})
}
