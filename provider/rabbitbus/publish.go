package rabbitbus

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// A job is the frames of one Send, on their way into the socket. They are written by a goroutine of the link, which may have to wait for
// the network, so that Send can return when its ctx ends.
type job struct {
	to     binding
	id     string // of the first message, which must have a queue to go to; empty: it need not
	frames [][]byte
	ended  <-chan struct{} // closed when nobody waits for it any more

	written  chan struct{} // closed when the fields below are set
	confirms []*amqp.DeferredConfirmation
	err      error
}

// Send implements [provider.Provider]. It waits until the server has confirmed the frames, all together, and for no receiver.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		return l.send(ctx, binding{p.exchange(l.env.Site), keyAll}, "", frames)
	})
}

// SendTo implements [provider.Unicaster]. The server says whether a queue is bound to the stream's key.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		of := l.env.Site
		if m := p.members.Load(); m != nil {
			if s, ok := m.foreign[to]; ok {
				of = s
			}
		}
		l.hasReturned("") // of calls that were given up
		id := strconv.FormatUint(p.sent.Add(1), 10)
		if err := l.send(ctx, binding{p.exchange(of), keyOne(to)}, id, frames); err != nil {
			return err
		}
		if l.hasReturned(id) {
			return fmt.Errorf("rabbit: send to %v: %w", to, provider.ErrUnreachable)
		}
		return nil
	})
}

// hasReturned empties l.returned and reports whether the message id was in it. The server returns a message before it confirms it.
func (l *link) hasReturned(id string) (found bool) {
	for {
		select {
		case r := <-l.returned:
			found = found || r.MessageId == id && id != ""
		default:
			return found
		}
	}
}

// openPublish makes l ready to send.
func (l *link) openPublish() (err error) {
	if l.publish, err = l.out.Channel(); err != nil {
		return err
	}
	l.endWith(staying, l.out.NotifyClose(make(chan *amqp.Error, 1)))
	l.endWith(publishing, l.publish.NotifyClose(make(chan *amqp.Error, 1)))
	blocked := l.out.NotifyBlocked(make(chan amqp.Blocking, 1))
	l.tasks.Go(func() { l.alarm.follow(blocked) })
	l.publish.NotifyReturn(l.returned)
	l.tasks.Go(l.write)
	return l.publish.Confirm(false)
}

// probe sends a message of the largest length to nobody, so that a missing right or a lower limit of the server shows. While the
// server takes nothing, for want of memory or disk, that remains to be seen; it delivers all the same.
func (l *link) probe(ctx context.Context) error {
	err := l.send(ctx, binding{l.provider.exchange(l.env.Site), keyProbe}, "", [][]byte{make([]byte, l.provider.cfg.MaxFrameBytes)})
	if err != nil && l.alarm.err() != nil {
		return nil
	}
	return err
}

// send sends frames and waits until the server has answered all of them, has said that it takes nothing, or is gone.
func (l *link) send(ctx context.Context, to binding, id string, frames [][]byte) error {
	raised := l.alarm.raised()
	if err := l.alarm.err(); err != nil {
		return err
	}
	j := &job{to: to, id: id, frames: slices.Clone(frames), ended: ctx.Done(), written: make(chan struct{})}
	await := func(done <-chan struct{}) error {
		select {
		case <-done:
			return nil
		default:
		}
		select {
		case <-done:
			return nil
		case <-raised:
			return l.alarm.err()
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case l.jobs <- j:
	case <-raised:
		return l.alarm.err()
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := await(j.written); err != nil {
		return err
	}
	if j.err != nil {
		return l.why(ctx)
	}
	for _, c := range j.confirms {
		if err := await(c.Done()); err != nil {
			return err
		}
		// Where one of many queues cannot take it the server says no, though all others have it. That is no reason to
		// send it again and again; who has that queue will ask for it.
		if !c.Acked() && l.publish.IsClosed() {
			return l.why(ctx)
		}
	}
	return nil
}

// why says why the channel has ended, as the link is about to with the same reason.
func (l *link) why(ctx context.Context) error {
	select {
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write writes what send asks for, until l ends.
func (l *link) write() {
	for {
		select {
		case j := <-l.jobs:
			j.err = l.put(j)
			close(j.written)
		case <-l.ctx.Done():
			return
		}
	}
}

// put writes the frames of j, unless nobody waits for them any more.
func (l *link) put(j *job) error {
	mode := amqp.Transient
	if l.provider.cfg.Persistent {
		mode = amqp.Persistent
	}
	j.confirms = make([]*amqp.DeferredConfirmation, 0, len(j.frames))
	for i, f := range j.frames {
		select {
		case <-j.ended:
			return context.Canceled
		default:
		}
		m := amqp.Publishing{Body: f, AppId: l.tag, DeliveryMode: mode}
		if i == 0 {
			m.MessageId = j.id
		}
		// If there is no queue for the first, there is none for the others.
		c, err := l.publish.PublishWithDeferredConfirm(j.to.exchange, j.to.key, m.MessageId != "", false, m)
		if err != nil {
			return err
		}
		j.confirms = append(j.confirms, c)
	}
	return nil
}
