package kafkabus

import (
	"context"
	"fmt"
	"time"
)

const (
	lookEvery  = 5 * time.Second
	lookWithin = 3 * time.Second // for a broker's answer
)

// watch looks every now and then, and at once when a connection breaks, whether the topics are what they were. It returns what makes this link
// useless, or the error of ctx.
func (l *link) watch(ctx context.Context) error {
	next := time.NewTimer(l.p.cfg.lookEvery)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		case <-l.wake:
		}
		if err := l.look(ctx); err != nil {
			return err
		}
		next.Reset(l.p.cfg.lookEvery)
	}
}

// look asks for the topics and begins to read what is new.
func (l *link) look(ctx context.Context) error {
	all, err := l.describe(ctx)
	if err != nil {
		return l.p.cfg.explain("ask for topics", err)
	}
	var there []topic
	for _, t := range all {
		was, known := l.ids[t.name]
		switch {
		case t.isMissing() && known:
			return fmt.Errorf("kafka: topic %s was deleted", t.name)
		case t.isMissing(), t.err != nil && t.isPending():
		case t.err != nil:
			return l.p.cfg.explain("describe topic "+t.name, t.err)
		case known && was != t.id:
			return fmt.Errorf("kafka: topic %s was deleted, and made again", t.name)
		default:
			there = append(there, t)
		}
	}
	return l.read(ctx, there)
}
