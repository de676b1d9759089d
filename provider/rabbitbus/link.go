package rabbitbus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider"
)

var errLinkClosed = errors.New("rabbit: the link is closed")

// A link is what is between an instance and the server for as long as it holds: two connections, since a server that is short of memory or
// disk stops reading from those that publish, and would then read no acknowledgement either. When anything of
// it breaks it is replaced as a whole.
type link struct {
	provider *Provider
	env      provider.Env
	server   *server
	tag      string // in all that is sent through this link
	queue    string

	ctx   context.Context         // ends with the link; its cause says why, and both sockets are closed then
	fail  context.CancelCauseFunc // ends it
	tasks sync.WaitGroup

	in, out *amqp.Connection
	rpc     *amqp.Channel // of in: declares and binds; of connect, and then of follow alone
	consume *amqp.Channel // of in
	publish *amqp.Channel // of out

	rpcEnds, consumeEnds chan *amqp.Error // receive why those channels ended
	cancelled            chan string      // receives something when the queue is gone

	bound    map[binding]bool // what the queue is bound to, by this link; of whoever has rpc
	acks     *acks
	alarm    *alarm
	jobs     chan *job
	returned chan amqp.Return // what no queue was bound to, of that which must be
}

// connect makes a link that is subscribed. Each server is tried once; the next call begins with the next.
func (p *Provider) connect(ctx context.Context, env provider.Env) (*link, error) {
	env.ReceiveBuffer(p.cfg.receiveBytes())
	var err error
	for range p.servers {
		s := p.servers[p.failed.Load()%uint64(len(p.servers))]
		var l *link
		if l, err = p.try(ctx, env, s); err == nil {
			return l, nil
		}
		p.failed.Add(1)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// try makes a link to one server.
func (p *Provider) try(ctx context.Context, env provider.Env, s *server) (*link, error) {
	l := &link{
		provider: p, env: env, server: s, tag: newTag(),
		bound: make(map[binding]bool), acks: newAcks(), alarm: newAlarm(s),
		jobs: make(chan *job), returned: make(chan amqp.Return, 64),
	}
	l.ctx, l.fail = context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { l.fail(l.explain(connecting, context.Cause(ctx))) })
	err := l.open(ctx)
	stop()
	if why := context.Cause(l.ctx); why != nil { // what failed besides failed because of this
		err = why
	}
	if err != nil {
		l.cut(err)
		return nil, err
	}
	env.Logger.LogAttrs(ctx, slog.LevelInfo, "subscribed", slog.String("server", s.String()),
		slog.String("queue", l.queue), slog.String("from", l.tag))
	return l, nil
}

// open connects, subscribes, and tries out the right to publish. What it has begun when it fails, cut ends.
func (l *link) open(ctx context.Context) (err error) {
	title := "carillon " + l.env.Site.String()
	if l.out, err = l.server.dial(l.ctx, l.provider.cfg.TLS, title+" sends"); err != nil {
		return l.explain(connecting, err)
	}
	if l.in, err = l.server.dial(l.ctx, l.provider.cfg.TLS, title+" receives"); err != nil {
		return l.explain(connecting, err)
	}
	if err := l.declareExchanges(); err != nil {
		return l.explain(subscribing, err)
	}
	if err := l.openPublish(); err != nil {
		return l.explain(publishing, err)
	}
	if err := l.probe(ctx); err != nil {
		return err
	}
	deliveries, err := l.listen(ctx)
	if err != nil {
		return l.explain(subscribing, err)
	}
	l.provider.own.use(l.tag, time.Now())
	l.endWith(staying, l.in.NotifyClose(make(chan *amqp.Error, 1)))
	l.endWith(subscribing, l.rpcEnds)
	l.endWith(subscribing, l.consumeEnds)
	l.tasks.Go(func() {
		if _, ok := <-l.cancelled; ok {
			l.fail(l.explain(subscribing, errQueueGone))
		}
	})
	l.tasks.Go(func() { l.receive(deliveries) })
	l.tasks.Go(l.acknowledge)
	l.tasks.Go(l.follow)
	return nil
}

func (l *link) explain(doing string, err error) error {
	return explain(doing, l.server, l.provider.cfg.Prefix, err)
}

// endWith ends l when ends receives why a part of it has ended. If that is closed without an error, we have closed that part.
func (l *link) endWith(doing string, ends <-chan *amqp.Error) {
	l.tasks.Go(func() {
		if err, ok := <-ends; ok {
			l.fail(l.explain(doing, err))
		}
	})
}

// Wait implements [uplink.Link].
func (l *link) Wait(ctx context.Context) error {
	select {
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements [uplink.Link].
func (l *link) Close(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { l.fail(errLinkClosed) })
	defer stop()
	if ctx.Err() == nil && l.ctx.Err() == nil {
		l.leave(ctx)
	}
	l.cut(errLinkClosed)
}

// leave takes back what the server keeps for the instance, and says goodbye. It returns early when ctx ends.
func (l *link) leave(ctx context.Context) {
	// Whatever fails here, the server does by itself: the queue expires.
	if l.consume.Cancel(consumer, false) == nil {
		l.consume.QueueDelete(l.queue, false, false, false)
	}
	deadline, _ := ctx.Deadline()
	if l.alarm.err() == nil { // else nobody reads it
		l.out.CloseDeadline(deadline)
	}
	l.in.CloseDeadline(deadline)
}

// cut ends everything of l and waits for it.
func (l *link) cut(why error) {
	l.fail(why) // closes the sockets
	for _, c := range []*amqp.Connection{l.in, l.out} {
		if c != nil {
			c.CloseDeadline(time.Now()) // for those who wait inside the library
		}
	}
	l.tasks.Wait()
}
