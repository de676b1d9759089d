package redisbus

import (
	"context"
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
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		if p.cfg.Keep > 0 {
			return p.add(ctx, l, frames)
		}
		_, err := p.publish(ctx, l, p.toAll(l.env.Site), frames)
		return err
	})
}

// SendTo implements [provider.Unicaster]. The server says whether anybody is subscribed to the stream's channel.
func (p *Provider) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *link) error {
		of := l.env.Site
		if m := p.members.Load(); m != nil {
			if s, ok := m.foreign[to]; ok {
				of = s
			}
		}
		heard, err := p.publish(ctx, l, p.toOne(of, to), frames)
		if err == nil && !heard {
			return fmt.Errorf("redis: send to %v: %w", to, provider.ErrUnreachable)
		}
		return err
	})
}

// publish sends frames to a channel. heard says that each of them had a subscriber.
func (p *Provider) publish(ctx context.Context, l *link, channel string, frames [][]byte) (heard bool, err error) {
	b := p.batches.Get().(*batch)
	b.fill(l, frames, func(message string) rueidis.Completed {
		return l.client.B().Publish().Channel(channel).Message(message).Build()
	})
	heard = true
	answered := true
	for _, r := range l.client.DoMulti(ctx, b.commands...) {
		receivers, e := r.AsInt64()
		if e != nil {
			answered = answered && r.NonRedisError() == nil
			if err == nil {
				err = e
			}
		}
		heard = heard && receivers > 0
	}
	if answered { // else the library may still write what b holds
		p.putBack(b)
	}
	if err != nil {
		return false, explain(publishing, l.server, p.cfg.Prefix, err)
	}
	return heard, nil
}

// putBack keeps b for another batch, unless it is large.
func (p *Provider) putBack(b *batch) {
	if cap(b.bytes) <= keepBytes {
		clear(b.commands)
		p.batches.Put(b)
	}
}

// fill puts frames into b, each as the command that carries its message.
func (b *batch) fill(l *link, frames [][]byte, command func(message string) rueidis.Completed) {
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
		b.commands = append(b.commands, command(message))
	}
}
