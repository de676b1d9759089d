package azurebus

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// Fifty start, twenty are killed: the listing has all, and without those of the twenty the other thirty hear each other.
func TestCleaner_RemovesExactlyWhatIsLeftBehind(t *testing.T) {
	const instances, killed, wave = 50, 20, 10
	e := startEmulator(t, emulator.Options{})
	var (
		all    []*providertest.Endpoint
		relays []*providertest.Relay // of those that are killed
	)
	for i := range instances {
		cfg := config(e)
		if i < killed {
			r := providertest.NewRelay(t, e.Addr())
			relays = append(relays, r)
			cfg.ConnectionString = e.ConnectionStringOf(r.Addr(), emulator.KeyName, emulator.Key)
		}
		all = append(all, providertest.NewEndpoint(t, newProvider(t, cfg), provider.Env{}))
	}
	for some := range slices.Chunk(all, wave) {
		var starting sync.WaitGroup
		for _, ep := range some {
			starting.Go(func() {
				if err := ep.Start(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		starting.Wait()
	}
	t.Cleanup(func() {
		var closing sync.WaitGroup
		for _, ep := range all {
			closing.Go(func() { ep.Close() })
		}
		closing.Wait()
	})
	var dead, live []string
	for i, ep := range all {
		name := ep.Provider.(provider.Cleaner).Addresses()[0]
		if i < killed {
			relays[i].Cut() // it does not come back; as far as the service can see, it was killed
			dead = append(dead, name)
		} else {
			live = append(live, name)
		}
	}
	slices.Sort(live)
	s := all[0].Env().Site
	janitor := newProvider(t, config(e)) // never started
	defer janitor.Close()
	if got, want := names(t, janitor, s), slices.Sorted(slices.Values(append(slices.Clone(live), dead...))); !slices.Equal(got, want) {
		t.Fatalf("%d subscriptions are listed, want %d:\n%q\n%q", len(got), len(want), got, want)
	}
	subs, err := janitor.Subscriptions(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range subs {
		if since := time.Since(sub.Created); since < 0 || since > time.Hour {
			t.Errorf("%s was created %v ago", sub.Name, since)
		}
	}
	for _, name := range dead {
		for range 2 { // the second is of one that is gone already
			if err := janitor.Unsubscribe(t.Context(), s, provider.Subscription{Name: name}); err != nil {
				t.Error(err)
			}
		}
	}
	if got := names(t, janitor, s); !slices.Equal(got, live) {
		t.Fatalf("%d subscriptions are left, want those of the %d that live", len(got), len(live))
	}
	living := all[killed:]
	for i, ep := range living[:3] {
		send(t, ep, fmt.Sprint("frame ", i))
	}
	for to, ep := range living {
		for i := range 3 {
			if i != to && !ep.Heard([]byte(fmt.Sprint("frame ", i)), 10*time.Second) {
				t.Errorf("instance %d does not hear instance %d", to, i)
			}
		}
		if ep.Reconnects() != 0 {
			t.Errorf("instance %d was disturbed", to)
		}
	}
}

// manager returns an administration client that is none of ours.
func manager(t *testing.T, e *emulator.Emulator) *admin.Client {
	t.Helper()
	c, err := admin.NewClientFromConnectionString(e.ConnectionString(), &admin.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: e.Administration()}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What others have on the topic is not ours to list, whatever it is called, and a listing has pages.
func TestSubscriptions_AreThoseOfInstancesAlone(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a, b := pairOn(t, e)
	topic, first := own(a)
	_, second := own(b)
	c := manager(t, e)
	create := func(topic, name, metadata string) {
		t.Helper()
		var properties *admin.CreateSubscriptionOptions
		if metadata != "" {
			properties = &admin.CreateSubscriptionOptions{Properties: &admin.SubscriptionProperties{UserMetadata: to.Ptr(metadata)}}
		}
		if _, err := c.CreateSubscription(t.Context(), topic, name, properties); err != nil {
			t.Fatal(err)
		}
	}
	other := site.ID{15: 9}
	create(topic, "audit", "")
	create(topic, first+"-2", "somebody's")
	create(topic, first[:len(first)-1], markOf(other))
	for i := range 230 {
		create(topic, fmt.Sprintf("other-%03d", i), "")
	}
	create(topic, "zz-last", markOf(a.Env().Site))
	want := []string{first, second, "zz-last"}
	slices.Sort(want)
	if got := names(t, a.Provider.(provider.Cleaner), a.Env().Site); !slices.Equal(got, want) {
		t.Errorf("listed are %q, want %q", got, want)
	}
	if got := names(t, a.Provider.(provider.Cleaner), other); len(got) != 0 {
		t.Errorf("of a site without a topic %q are listed", got)
	}
	before := len(e.Subscriptions(topic))
	for _, name := range []string{"", ".", "..", "../../" + topic, "other-000/../audit", "other-0", strings.ToUpper("nobody")} {
		if err := a.Provider.(provider.Cleaner).Unsubscribe(t.Context(), a.Env().Site, provider.Subscription{Name: name}); err != nil {
			t.Errorf("Unsubscribe(%q): %v", name, err)
		}
	}
	if n := len(e.Subscriptions(topic)); n != before {
		t.Errorf("names that no subscription has removed %d", before-n)
	}
}

func TestSubscriptions_SayWhatIsMissing(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	p := newProvider(t, as(e, emulator.Send|emulator.Listen))
	_, err := p.Subscriptions(t.Context(), site.ID{15: 1})
	if err == nil || !strings.Contains(err.Error(), "Manage") {
		t.Errorf("Subscriptions: %v; want that the right to manage is missing", err)
	}
	if err := p.Unsubscribe(t.Context(), site.ID{15: 1}, provider.Subscription{Name: "x"}); err == nil || !strings.Contains(err.Error(), "Manage") {
		t.Errorf("Unsubscribe: %v; want that the right to manage is missing", err)
	}
}

// Whose subscription or topic is removed while he runs, or was idle for too long, has another of that name, and is told.
func TestProvider_MakesAgainWhatWasRemoved(t *testing.T) {
	for _, tt := range []struct {
		name   string
		remove func(e *emulator.Emulator, c *admin.Client, topic, subscription string) error
	}{
		{"subscription by hand", func(e *emulator.Emulator, c *admin.Client, topic, subscription string) error {
			_, err := c.DeleteSubscription(t.Context(), topic, subscription, nil)
			return err
		}},
		{"topic by hand", func(e *emulator.Emulator, c *admin.Client, topic, subscription string) error {
			_, err := c.DeleteTopic(t.Context(), topic, nil)
			return err
		}},
		{"idle", func(e *emulator.Emulator, c *admin.Client, topic, subscription string) error {
			e.Advance(defaultDeleteWhenIdle)
			return nil
		}},
		{"while it was away", func(e *emulator.Emulator, c *admin.Client, topic, subscription string) error {
			e.Kill()
			e.Remove(subscription)
			start(t, e)
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := startEmulator(t, emulator.Options{})
			a, b := pairOn(t, e)
			topic, subscription := own(a)
			addresses := a.Provider.(provider.Advertiser).Addresses()
			if err := tt.remove(e, manager(t, e), topic, subscription); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is told", func() bool { return a.Reconnects() > 0 })
			eventually(t, "it carries again, both ways", func() bool {
				return a.Provider.Send(t.Context(), bytesOf("there")) == nil && b.Provider.Send(t.Context(), bytesOf("back")) == nil &&
					b.Heard([]byte("there"), 10*time.Millisecond) && a.Heard([]byte("back"), 10*time.Millisecond)
			})
			if got := a.Provider.(provider.Advertiser).Addresses(); !slices.Equal(got, addresses) || !slices.Contains(e.Subscriptions(topic), got[0]) {
				t.Errorf("its address is %q, it was %q, and there are %q", got, addresses, e.Subscriptions(topic))
			}
			if n := len(a.Frames()); n > 0 && string(a.Frames()[0]) == "there" {
				t.Error("it hears itself: the rule is missing")
			}
		})
	}
}

// Instances of one site hear those of others that they accept, and each site has a topic of its own.
func TestProvider_HearsTheSitesThatAreAccepted(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	mine, other, third := site.ID{15: 1}, site.ID{15: 2}, site.ID{15: 3}
	at := func(s site.ID, accepted ...site.ID) *providertest.Endpoint {
		ep := providertest.NewEndpoint(t, newProvider(t, config(e)), provider.Env{Site: s, Sites: append([]site.ID{s}, accepted...)})
		if err := ep.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ep.Close() })
		return ep
	}
	here, there, stranger := at(mine, other), at(other), at(third)
	providertest.Introduce(here, there, stranger)
	for _, ep := range []*providertest.Endpoint{stranger, there} {
		send(t, ep, ep.Env().Site.String())
	}
	hears(t, here, other.String())
	if here.Heard([]byte(third.String()), 50*time.Millisecond) {
		t.Error("a frame of a site that is not accepted arrived")
	}
	if err := here.Provider.(provider.Unicaster).SendTo(t.Context(), there.Stream(), bytesOf("answer")); err != nil {
		t.Fatal(err)
	}
	hears(t, there, "answer")
	_, subscription := own(here)
	if _, err := manager(t, e).DeleteSubscription(t.Context(), topicOf(defaultPrefix, other), subscription, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the one that was removed is made again, beside the one that was not", func() bool {
		return there.Provider.Send(t.Context(), bytesOf("again")) == nil && here.Heard([]byte("again"), 10*time.Millisecond)
	})
	here.Close()
	for _, topic := range e.Topics() {
		if slices.Contains(e.Subscriptions(topic), subscription) {
			t.Errorf("after Close its subscription on %s is left", topic)
		}
	}
}

// A name that is too long is hashed: cut, two could become one.
func TestNames_AreHashedAndNotCut(t *testing.T) {
	long := strings.Repeat("x", 300)
	a, b := topicOf(long+"a", site.ID{15: 1}), topicOf(long+"b", site.ID{15: 1})
	if a == b || len(a) > maxTopicName || !isName(a, maxTopicName) {
		t.Errorf("topics %q and %q", a, b)
	}
	if got := topicOf("carillon", site.ID{15: 1}); got != "carillon-00000000-0000-0000-0000-000000000001" {
		t.Errorf("topic %q", got)
	}
	seen := make(map[string]bool)
	for _, prefix := range []string{"carillon", "carillon", "x", long, long, strings.Repeat("y", 24)} {
		name := newSubscriptionName(prefix)
		if !isName(name, maxSubscriptionName) || seen[name] {
			t.Errorf("subscription %q with the prefix %.30q", name, prefix)
		}
		seen[name] = true
	}
	e := startEmulator(t, emulator.Options{})
	cfg := config(e)
	cfg.Prefix = long
	one, two := providertest.Start(t, newProvider(t, cfg)), providertest.Start(t, newProvider(t, cfg))
	send(t, one, "frame")
	hears(t, two, "frame")
}
