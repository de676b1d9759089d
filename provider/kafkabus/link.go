package kafkabus

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

var _ uplink.Link = (*link)(nil)

// A link is the life of one client of franz-go. The client outlives single connections and changes of leaders by itself. The link ends, and another follows,
// when no broker answers any more, when a right is missing, and when it cannot be read on where it was.
type link struct {
	p      *Provider
	env    provider.Env
	client *kgo.Client
	end    context.CancelFunc // interrupts whatever the client waits for, which not every ctx does
	own    string             // the topic of the own site

	early    kgo.Fetches                // what was read before Wait was called
	follow   map[string]map[int32]bool  // partitions that are read; used by connect, then by watch
	ids      map[string][16]byte        // of the topics that are read; likewise
	frames   [][]byte                   // the slice of every batch; used by receive
	skipped  int64                      // records that are compressed; used by connect, then by receive
	skipSaid time.Time                  // when that was logged
	wake     chan struct{}              // holds a token when watch should look at once
	dialed   atomic.Pointer[dialFailed] // the last one; nil: none
	lost     atomic.Pointer[error]      // why the link has ended; nil: it has not
}

type dialFailed struct{ err error }

// connect makes a link that reads all topics and has tried to write to the own one.
func (p *Provider) connect(ctx context.Context, env provider.Env) (*link, error) {
	l := &link{
		p: p, env: env, own: p.topic(env.Site),
		follow: make(map[string]map[int32]bool), ids: make(map[string][16]byte), wake: make(chan struct{}, 1),
	}
	var life context.Context
	life, l.end = context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, l.end)
	client, err := kgo.NewClient(append(p.options[:len(p.options):len(p.options)],
		kgo.WithContext(life),
		kgo.WithHooks(l),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(r *kgo.Record, n int) int { return p.place.of(r.Key, n) }
		})),
	)...)
	if err != nil {
		l.end()
		return nil, p.cfg.explain("make a client", err)
	}
	l.client = client
	err = l.open(ctx)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.shut()
		return nil, err
	}
	return l, nil
}

// topics returns those of all sites whose frames are accepted.
func (l *link) topics() []string {
	all := []string{l.own}
	seen := map[site.ID]bool{l.env.Site: true}
	for _, s := range l.env.Sites {
		if !seen[s] {
			seen[s] = true
			all = append(all, l.p.topic(s))
		}
	}
	return all
}

// Wait implements [uplink.Link]. It reads, and delivers.
func (l *link) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	// Nothing is left to flush, as Send waits by itself: so whatever the client still does is interrupted.
	defer context.AfterFunc(ctx, l.end)()
	fail := func(err error) {
		l.lost.CompareAndSwap(nil, &err) // Send is told before it is interrupted
		cancel(err)
	}
	var watching sync.WaitGroup
	watching.Go(func() { fail(l.watch(ctx)) })
	fail(l.receive(ctx))
	watching.Wait()
	return *l.lost.Load()
}

// Close implements [uplink.Link].
func (l *link) Close(context.Context) { l.shut() }

func (l *link) shut() {
	l.end()
	l.client.Close()
}

// poke makes watch look at once.
func (l *link) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// OnBrokerConnect implements [kgo.HookBrokerConnect]: franz-go says only that time has run out, and forgets why.
func (l *link) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	switch {
	case err == nil:
		l.dialed.Store(nil)
	case !isContext(err):
		l.dialed.Store(&dialFailed{err})
	}
}

// OnBrokerDisconnect implements [kgo.HookBrokerDisconnect].
func (l *link) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { l.poke() }
