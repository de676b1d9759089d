package natsbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

const (
	fromHeader = "Carillon-From"

	aloneMessages = 1024            // to this instance alone, that may wait
	consumerLives = time.Minute     // after its instance has gone without a word
	consumerBeats = 5 * time.Second // how often the server says that there is nothing; after two silences the link is given up
)

// A streamLink is one connection, with a consumer on each stream. It does not connect again: another takes its place.
type streamLink struct {
	provider  *JetStream
	env       provider.Env
	dialer    *dialer
	conn      *nats.Conn
	js        jetstream.JetStream
	ended     chan struct{} // closed when conn has ended
	failed    chan error    // holds the first reason why the link is of no use
	consumers []consumer
	self      *nats.Subscription // of what is sent to this instance alone
	alone     chan *nats.Msg     // what came on it; what it has no room for is repaired
}

// A consumer hands over what a stream holds.
type consumer struct {
	stream, name string
	running      jetstream.ConsumeContext
}

// fail makes Wait return err, unless it has a reason already.
func (l *streamLink) fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// connect returns a link whose consumers begin where the last one ended. The first one's begin with what comes next.
func (p *JetStream) connect(ctx context.Context, env provider.Env) (_ *streamLink, err error) {
	l := &streamLink{provider: p, env: env, ended: make(chan struct{}), failed: make(chan error, 1), alone: make(chan *nats.Msg, aloneMessages)}
	// What the server says of a request that it refuses comes beside it, and the request would go on waiting.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := l.dial(ctx, cancel); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
				err = cause
			}
			l.release()
		}
	}()
	if limit := l.conn.MaxPayload(); limit < int64(p.set.maxFrameBytes) {
		return nil, payloadError(limit, p.set.maxFrameBytes)
	}
	if l.js, err = jetstream.New(l.conn, jetstream.WithDefaultTimeout(answerWithin), jetstream.WithPublishAsyncTimeout(answerWithin)); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	for _, s := range env.Sites {
		if err := l.consume(ctx, s); err != nil {
			return nil, err
		}
	}
	// An empty message is no frame, and everybody ignores it.
	if _, err := l.js.Publish(ctx, p.site(env.Site).kept(), nil); err != nil {
		return nil, p.explain("publish to "+p.site(env.Site).kept(), err)
	}
	if err := l.follow(); err != nil {
		return nil, err
	}
	env.ReceiveBuffer(p.set.receiveBytes)
	within, stop := context.WithTimeout(ctx, answerWithin)
	defer stop()
	if err := l.conn.FlushWithContext(within); err != nil {
		return nil, fmt.Errorf("nats: the server does not answer: %w", err)
	}
	select {
	case err := <-l.failed:
		return nil, err
	default:
		l.dialer.use(context.Background())
		return l, nil
	}
}

// dial makes l's connection. refused is told when the server refuses something.
func (l *streamLink) dial(ctx context.Context, refused context.CancelCauseFunc) (err error) {
	p := l.provider
	l.dialer = &dialer{ctx: ctx, lost: func() {}}
	l.conn, err = l.dialer.connect(ctx, p.set.servers, l.env.Site, append(p.options[:len(p.options):len(p.options)],
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			switch {
			case errors.Is(err, nats.ErrSlowConsumer):
				return // of alone; the Broker asks again
			case errors.Is(err, nats.ErrPermissionViolation):
				err = explain(err)
			}
			refused(err)
			l.fail(err)
		}),
		nats.ClosedHandler(func(c *nats.Conn) {
			if err := c.LastError(); err != nil {
				l.fail(fmt.Errorf("nats: the connection is lost: %w", err))
			}
			l.fail(errLost)
			close(l.ended)
		})))
	return err
}

// consume begins to deliver what the stream of a site holds.
func (l *streamLink) consume(ctx context.Context, s site.ID) error {
	p := l.provider
	of := p.site(s)
	info, err := l.stream(ctx, of)
	if err != nil {
		return err
	}
	at := p.places[s]
	cfg := jetstream.ConsumerConfig{
		Description: "Carillon: an instance", FilterSubject: of.kept(), AckPolicy: jetstream.AckNonePolicy,
		// The server pushes, at the pace of flow control. A consumer that pulls stands still where the next request
		// is answered in full before the client (nats.go 1.55.0) notes that it was sent.
		DeliverSubject: l.conn.NewInbox(), FlowControl: true, IdleHeartbeat: consumerBeats,
		DeliverPolicy: jetstream.DeliverNewPolicy, InactiveThreshold: consumerLives, MemoryStorage: true, Replicas: 1,
	}
	switch {
	case at == nil:
		at = &place{made: info.Created}
		at.last.Store(info.State.LastSeq)
		p.places[s] = at
	case !at.made.Equal(info.Created): // all that is in it is new
		at.made = info.Created
		at.last.Store(0)
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	default:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, at.last.Load()+1
	}
	c, err := l.js.CreatePushConsumer(ctx, of.stream(), cfg)
	if err != nil {
		return p.explain("make a consumer of the stream "+of.stream(), err)
	}
	var expected uint64 = 1
	running, err := c.Consume(func(m jetstream.Msg) {
		about, err := m.Metadata()
		if err != nil || about.Sequence.Consumer != expected {
			l.fail(fmt.Errorf("nats: message %d of the consumer was expected: %w", expected, errors.Join(err, errOutOfStep)))
			return
		}
		expected++
		l.take(m)
		at.last.Store(about.Sequence.Stream)
	}, jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		l.fail(fmt.Errorf("nats: consumer of the stream %s: %w", of.stream(), err))
	}))
	if err != nil {
		return p.explain("consume the stream "+of.stream(), err)
	}
	l.consumers = append(l.consumers, consumer{of.stream(), c.CachedInfo().Name, running})
	return nil
}

