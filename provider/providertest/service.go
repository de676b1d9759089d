package providertest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// A Service keeps a subscription for each instance, as cloud services do, beside a transport
// that has nothing of the kind. So it makes any Provider a [provider.Cleaner]. It is
// safe for concurrent use. Use [NewService] to make one.
type Service struct {
	now func() time.Time

	mu      sync.Mutex // guards the fields below; not held while calling out
	made    int
	subs    map[string]subscription // by name
	listing func()                  // see OnList
}

type subscription struct {
	site    site.ID
	created time.Time
	of      *Subscriber
}

// NewService returns a Service without subscriptions. now tells when one is created; nil: it
// does not say.
func NewService(now func() time.Time) *Service {
	if now == nil {
		now = func() time.Time { return time.Time{} }
	}
	return &Service{now: now, subs: map[string]subscription{}}
}

// OnList makes fn run in each Subscriptions, after it has seen what it will return. Nil: nothing.
func (s *Service) OnList(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listing = fn
}

// Names returns the names of all subscriptions, sorted.
func (s *Service) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.subs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// put stores that p has its subscription, since now unless it has it already.
func (s *Service) put(p *Subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.subs[p.name]; !ok {
		s.subs[p.name] = subscription{p.env.Site, s.now(), p}
	}
}

// has reports whether p has its subscription.
func (s *Service) has(p *Subscriber) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subs[p.name].of == p
}

// drop removes the subscription of p, if it has one.
func (s *Service) drop(p *Subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs[p.name].of == p {
		delete(s.subs, p.name)
	}
}

// remove removes a subscription and returns whose it was; nil: there was none.
func (s *Service) remove(of site.ID, name string) *Subscriber {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub, ok := s.subs[name]
	if !ok || sub.site != of {
		return nil
	}
	delete(s.subs, name)
	return sub.of
}

func (s *Service) list(of site.ID) []provider.Subscription {
	s.mu.Lock()
	var subs []provider.Subscription
	for name, sub := range s.subs {
		if sub.site == of {
			subs = append(subs, provider.Subscription{Name: name, Created: sub.created})
		}
	}
	listing := s.listing
	s.mu.Unlock()
	slices.SortFunc(subs, func(a, b provider.Subscription) int { return strings.Compare(a.Name, b.Name) })
	if listing != nil {
		listing()
	}
	return subs
}

// Subscriber returns a Provider that is p, whose instance has the subscription of this name here
// while it runs. An empty name stands for one that nobody else has. It is no [provider.Unicaster].
func (s *Service) Subscriber(p provider.Provider, name string) *Subscriber {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	if name == "" {
		name = "subscription-" + strings.Repeat("i", s.made) // each is a prefix of the next
	}
	return &Subscriber{Provider: p, service: s, name: name}
}

// A Subscriber is a Provider that has a subscription at a [Service]. It is a [provider.Cleaner] and
// a [provider.MemberWatcher]. It is safe for concurrent use.
type Subscriber struct {
	provider.Provider // the transport
	service           *Service
	name              string
	env               provider.Env
	abandoned         atomic.Bool
	gone              sync.WaitGroup // goroutines that subscribe again

	mu     sync.Mutex // guards the fields below
	closed bool
}

var (
	_ provider.Cleaner       = (*Subscriber)(nil)
	_ provider.MemberWatcher = (*Subscriber)(nil)
)

// Start implements [provider.Provider].
func (p *Subscriber) Start(ctx context.Context, env provider.Env) error {
	p.env = env
	deliver := env.Deliver
	env.Deliver = func(b provider.Batch) {
		if p.service.has(p) {
			deliver(b)
		} else if b.Done != nil {
			b.Done()
		}
	}
	p.service.put(p)
	if err := p.Provider.Start(ctx, env); err != nil {
		p.service.drop(p)
		return err
	}
	return nil
}

// Addresses implements [provider.Advertiser].
func (p *Subscriber) Addresses() []string { return []string{p.name} }

// SetMembers implements [provider.MemberWatcher].
func (p *Subscriber) SetMembers(m provider.Members) {
	if w, ok := p.Provider.(provider.MemberWatcher); ok {
		w.SetMembers(m)
	}
}

// Subscriptions implements [provider.Cleaner].
func (p *Subscriber) Subscriptions(ctx context.Context, of site.ID) ([]provider.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return p.service.list(of), nil
}

// Unsubscribe implements [provider.Cleaner].
func (p *Subscriber) Unsubscribe(ctx context.Context, of site.ID, sub provider.Subscription) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if owner := p.service.remove(of, sub.Name); owner != nil {
		owner.removed()
	}
	return nil
}

// removed subscribes again in the background, as an instance does that finds its subscription gone, if it
// runs.
func (p *Subscriber) removed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.gone.Go(func() {
		p.service.put(p)
		p.env.Reconnected()
	})
}

// Abandon makes Close leave the subscription behind, as the end of a process does that is killed.
func (p *Subscriber) Abandon() { p.abandoned.Store(true) }

// Close implements [provider.Provider].
func (p *Subscriber) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.gone.Wait()
	err := p.Provider.Close()
	if !p.abandoned.Load() {
		p.service.drop(p)
	}
	return err
}
