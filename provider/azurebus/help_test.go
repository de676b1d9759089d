package azurebus

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// pairOn starts two instances that know each other.
func pairOn(t *testing.T, e *emulator.Emulator) (a, b *providertest.Endpoint) {
	t.Helper()
	a, b = providertest.Start(t, newProvider(t, config(e))), providertest.Start(t, newProvider(t, config(e)))
	providertest.Introduce(a, b)
	return a, b
}

func send(t *testing.T, from *providertest.Endpoint, frames ...string) {
	t.Helper()
	if err := from.Provider.Send(t.Context(), bytesOf(frames...)); err != nil {
		t.Fatal(err)
	}
}

func bytesOf(frames ...string) (b [][]byte) {
	for _, f := range frames {
		b = append(b, []byte(f))
	}
	return b
}

func hears(t *testing.T, e *providertest.Endpoint, frame string) {
	t.Helper()
	if !e.Heard([]byte(frame), 10*time.Second) {
		t.Fatalf("%q does not arrive", frame)
	}
}

// own returns the subscription of an instance, and its topic.
func own(e *providertest.Endpoint) (topic, subscription string) {
	p := e.Provider.(*Provider)
	return topicOf(p.cfg.prefix, e.Env().Site), p.cfg.subscription
}

// names returns the names that a Cleaner lists, in order.
func names(t *testing.T, c provider.Cleaner, s site.ID) (all []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	subs, err := c.Subscriptions(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range subs {
		all = append(all, sub.Name)
	}
	slices.Sort(all)
	return all
}