var errOutOfStep = errors.New("another one came")

// stream returns what the servers say of a site's stream, and makes it if there is none.
func (l *streamLink) stream(ctx context.Context, of subjects) (*jetstream.StreamInfo, error) {
	p := l.provider
	st, err := l.js.Stream(ctx, of.stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		st, err = l.js.CreateStream(ctx, p.cfg.stream(of))
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another was quicker, with other settings
			st, err = l.js.Stream(ctx, of.stream())
		}
	}
	if err != nil {
		return nil, p.explain("make the stream "+of.stream(), err)
	}
	return st.CachedInfo(), nil
}

// take delivers a message, unless it is our own.
func (l *streamLink) take(m jetstream.Msg) {
	if len(m.Data()) == 0 || m.Headers().Get(fromHeader) == l.provider.from {
		return
	}
	l.env.Deliver(provider.Batch{Frames: [][]byte{m.Data()}, From: m.Subject()})
}

// follow subscribes to what is sent to this instance alone, as SetMembers has told. What it was called before nobody uses any more.
func (l *streamLink) follow() error {
	m := l.provider.members.Load()
	if m == nil {
		return nil
	}
	subject := l.provider.site(l.env.Site).to(m.self)
	if l.self != nil && l.self.Subject == subject {
		return nil
	}
	before := l.self
	sub, err := l.conn.ChanSubscribe(subject, l.alone)
	if err != nil {
		return fmt.Errorf("nats: subscribe: %w", err)
	}
	l.self = sub
	if before != nil {
		return before.Unsubscribe()
	}
	return nil
}

// publish returns when the stream holds all frames.
func (l *streamLink) publish(ctx context.Context, frames [][]byte) error {
	subject := l.provider.site(l.env.Site).kept()
	pending := make([]jetstream.PubAckFuture, 0, len(frames))
	for _, f := range frames {
		if err := ctx.Err(); err != nil {
			return err
		}
		ack, err := l.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: f, Header: nats.Header{fromHeader: {l.provider.from}}})
		if err != nil {
			return l.provider.explain("publish to "+subject, err)
		}
		pending = append(pending, ack)
	}
	for _, ack := range pending {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			err = l.provider.explain("publish to "+subject, err)
			l.fail(err) // a stream that was removed is made again with the next link
			return err
		case <-l.ended:
			return errLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Wait implements uplink.Link.
func (l *streamLink) Wait(ctx context.Context) error {
	for {
		select {
		case err := <-l.failed:
			return err
		case m := <-l.alone:
			if len(m.Data) > 0 {
				l.env.Deliver(provider.Batch{Frames: [][]byte{m.Data}, From: m.Subject})
			}
		case <-l.provider.changed:
			if err := l.follow(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close implements uplink.Link.
func (l *streamLink) Close(ctx context.Context) {
	for _, c := range l.consumers {
		if ctx.Err() != nil || l.js.DeleteConsumer(ctx, c.stream, c.name) != nil {
			break // it goes by itself when it is idle
		}
	}
	l.release()
}

// release ends everything that l has at this end.
func (l *streamLink) release() {
	defer time.AfterFunc(flushTimeout, l.dialer.hangUp).Stop()
	var stopped sync.WaitGroup
	for _, c := range l.consumers {
		c.running.Stop()
		stopped.Go(func() { <-c.running.Closed() })
	}
	if l.js != nil {
		l.js.CleanupPublisher()
	}
	l.conn.Close()
	<-l.ended
	stopped.Wait()
}

// Codes of the server for which the client has no names.
var (
	noRoom        = map[jetstream.ErrorCode]bool{10002: true, 10023: true, 10028: true, 10047: true, 10077: true}
	tooFewServers = jetstream.ErrorCode(10074)
)

// explain says what was tried, and what to do about it.
func (p *JetStream) explain(tried string, err error) error {
	hint := ""
	api, isAPI := errors.AsType[*jetstream.APIError](err)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		hint = "; switch JetStream on at the servers and for this account, or use the core (natsbus.New)"
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		hint = "; the stream is gone or has other subjects: it is made again, unless one of this name with other subjects is in the way"
	case isAPI && noRoom[api.ErrorCode]:
		hint = fmt.Sprintf("; the servers have no room for it: lower MaxBytes, which is %d, or raise the limits of the account (max_file_store, max_mem_store)", p.cfg.MaxBytes)
	case isAPI && api.ErrorCode == tooFewServers:
		hint = "; Replicas is more than there are servers in the cluster"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		hint = "; the servers do not answer: does the cluster have a majority, and may this user use the subjects $JS.API.> and _INBOX.>?"
	}
	return fmt.Errorf("nats: %s: %w%s", tried, err, hint)
}
