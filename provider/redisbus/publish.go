package redisbus

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// keepBytes is the largest buffer that is kept for a later batch.
const keepBytes = 4 << 20

// A batch is what goes to the server in one pipeline. Its memory is used again when the server has
// answered.
type batch struct {
	bytes    []byte // the messages, one after the other
	commands []rueidis.Completed
}

// Send implements [provider.Provider]. It waits for the server, and for nobody else.
func (p *Provider) Send(ctx context.Context, frames [][]byte) error {
	_, err := p.publish(ctx, p.all, frames)
	return err
}

// SendTo implements [provider.Unicaster]. The server says whether anybody is subscribed to the stream's channel.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	of := p.env.Site
	if m := p.members.Load(); m != nil {
		if s, ok := m.foreign[to]; ok {
			of = s
		}
	}
	all, err := p.publish(ctx, p.toOne(of, to), frames)
	if err == nil && !all {
		return fmt.Errorf("redis: send to %v: %w", to, provider.ErrUnreachable)
	}
	return err
}

// publish sends frames to a channel. all says that each of them had a subscriber.
func (p *Provider) publish(ctx context.Context, channel string, frames [][]byte) (all bool, err error) {
	l, err := p.may(ctx, frames)
	if err != nil || len(frames) == 0 {
		return true, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()

	b := p.batches.Get().(*batch)
	b.fill(l, channel, frames)
	all = true
	answered := true
	for _, r := range l.client.DoMulti(ctx, b.commands...) {
		receivers, e := r.AsInt64()
		if e != nil {
			answered = answered && r.NonRedisError() == nil
			if err == nil {
				err = e
			}
		}
		all = all && receivers > 0
	}
	if answered && cap(b.bytes) <= keepBytes { // else the library may still write them
		clear(b.commands)
		p.batches.Put(b)
	}
	switch {
	case err == nil:
		return all, nil
	case p.ctx.Err() != nil:
		return false, provider.ErrClosed
	case ctx.Err() != nil:
		return false, fmt.Errorf("redis: send: %w", ctx.Err())
	}
	return false, explain(publishing, l.server, p.cfg.Prefix, err)
}

// fill puts frames into b as commands for l.
func (b *batch) fill(l *link, channel string, frames [][]byte) {
	size := 0
	for _, f := range frames {
		size += prefixBytes + len(f)
	}
	if cap(b.bytes) < size {
		b.bytes = make([]byte, 0, size)
	}
	b.bytes, b.commands = b.bytes[:0], b.commands[:0]
	for _, f := range frames {
		start := len(b.bytes)
		b.bytes = appendMessage(b.bytes, l.prefix, f)
		message := rueidis.BinaryString(b.bytes[start:])
		b.commands = append(b.commands, l.client.B().Publish().Channel(channel).Message(message).Build())
	}
}

// may returns the link to send through, or says why frames are not taken.
func (p *Provider) may(ctx context.Context, frames [][]byte) (*link, error) {
	p.mu.Lock()
	state, away := p.state, p.away
	p.mu.Unlock()
	switch state {
	case stateNew, stateStarting:
		return nil, errors.New("redis: send before start")
	case stateClosed:
		return nil, provider.ErrClosed
	}
	for _, f := range frames {
		if len(f) > p.cfg.MaxFrameBytes {
			return nil, fmt.Errorf("redis: a frame of %d bytes, at most %d are sent: %w", len(f), p.cfg.MaxFrameBytes, provider.ErrFrameTooLarge)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("redis: send: %w", err)
	}
	l := p.link.Load()
	if l == nil && len(frames) > 0 {
		return nil, away
	}
	return l, nil
}
