package azurebus

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
)

const (
	// prefetch is how many messages, of at most 256 KiB in the Standard tier, are asked for before one is there.
	prefetch = 32
	// queued is how many wait between the goroutine that fetches and the one that delivers.
	queued = 64
)

// An inbox is what arrives for one site.
//
// One goroutine fetches and does nothing else, since the SDK gives back whatever arrives while it is not asked; the
// message is then delivered again, behind others. It hands over to a second, which delivers.
type inbox struct {
	link     *link
	topic    string
	receiver *azservicebus.Receiver
	arrived  chan *azservicebus.ReceivedMessage
	heard    atomic.Bool // something arrived since keep looked
}

func newInbox(l *link, topic string, r *azservicebus.Receiver) *inbox {
	return &inbox{link: l, topic: topic, receiver: r, arrived: make(chan *azservicebus.ReceivedMessage, queued)}
}

// gather is how long a call waits for more after the first message. The fewer calls, the less arrives between two of them and is given
// back: without waiting, at 1,000 messages a second, that was one in twenty.
const gather = 5 * time.Millisecond

// detachedPause lies between two attempts to attach again, when the service detaches without saying why.
const detachedPause = time.Second

// receive fetches messages until the link ends.
func (in *inbox) receive() {
	defer close(in.arrived)
	l := in.link
	options := &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: gather}
	var detached time.Time
	for {
		if !l.settling.room() {
			return
		}
		messages, err := in.receiver.ReceiveMessages(l.ctx, prefetch, options)
		for _, m := range messages {
			in.heard.Store(true)
			select {
			case in.arrived <- m:
			case <-l.ctx.Done():
				return
			}
		}
		switch {
		case l.ctx.Err() != nil:
			return
		case err != nil:
			l.breaks(err)
			return
		case len(messages) == 0:
			// The receiver was detached and not refused, as the service does with links that it finds idle; the next call attaches it.
			now := time.Now()
			if now.Sub(detached) < detachedPause {
				l.breaks(errDetached)
				return
			}
			detached = now
		}
	}
}

// deliver hands messages to the Broker, one after the other. What was fetched it delivers also when the connection is lost meanwhile.
func (in *inbox) deliver() {
	l := in.link
	for m := range in.arrived {
		frames := in.open(m)
		if len(frames) == 0 {
			l.settling.settle(in.receiver, m)
			continue
		}
		l.env.Deliver(provider.Batch{Frames: frames, From: in.topic, Done: func() { l.settling.settle(in.receiver, m) }})
	}
}

// open returns the frames of a message that is for this instance.
func (in *inbox) open(m *azservicebus.ReceivedMessage) [][]byte {
	p := in.link.p
	if m.ApplicationProperties[propertyFrom] == p.cfg.subscription {
		return nil // the rule of a subscription that was made by hand lets it pass
	}
	if to, ok := m.ApplicationProperties[propertyTo]; ok && to != p.cfg.subscription {
		return nil
	}
	frames, err := unpack(m.Body)
	if err != nil {
		p.strange.Add(1)
		in.link.env.Logger.LogAttrs(in.link.ctx, slog.LevelDebug, "message of a stranger dropped", slog.String("topic", in.topic))
	}
	return frames
}

// keep looks at the subscription when nothing has arrived for a while, so that the service does not take it for idle.
func (in *inbox) keep() {
	l := in.link
	if !l.p.cfg.owned {
		return
	}
	tick := time.NewTicker(l.p.lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		if in.heard.Swap(false) {
			continue
		}
		ctx, cancel := context.WithTimeout(l.ctx, lookTimeout)
		_, err := in.receiver.PeekMessages(ctx, 1, nil)
		cancel()
		if isNotFound(err) {
			l.breaks(err)
			return
		}
	}
}

const (
	lookTimeout   = 10 * time.Second
	settleTimeout = 10 * time.Second

	maxSettling = 32  // at a time
	maxDue      = 256 // waiting for that, before no more is fetched
)

// A settler tells the service which messages were taken.
type settler struct {
	link  *link
	tasks sync.WaitGroup

	mu      sync.Mutex // guards the fields below; not held while calling out
	freed   *sync.Cond
	due     []settlement
	running int
	closed  bool
}

type settlement struct {
	receiver *azservicebus.Receiver
	message  *azservicebus.ReceivedMessage
}

func (s *settler) init(l *link) {
	s.link = l
	s.freed = sync.NewCond(&s.mu)
}

// settle has a message acknowledged soon. It does not wait. After finish it does nothing: the message comes again.
func (s *settler) settle(r *azservicebus.Receiver, m *azservicebus.ReceivedMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.due = append(s.due, settlement{r, m})
	if s.running < maxSettling {
		s.running++
		s.tasks.Go(s.run)
	}
}

// run acknowledges what is due.
func (s *settler) run() {
	for {
		s.mu.Lock()
		if len(s.due) == 0 || s.link.ctx.Err() != nil {
			s.running--
			s.freed.Broadcast()
			s.mu.Unlock()
			return
		}
		next := s.due[0]
		s.due[0] = settlement{}
		s.due = s.due[1:]
		s.freed.Broadcast()
		s.mu.Unlock()

		ctx, cancel := context.WithTimeout(s.link.ctx, settleTimeout)
		err := next.receiver.CompleteMessage(ctx, next.message, nil)
		cancel()
		if err != nil && s.link.ctx.Err() == nil { // it will come again, and be known
			s.link.env.Logger.LogAttrs(s.link.ctx, slog.LevelDebug, "message not acknowledged", slog.String("error", uplink.FirstLine(err.Error())))
		}
	}
}

// room waits until not too many are due, and reports whether the link goes on.
func (s *settler) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > maxDue && !s.closed {
		s.freed.Wait()
	}
	return !s.closed
}

// finish takes no more, and waits for what is due until ctx ends.
func (s *settler) finish(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.freed.Broadcast()
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.freed.Broadcast()
	})()
	for s.running > 0 && ctx.Err() == nil {
		s.freed.Wait()
	}
}

// wait waits for all goroutines of the settler. It is called after finish.
func (s *settler) wait() { s.tasks.Wait() }
