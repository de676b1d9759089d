package azurebus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// Properties of a message, by which the rule of a subscription decides.
const (
	propertyFrom = "carillon_from" // the subscription of who sent it
	propertyTo   = "carillon_to"   // of whom it is for; missing: of everybody
)

// Send implements [provider.Provider]. It returns when the service has stored the frames.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		return l.publish(ctx, topicOf(p.cfg.prefix, l.env.Site), "", frames)
	})
}

// SendTo implements [provider.Unicaster]. The service hands the frames to that instance alone, which costs less than to hand them to all.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		member, ok := p.find(to)
		if !ok {
			return fmt.Errorf("azure: send to %v: %w", to, provider.ErrUnreachable)
		}
		return l.publish(ctx, topicOf(p.cfg.prefix, member.site), member.subscription, frames)
	})
}

// sendTimeout bounds what the service may take for the frames of one Send.
const sendTimeout = 10 * time.Second

// publish sends frames to a topic, in as few messages and batches as they fit in.
func (l *link) publish(ctx context.Context, topic, to string, frames [][]byte) error {
	if err := l.busy.ask(time.Now()); err != nil {
		return l.p.explain(err)
	}
	s, err := l.sender(topic)
	if err == nil {
		within, cancel := context.WithTimeout(ctx, sendTimeout)
		defer cancel()
		// What was interrupted in the middle of a message may leave the SDK's sender waiting for ever.
		if err = l.send(within, s, to, frames); isRefused(err) || err != nil && within.Err() != nil {
			l.drop(topic, s)
		}
	}
	l.busy.tell(time.Now(), err)
	return l.p.explain(err)
}

func (l *link) send(ctx context.Context, s *azservicebus.Sender, to string, frames [][]byte) error {
	batch, err := s.NewMessageBatch(ctx, nil) // asks the service only the first time
	if err != nil {
		return err
	}
	for body := range pack(frames) {
		m := l.message(to, body)
		err := batch.AddMessage(m, nil)
		if errors.Is(err, azservicebus.ErrMessageTooLarge) && batch.NumMessages() > 0 {
			if err := s.SendMessageBatch(ctx, batch, nil); err != nil {
				return err
			}
			if batch, err = s.NewMessageBatch(ctx, nil); err != nil {
				return err
			}
			err = batch.AddMessage(m, nil)
		}
		if err != nil {
			return err
		}
	}
	return s.SendMessageBatch(ctx, batch, nil)
}

func (l *link) message(receiver string, body []byte) *azservicebus.Message {
	m := &azservicebus.Message{
		Body: body, TimeToLive: to.Ptr(l.p.cfg.timeToLive),
		ApplicationProperties: map[string]any{propertyFrom: l.p.cfg.subscription},
	}
	if receiver != "" {
		m.ApplicationProperties[propertyTo] = receiver
	}
	return m
}
