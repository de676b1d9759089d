package azurebus

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
)

// What was not taken comes again, and what was taken does not.
func TestDone_IsWhatAcknowledges(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a, b := pairOn(t, e)
	topic, subscription := own(b)
	done := make(chan func(), 10)
	b.OnBatch(func(batch provider.Batch) { done <- batch.Done })
	send(t, a, "frame")
	<-done // and never called
	if n, locked := e.Kept(topic, subscription); n != 1 || locked != 1 {
		t.Errorf("before Done the subscription keeps %d messages, %d locked; want 1 and 1", n, locked)
	}
	e.Advance(lockDuration)
	again := <-done
	if n := len(b.Frames()); n != 2 {
		t.Errorf("the frame arrived %d times, want twice", n)
	}
	again()
	eventually(t, "it is acknowledged", func() bool { n, _ := e.Kept(topic, subscription); return n == 0 })
	e.Advance(lockDuration)
	send(t, a, "another")
	(<-done)()
	if n := len(b.Frames()); n != 3 {
		t.Errorf("%d frames arrived, want 3", n)
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
	if _, locked := e.Kept(topic, subscription); locked > queued+2*prefetch+1 {
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
	acknowledge := <-done
	e.DetachReceivers()
	send(t, a, "five")
	(<-done)()
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
	a := providertest.Start(t, newProvider(t, cfg))
	b := providertest.Start(t, newProvider(t, config(e)))
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
