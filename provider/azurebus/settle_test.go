package azurebus

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
)

// next returns what comes next, and fails the test if nothing does.
func next[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	select {
	case v = <-c:
	case <-patience.C:
		t.Fatal("nothing comes")
	}
	return v
}

// What was not taken comes again, and what was taken does not.
func TestDone_IsWhatAcknowledges(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a, b := pairOn(t, e)
	topic, subscription := own(b)
	batches := make(chan provider.Batch, 100)
	b.OnBatch(func(batch provider.Batch) { batches <- batch })
	send(t, a, "not taken")
	next(t, batches) // and Done is never called
	for range 20 {
		send(t, a, "taken")
		next(t, batches).Done()
	}
	eventually(t, "what was taken is acknowledged", func() bool { n, _ := e.Kept(topic, subscription); return n <= 1 })
	e.Advance(lockDuration)
	again := next(t, batches)
	if got := string(again.Frames[0]); got != "not taken" {
		t.Fatalf("%q comes again", got)
	}
	again.Done()
	eventually(t, "it is acknowledged", func() bool { n, _ := e.Kept(topic, subscription); return n == 0 })
	e.Advance(lockDuration)
	send(t, a, "another")
	if got := next(t, batches); string(got.Frames[0]) != "another" {
		t.Errorf("%q comes a third time", got.Frames[0])
	}
}

// In a subscription that stays, nothing is left that was taken right before Close.
func TestClose_AcknowledgesWhatWasTaken(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a := providertest.Start(t, newProvider(t, config(e)))
	topic, _ := own(a)
	if _, err := manager(t, e).CreateSubscription(t.Context(), topic, "by-hand", nil); err != nil {
		t.Fatal(err)
	}
	cfg := config(e)
	cfg.Subscription = "by-hand"
	b := providertest.Start(t, newProvider(t, cfg))
	batches := make(chan provider.Batch, 100)
	b.OnBatch(func(batch provider.Batch) { batches <- batch })
	const sent = 50
	for range sent {
		send(t, a, "frame")
	}
	var all []provider.Batch
	for range sent {
		all = append(all, next(t, batches))
	}
	for _, batch := range all {
		batch.Done()
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if n, _ := e.Kept(topic, "by-hand"); n != 0 {
		t.Errorf("%d of %d messages come again, though they were taken", n, sent)
	}
}

// An instance that goes leaves nothing, however much was not acknowledged.
func TestClose_RemovesTheSubscription(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a, b := pairOn(t, e)
	topic, subscription := own(b)
	b.OnBatch(func(provider.Batch) {})
	send(t, a, "frame")
	hears(t, b, "frame")
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for _, left := range e.Subscriptions(topic) {
		if left == subscription {
			t.Error("the subscription is left")
		}
	}
	if len(e.Subscriptions(topic)) != 1 {
		t.Errorf("the topic has %d subscriptions, want that of the other", len(e.Subscriptions(topic)))
	}
}

// What waits for an instance that stands still is bounded, and comes when it goes on.
func TestProvider_FetchesNoMoreThanItCanHold(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a, b := pairOn(t, e)
	topic, subscription := own(b)
	gate := make(chan struct{})
	b.OnBatch(func(batch provider.Batch) { <-gate; batch.Done() })
	const sent = 300
	for range sent {
		send(t, a, "frame")
	}
	eventually(t, "no more is fetched", func() bool {
		before := e.Operations().Deliveries - e.Operations().Released
		pause := time.NewTimer(50 * time.Millisecond)
		<-pause.C
		return before > 0 && e.Operations().Deliveries-e.Operations().Released == before
	})
	if _, locked := e.Kept(topic, subscription); locked > 64+2*32+1 { // the queue, and what one call may fetch, twice
		t.Errorf("%d messages are held for an instance that stands still", locked)
	}
	close(gate)
	eventually(t, "all arrive", func() bool { return len(b.Frames()) >= sent })
	eventually(t, "all are acknowledged", func() bool { n, _ := e.Kept(topic, subscription); return n == 0 })
}

// The service detaches links that it finds idle. That is no loss.
func TestProvider_AttachesAgain(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a, b := pairOn(t, e)
	topic, subscription := own(b)
	for _, f := range []string{"one", "two", "three"} {
		e.DetachSenders()
		send(t, a, f)
		hears(t, b, f)
	}
	if n := a.Reconnects() + b.Reconnects(); n != 0 {
		t.Errorf("they were told %d times that they were away", n)
	}
	done := make(chan func(), 10)
	b.OnBatch(func(batch provider.Batch) { done <- batch.Done })
	send(t, a, "four")
	acknowledge := next(t, done)
	e.DetachReceivers()
	send(t, a, "five")
	next(t, done)()
	acknowledge() // over a link that is gone
	eventually(t, "all are acknowledged", func() bool { n, _ := e.Kept(topic, subscription); return n == 0 })
	if n := a.Reconnects() + b.Reconnects(); n != 0 {
		t.Errorf("they were told %d times that they were away", n)
	}
}

// Messages that nobody fetches do not fill the topic for ever.
func TestSend_LimitsTheTimeToLive(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	cfg := config(e)
	cfg.TimeToLive = time.Minute
	b := providertest.Start(t, newProvider(t, config(e))) // first, so that the topic has the longer time
	a := providertest.Start(t, newProvider(t, cfg))
	topic, subscription := own(b)
	gate := make(chan struct{})
	b.OnBatch(func(batch provider.Batch) { <-gate; batch.Done() })
	defer close(gate)
	const sent = 300
	for range sent {
		send(t, a, "frame")
	}
	if n, _ := e.Kept(topic, subscription); n == 0 {
		t.Fatal("nothing waits")
	}
	e.Advance(time.Minute)
	if n, locked := e.Kept(topic, subscription); n != locked {
		t.Errorf("after its time to live %d messages are kept, %d of them locked", n, locked)
	}
}
