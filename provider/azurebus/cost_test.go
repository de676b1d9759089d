package azurebus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site/memsite"
)

// since waits until everything was acknowledged, and returns what was done since before.
func since(t *testing.T, e *emulator.Emulator, before emulator.Operations, deliveries int) emulator.Operations {
	t.Helper()
	var now emulator.Operations
	eventually(t, "everything is acknowledged", func() bool {
		now = e.Operations()
		return now.Completes-before.Completes >= deliveries
	})
	// Without what came while the SDK was not asked, which is a matter of chance.
	again, wasted := now.Released-before.Released, now.Wasted-before.Wasted
	return emulator.Operations{
		Sends: now.Sends - before.Sends, Deliveries: now.Deliveries - before.Deliveries - again, Completes: now.Completes - before.Completes,
		Units: now.Units - before.Units - wasted,
	}
}

// What is charged for, for three instances: a message, its delivery to the two others and two acknowledgements. The own echo, and
// what is for somebody else, the service does not deliver.
func TestSend_CostsWhatItMust(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a, b := pairOn(t, e)
	c := providertest.Start(t, newProvider(t, config(e)))
	providertest.Introduce(a, b, c)
	small := make([]string, 1000)
	for i := range small {
		small[i] = strings.Repeat("x", 30)
	}
	big := make([]string, 8)
	for i := range big {
		big[i] = strings.Repeat("x", 30<<10)
	}
	for _, tt := range []struct {
		name   string
		frames []string
		to     bool // b alone
		want   emulator.Operations
	}{
		{"a frame", []string{"x"}, false, emulator.Operations{Sends: 1, Deliveries: 2, Completes: 2, Units: 5}},
		{"a thousand small frames", small, false, emulator.Operations{Sends: 1, Deliveries: 2, Completes: 2, Units: 5}},
		{"240 KiB", big, false, emulator.Operations{Sends: 1, Deliveries: 2, Completes: 2, Units: 3*4 + 2}},
		{"600 KiB", slices.Repeat(big[:5], 4), false, emulator.Operations{Sends: 3, Deliveries: 6, Completes: 6, Units: 3*(4+4+2) + 6}},
		{"a frame for one", []string{"x"}, true, emulator.Operations{Sends: 1, Deliveries: 1, Completes: 1, Units: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := e.Operations()
			p := a.Provider.(provider.Unicaster)
			err := error(nil)
			if tt.to {
				err = p.SendTo(t.Context(), b.Stream(), bytesOf(tt.frames...))
			} else {
				err = p.Send(t.Context(), bytesOf(tt.frames...))
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := since(t, e, before, tt.want.Completes); got != tt.want {
				t.Errorf("it costs %+v, want %+v", got, tt.want)
			}
		})
	}
	if n := len(a.Frames()); n > 0 {
		t.Errorf("it has %d frames of its own", n)
	}
}

// A batch of the Premium tier holds several messages of the size that every tier takes.
func TestSend_FillsTheBatchesOfTheTier(t *testing.T) {
	e := startEmulator(t, emulator.Options{MaxMessageBytes: 1 << 20})
	a, b := pairOn(t, e)
	before := e.Operations()
	frames := make([][]byte, 31) // of 30 KiB: 930 KiB
	for i := range frames {
		frames[i] = make([]byte, 30<<10)
	}
	if err := a.Provider.Send(t.Context(), frames); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all arrive", func() bool { return len(b.Frames()) == len(frames) })
	if got := since(t, e, before, 4); got.Sends != 1 || got.Deliveries != 4 {
		t.Errorf("%d batches and %d messages, want 1 and 4", got.Sends, got.Deliveries)
	}
}

// The service deletes a subscription in which nothing happens, also of an instance that is there.
func TestProvider_KeepsAQuietSubscriptionAlive(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	p := newProvider(t, config(e))
	p.lookEvery = 10 * time.Millisecond
	quiet := providertest.Start(t, p)
	topic, subscription := own(quiet)
	for range 10 {
		peeks := e.Operations().Peeks
		e.Advance(2 * time.Minute)
		eventually(t, "it looks at its subscription", func() bool { return e.Operations().Peeks > peeks+1 })
	}
	if got := e.Subscriptions(topic); len(got) != 1 || got[0] != subscription {
		t.Errorf("after 20 minutes the topic has the subscriptions %q, want %q", got, subscription)
	}
	if n := quiet.Reconnects(); n != 0 {
		t.Errorf("it was told %d times that it was away", n)
	}
}

func TestNew_LooksOftenEnoughAndNotMore(t *testing.T) {
	p := newProvider(t, Config{ConnectionString: "Endpoint=sb://x;SharedAccessKeyName=a;SharedAccessKey=b", DeleteWhenIdle: 6 * time.Minute})
	if p.lookEvery != 2*time.Minute {
		t.Errorf("it looks every %v at a subscription that goes after 6 minutes", p.lookEvery)
	}
	if d := p.Capabilities().IdleHeartbeat; d >= 0 {
		t.Errorf("IdleHeartbeat %v; each is charged for", d)
	}
}

// What a lone event of a quiet site costs with everything that is said about it: one heartbeat, and an acknowledgement of each other instance.
func TestCost_OfALoneEvent(t *testing.T) {
	t.Parallel() // it mostly waits
	const n = 10
	e := startEmulator(t, emulator.Options{})
	db := memsite.New(nil)
	id := carillon.NewID()
	var brokers []*carillon.Broker
	var heard atomic.Int32
	for i := range n {
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "test", Server: fmt.Sprint("instance ", i), Database: db, Providers: []provider.Provider{newProvider(t, config(e))},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		b.Event(id).OnRaised(func(context.Context, carillon.Raised[any]) { heard.Add(1) })
		b.Enable()
		brokers = append(brokers, b)
	}
	// measure returns what is charged for while times events are raised, every so often, until all is quiet.
	measure := func(times int, every time.Duration) int {
		quiet(t, e)
		before := e.Operations()
		heard.Store(0)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for range times {
			if err := brokers[0].Event(id).Raise(t.Context(), carillon.ID{}, "parameter"); err != nil {
				t.Fatal(err)
			}
			<-tick.C
		}
		eventually(t, "all have heard all", func() bool { return int(heard.Load()) == n*times })
		quiet(t, e)
		return since(t, e, before, 0).Units
	}
	lone := measure(1, time.Millisecond)
	t.Logf("of %d instances: %d operations for a lone event, %.1f for one of ten a second", n, lone, float64(measure(30, 100*time.Millisecond))/30)
	if most := 2*(2*n-1) + 3*(n-1); lone > most {
		t.Errorf("a lone event costs %d operations, want %d at most: the event, a heartbeat, and an acknowledgement of each other instance", lone, most)
	}
}

// quiet waits until nothing has been sent for longer than a heartbeat or an acknowledgement would take.
func quiet(t *testing.T, e *emulator.Emulator) {
	t.Helper()
	last, since := -1, time.Now()
	eventually(t, "idle instances send nothing", func() bool {
		if n := e.Operations().Sends; n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
}
