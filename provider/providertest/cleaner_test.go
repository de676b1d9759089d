package providertest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
)

// cleanerMutant is a Subscriber that a test breaks. A nil function is what the Subscriber does.
type cleanerMutant struct {
	*Subscriber
	onStart       func(context.Context, provider.Env) error
	list          func(context.Context, site.ID) ([]provider.Subscription, error)
	onUnsubscribe func(context.Context, site.ID, provider.Subscription) error
	addresses     func() []string
}

func (m *cleanerMutant) Start(ctx context.Context, env provider.Env) error {
	if m.onStart != nil {
		return m.onStart(ctx, env)
	}
	return m.Subscriber.Start(ctx, env)
}

func (m *cleanerMutant) Subscriptions(ctx context.Context, of site.ID) ([]provider.Subscription, error) {
	if m.list != nil {
		return m.list(ctx, of)
	}
	return m.Subscriber.Subscriptions(ctx, of)
}

func (m *cleanerMutant) Unsubscribe(ctx context.Context, of site.ID, sub provider.Subscription) error {
	if m.onUnsubscribe != nil {
		return m.onUnsubscribe(ctx, of, sub)
	}
	return m.Subscriber.Unsubscribe(ctx, of, sub)
}

func (m *cleanerMutant) Addresses() []string {
	if m.addresses != nil {
		return m.addresses()
	}
	return m.Subscriber.Addresses()
}

// cleaning makes the Providers of a network cleanerMutants that fn breaks, at one Service.
func cleaning(fn func(m *cleanerMutant)) func(*testing.T, *Network, []*mutant) {
	return func(_ *testing.T, net *Network, all []*mutant) {
		service := NewService(time.Now)
		for i, inside := range all {
			m := &cleanerMutant{Subscriber: service.Subscriber(inside, "")}
			fn(m)
			net.Providers[i] = m
		}
	}
}

func cleanerMutations() []mutation {
	return []mutation{
		{check: "Subscriptions", breaks: "leaves the own one out", network: cleaning(func(m *cleanerMutant) {
			m.list = func(ctx context.Context, of site.ID) ([]provider.Subscription, error) {
				subs, err := m.Subscriber.Subscriptions(ctx, of)
				return slices.DeleteFunc(subs, func(s provider.Subscription) bool { return s.Name == m.name }), err
			}
		})},
		{check: "Subscriptions", breaks: "lists those of all sites", network: cleaning(func(m *cleanerMutant) {
			m.list = func(context.Context, site.ID) ([]provider.Subscription, error) {
				var subs []provider.Subscription
				for _, name := range m.service.Names() {
					subs = append(subs, provider.Subscription{Name: name})
				}
				return subs, nil
			}
		})},
		{check: "Subscriptions", breaks: "lists one twice", network: cleaning(func(m *cleanerMutant) {
			m.list = func(ctx context.Context, of site.ID) ([]provider.Subscription, error) {
				subs, err := m.Subscriber.Subscriptions(ctx, of)
				return append(subs, subs...), err
			}
		})},
		{check: "Subscriptions", breaks: "wants to be started first", network: cleaning(func(m *cleanerMutant) {
			m.list = func(ctx context.Context, of site.ID) ([]provider.Subscription, error) {
				if !m.service.has(m.Subscriber) {
					return nil, errMutant
				}
				return m.Subscriber.Subscriptions(ctx, of)
			}
		})},
		{check: "Subscriptions", breaks: "Close leaves it", network: cleaning(func(m *cleanerMutant) { m.Abandon() })},
		{check: "Subscriptions", breaks: "was created just now, always", network: cleaning(func(m *cleanerMutant) {
			m.list = func(ctx context.Context, of site.ID) ([]provider.Subscription, error) {
				subs, err := m.Subscriber.Subscriptions(ctx, of)
				for i := range subs {
					subs[i].Created = time.Now()
				}
				return subs, err
			}
		})},
		{check: "Unsubscribe", breaks: "one that is gone is an error", network: cleaning(func(m *cleanerMutant) {
			m.onUnsubscribe = func(ctx context.Context, of site.ID, sub provider.Subscription) error {
				if !slices.Contains(m.service.Names(), sub.Name) {
					return errMutant
				}
				return m.Subscriber.Unsubscribe(ctx, of, sub)
			}
		})},
		{check: "Unsubscribe", breaks: "takes a prefix for the name", network: cleaning(func(m *cleanerMutant) {
			m.onUnsubscribe = func(ctx context.Context, of site.ID, sub provider.Subscription) error {
				var errs []error
				for _, name := range m.service.Names() {
					if strings.HasPrefix(name, sub.Name) {
						errs = append(errs, m.Subscriber.Unsubscribe(ctx, of, provider.Subscription{Name: name}))
					}
				}
				return errors.Join(errs...)
			}
		})},
		{check: "Unsubscribe", breaks: "wants to be started first", network: cleaning(func(m *cleanerMutant) {
			m.onUnsubscribe = func(ctx context.Context, of site.ID, sub provider.Subscription) error {
				if !m.service.has(m.Subscriber) {
					return errMutant
				}
				return m.Subscriber.Unsubscribe(ctx, of, sub)
			}
		})},
		{check: "SubscriptionRemoved", breaks: "says nothing of what was lost", network: cleaning(func(m *cleanerMutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				env.Reconnected = func() {}
				return m.Subscriber.Start(ctx, env)
			}
		})},
		{check: "SubscriptionRemoved", breaks: "stays deaf", network: cleaning(func(m *cleanerMutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				reconnected := env.Reconnected
				env.Reconnected = func() { m.service.drop(m.Subscriber); reconnected() }
				return m.Subscriber.Start(ctx, env)
			}
		})},
		{check: "SubscriptionRemoved", breaks: "has another name afterwards", network: cleaning(func(m *cleanerMutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				reconnected := env.Reconnected
				env.Reconnected = func() {
					m.service.drop(m.Subscriber)
					m.name += "+"
					m.service.put(m.Subscriber)
					reconnected()
				}
				return m.Subscriber.Start(ctx, env)
			}
		})},
		{check: "SubscriptionRemoved", breaks: "leaves it as it was, and says nothing", network: cleaning(func(m *cleanerMutant) {
			m.onUnsubscribe = func(context.Context, site.ID, provider.Subscription) error { return nil }
		})},
	}
}

func TestChecks_AcceptACleanerThatIsWhole(t *testing.T) {
	for name, now := range map[string]func() time.Time{"time of creation": time.Now, "none": nil} {
		t.Run(name, func(t *testing.T) {
			Run(t, HarnessFunc(func(tb testing.TB, n int) *Network {
				bus, service := membus.New(), NewService(now)
				net := &Network{Settle: 20 * time.Millisecond, FloodBytes: 4 << 20}
				for range n {
					net.Providers = append(net.Providers, service.Subscriber(bus.Provider(), ""))
				}
				return net
			}))
		})
	}
}
