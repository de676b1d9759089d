package providertest

import (
	"context"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// The last of three Providers belongs to a site whose ID differs from that of the others in
// its last byte, so that a name that was cut short is found.
func checkSubscriptions(c *check) {
	if !c.cleans() {
		return
	}
	strange := testSite()
	strange[len(strange)-1] ^= 1
	c.eps[2] = NewEndpoint(c.tb, c.eps[2].Provider, provider.Env{Site: strange, Route: c.network.Route})

	if subs := c.subscriptions(1, testSite()); len(subs) > 0 {
		c.errorf("before anybody has started, %d subscriptions are listed, the first of them %q", len(subs), subs[0].Name)
	}
	c.start(0)
	c.listed(1, 0, c.address(0)) // by one that has not started
	c.start(1)
	if err := c.within("Start", func() error { return c.eps[2].Start(c.tb.Context()) }); err != nil {
		c.fatalf("Start of provider 2, of another site: %v", err)
	}
	names := []string{c.address(0), c.address(1), c.address(2)}
	for from := range c.eps {
		for of, name := range names {
			c.listed(from, of, name)
		}
	}
	created := c.created(0, names[0])
	if err := c.within("Close", c.eps[1].Close); err != nil {
		c.errorf("Close: %v", err)
	}
	c.unlisted(0, 1, names[1])
	c.listed(0, 0, names[0])
	c.listed(0, 2, names[2])
	if now := c.created(0, names[0]); now != created {
		c.errorf("a subscription was created at %v, and later at %v", created, now)
	}
}

func checkUnsubscribe(c *check) {
	if !c.cleans() {
		return
	}
	c.start(0, 1)
	name, gone := c.address(0), c.address(1)
	if err := c.within("Close", c.eps[1].Close); err != nil {
		c.errorf("Close: %v", err)
	}
	c.unlisted(0, 1, gone)
	never := []byte(gone)
	never[len(never)-1] ^= 1
	for _, name := range []string{gone, gone, string(never)} {
		for _, from := range []int{0, 2} { // provider 2 never starts
			if err := c.unsubscribe(from, name); err != nil {
				c.errorf("Unsubscribe of %q, which is not there, by provider %d: %v; want nil", name, from, err)
			}
		}
	}
	// A name that begins like that of provider 0 is not its name. What the service says of it, if it
	// takes such names at all, does not matter.
	before := c.eps[0].Reconnects()
	for _, like := range []string{name[:len(name)-1], name + "0"} {
		c.unsubscribe(2, like)
	}
	c.quiet()
	c.listed(2, 0, name)
	if n := c.eps[0].Reconnects() - before; n > 0 {
		c.errorf("Unsubscribe of names that begin like %q removed that one: its instance called Reconnected %d times", name, n)
	}
}

func checkSubscriptionRemoved(c *check) {
	if !c.cleans() {
		return
	}
	c.start()
	c.meet()
	for range 2 {
		name, before := c.address(1), c.eps[1].Reconnects()
		if err := c.unsubscribe(0, name); err != nil {
			c.fatalf("Unsubscribe of %q, of a provider that runs: %v", name, err)
		}
		if !c.eps[1].wait(c.network.Patience, func() bool { return c.eps[1].reconnects > before }) {
			c.fatalf("%v after its subscription was removed, provider 1 has not called Reconnected", c.network.Patience)
		}
		// As after Start: what is sent from now on arrives.
		c.carry(0, c.frames(0, laneLoose, 10, smallFrame))
		c.carry(1, c.frames(1, laneLoose, 10, smallFrame))
		if now := c.address(1); now != name {
			c.errorf("after its subscription was removed, the address of provider 1 is %q; want %q, as in its member row", now, name)
		}
		c.listed(0, 1, name)
	}
}

// cleans reports whether the Providers are Cleaners.
func (c *check) cleans() bool {
	_, ok := c.network.Providers[0].(provider.Cleaner)
	return ok
}

func (c *check) cleaner(i int) provider.Cleaner {
	p, ok := c.network.Providers[i].(provider.Cleaner)
	if !ok {
		c.fatalf("provider 0 is a Cleaner, and provider %d is not", i)
	}
	return p
}

// address returns the name of what endpoint i has at the service. It has started and is not closed.
func (c *check) address(i int) string {
	addresses := c.cleaner(i).Addresses()
	if len(addresses) != 1 || len(addresses[0]) < 2 {
		c.fatalf("Addresses() of provider %d = %q; want the name of its subscription", i, addresses)
	}
	return addresses[0]
}

// subscriptions lists those of site s, as the Provider from sees them.
func (c *check) subscriptions(from int, s site.ID) []provider.Subscription {
	ctx, cancel := context.WithTimeout(c.tb.Context(), c.network.Patience)
	defer cancel()
	p := c.cleaner(from)
	var subs []provider.Subscription
	if err := c.within("Subscriptions", func() (err error) {
		subs, err = p.Subscriptions(ctx, s)
		return err
	}); err != nil {
		c.fatalf("Subscriptions of site %v by provider %d: %v", s, from, err)
	}
	return subs
}

func (c *check) unsubscribe(from int, name string) error {
	ctx, cancel := context.WithTimeout(c.tb.Context(), c.network.Patience)
	defer cancel()
	p := c.cleaner(from)
	return c.within("Unsubscribe", func() error {
		return p.Unsubscribe(ctx, testSite(), provider.Subscription{Name: name})
	})
}

// listed waits until the Provider from lists name, that of endpoint of, once for its site; for
// other sites it never does.
func (c *check) listed(from, of int, name string) {
	own, n := c.eps[of].env.Site, 0
	if !Eventually(c.network.Patience, func() bool {
		n = c.count(from, own, name)
		return n == 1
	}) {
		c.errorf("provider %d runs, and provider %d lists its subscription %q %d times; want once", of, from, name, n)
	}
	for _, e := range c.eps {
		if s := e.env.Site; s != own && c.count(from, s, name) > 0 {
			c.errorf("provider %d lists %q, of provider %d, for another site", from, name, of)
		}
	}
}

// unlisted waits until the Provider from does not list name, which endpoint of had.
func (c *check) unlisted(from, of int, name string) {
	if !Eventually(c.network.Patience, func() bool { return c.count(from, c.eps[of].env.Site, name) == 0 }) {
		c.errorf("%v after Close of provider %d its subscription %q is still listed", c.network.Patience, of, name)
	}
}

func (c *check) count(from int, s site.ID, name string) (n int) {
	for _, sub := range c.subscriptions(from, s) {
		if sub.Name == name {
			n++
		}
	}
	return n
}

// created returns when the service says that it created what endpoint i has; empty: it says nothing.
func (c *check) created(i int, name string) string {
	for _, sub := range c.subscriptions(i, c.eps[i].env.Site) {
		if sub.Name == name && !sub.Created.IsZero() {
			return sub.Created.UTC().String()
		}
	}
	return ""
}
