package azurebus

import (
	"context"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/carillon-go/carillon/provider"
)

// A link is one connection with a sender for each topic that was sent to, and a receiver for each site that is accepted.
type link struct {
	p      *Provider
	env    provider.Env
	wire   *wire
	client *azservicebus.Client

	ctx  context.Context // of everything that goes on; ends with Close
	stop context.CancelFunc

	receivers []*inbox
	broken    chan error     // holds why a receiver cannot go on
	tasks     sync.WaitGroup // of receivers
	settling  settler

	mu      sync.Mutex                      // guards senders; not held while calling out
	senders map[string]*azservicebus.Sender // by topic

	busy throttle
}

// open connects, attaches to everything, and so tries out the rights: to send by asking how large a batch may be,
// to listen by a look at the next message, which stays where it is. Then it begins to receive.
func (p *Provider) open(ctx context.Context, env provider.Env) (*link, error) {
	l := &link{p: p, env: env, wire: newWire(p.cfg.dial), broken: make(chan error, 1), senders: make(map[string]*azservicebus.Sender)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.settling.init(l)
	defer context.AfterFunc(ctx, l.wire.hangUp)()
	if err := l.attach(ctx); err != nil {
		if why := l.wire.why(); why != nil && isLost(err) {
			err = why // which the SDK does not let out
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		l.Close(ended)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, p.explain(err)
	}
	for _, in := range l.receivers {
		l.tasks.Go(in.receive)
		l.tasks.Go(in.deliver)
		l.tasks.Go(in.keep)
	}
	return l, nil
}

func (l *link) attach(ctx context.Context) (err error) {
	if l.client, err = l.p.cfg.client(l.wire.connect); err != nil {
		return err
	}
	own := topicOf(l.p.cfg.prefix, l.env.Site)
	sender, err := l.sender(own)
	if err != nil {
		return err
	}
	batch, err := sender.NewMessageBatch(ctx, nil)
	if err != nil {
		return err
	}
	for body := range pack([][]byte{make([]byte, l.p.cfg.maxFrameBytes)}) {
		if err := batch.AddMessage(l.message(l.p.cfg.subscription, body), nil); err != nil {
			return err
		}
	}
	for _, topic := range l.p.topics(l.env) {
		r, err := l.client.NewReceiverForSubscription(topic, l.p.cfg.subscription, nil)
		if err != nil {
			return err
		}
		if _, err := r.PeekMessages(ctx, 1, nil); err != nil {
			return err
		}
		l.receivers = append(l.receivers, newInbox(l, topic, r))
	}
	return nil
}

// Wait implements [uplink.Link].
func (l *link) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-l.broken:
		return l.p.explain(err)
	case <-l.wire.lost:
	}
	// The SDK closes the connection also when the service refuses something, and says afterwards what that was.
	patience := time.NewTimer(reasonPatience)
	defer patience.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-l.broken:
		if !isLost(err) {
			return l.p.explain(err)
		}
	case <-patience.C: // a receiver waits for the Broker
	}
	return l.p.explain(l.wire.why())
}

// reasonPatience is how long a receiver may take to say why the connection was closed.
const reasonPatience = time.Second

// breaks ends Wait.
func (l *link) breaks(err error) {
	select {
	case l.broken <- err:
	default:
	}
}

// Close implements [uplink.Link]. Send waits until the service has accepted, so there is nothing to flush but what was taken and not acknowledged yet.
func (l *link) Close(ctx context.Context) {
	l.settling.finish(ctx)
	l.stop()
	l.wire.hangUp()
	if l.client != nil {
		ended, cancel := context.WithCancel(context.Background())
		cancel() // nobody is there to say goodbye to
		l.client.Close(ended)
	}
	l.settling.wait()
	l.tasks.Wait()
}

// sender returns that of a topic. It is attached when it is first used.
func (l *link) sender(topic string) (*azservicebus.Sender, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.senders[topic]; s != nil {
		return s, nil
	}
	s, err := l.client.NewSender(topic, nil)
	if err != nil {
		return nil, err
	}
	l.senders[topic] = s
	return s, nil
}

// drop forgets a sender, so that the next use attaches anew. The SDK goes on with one that was refused for good, whatever has become of
// the reason.
func (l *link) drop(topic string, s *azservicebus.Sender) {
	l.mu.Lock()
	if l.senders[topic] == s {
		delete(l.senders, topic)
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(l.ctx, dropTimeout)
	defer cancel()
	s.Close(ctx)
}

const dropTimeout = time.Second

// A throttle keeps quiet for a while after the service has said that it is too busy, as it asks everybody to.
type throttle struct {
	mu    sync.Mutex
	until time.Time
	pause time.Duration
	err   error
}

const (
	firstBusyPause = 2 * time.Second
	lastBusyPause  = 10 * time.Second
)

// ask returns why nothing is sent now, or nil.
func (t *throttle) ask(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.until) {
		return t.err
	}
	return nil
}

// tell notes what became of sending.
func (t *throttle) tell(now time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !isBusy(err) {
		t.pause = 0
		return
	}
	t.pause = min(max(2*t.pause, firstBusyPause), lastBusyPause)
	t.until, t.err = now.Add(t.pause), err
}
