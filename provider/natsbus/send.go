package natsbus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// Send implements [provider.Provider]. It waits for the server alone, and for that only when the system's buffer is full, for 5 s at most.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	if err := p.ready(ctx, frames); err != nil {
		return err
	}
	return p.publish(ctx, p.site(p.env.Site).all(), frames)
}

// SendTo implements [provider.Unicaster]. An instance can be reached if it is among the members.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	if err := p.ready(ctx, frames); err != nil {
		return err
	}
	subject, ok := p.members.Load().find(to)
	if !ok {
		return fmt.Errorf("nats: send to %v: %w", to, provider.ErrUnreachable)
	}
	return p.publish(ctx, subject, frames)
}

// ready says why frames cannot be sent, if they cannot.
func (p *Provider) ready(ctx context.Context, frames [][]byte) error {
	p.mu.Lock()
	state := p.state
	p.mu.Unlock()
	switch state {
	case stateClosed:
		return provider.ErrClosed
	case stateNew, stateStarting:
		return errors.New("nats: send before start")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, f := range frames {
		if len(f) > p.cfg.maxFrameBytes {
			return fmt.Errorf("nats: send a frame of %d bytes, at most %d: %w", len(f), p.cfg.maxFrameBytes, provider.ErrFrameTooLarge)
		}
	}
	if t := p.trouble.Load(); t != nil {
		return t.err
	}
	return nil
}

func (p *Provider) publish(ctx context.Context, subject string, frames [][]byte) error {
	p.follow()
	c := p.conn.Load()
	for i, f := range frames {
		if i > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		err := c.Publish(subject, f)
		if err == nil {
			continue
		}
		if p.ctx.Err() != nil || p.closed() {
			return provider.ErrClosed
		}
		if t := p.trouble.Load(); t != nil {
			return t.err
		}
		switch {
		case errors.Is(err, nats.ErrReconnectBufExceeded): // its way to say that there is no connection
			return errLost
		case errors.Is(err, nats.ErrMaxPayload): // the server has changed its mind
			return payloadError(c.MaxPayload(), p.cfg.maxFrameBytes)
		}
		return fmt.Errorf("nats: publish: %w", err)
	}
	return nil
}

func (p *Provider) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == stateClosed
}
