package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	sendWithin = 5 * time.Second // for what goes out together

	// What goes out together. As much again may be left of what a Send before has given up.
	togetherFrames = 4096
	bufferedFrames = 4 * togetherFrames
	bufferedBytes  = 64 << 20
)

var (
	errNotAll   = errors.New("the answer is not complete")
	errNoAnswer = fmt.Errorf("no acknowledgement within %v", sendWithin)
)

// send writes frames and returns when they are acknowledged.
func (l *link) send(ctx context.Context, frames [][]byte) error {
	for some := range slices.Chunk(frames, togetherFrames) {
		if err := l.produce(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// produce writes some frames, or probes, and returns when they are acknowledged, or one was not.
func (l *link) produce(ctx context.Context, frames [][]byte) error {
	waiting, giveUp := context.WithTimeoutCause(ctx, sendWithin, errNoAnswer)
	defer giveUp()
	var done outcome
	key := l.p.place.currentKey()
	for _, f := range frames {
		l.client.Produce(waiting, newRecord(l.own, key, &l.p.tag, f), done.of)
	}
	err := l.client.Flush(waiting)
	if err == nil {
		err = done.err()
	}
	if err == nil {
		return nil
	}
	lost := l.lost.Load()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case waiting.Err() != nil, errors.Is(err, kgo.ErrRecordTimeout):
		l.poke() // perhaps no broker answers at all
		return l.unanswered()
	case errors.Is(err, kgo.ErrClientClosed) && lost != nil:
		return *lost
	case errors.Is(err, kerr.MessageTooLarge):
		return tooSmall(l.own, 0, l.p.cfg.batchBytes())
	}
	if !kerr.IsRetriable(err) {
		l.poke()
	}
	return l.p.cfg.explain("write to topic "+l.own, err)
}

// unanswered says why there was no acknowledgement, as far as that is known.
func (l *link) unanswered() error {
	if d := l.dialed.Load(); d != nil {
		return l.p.cfg.explain("write to topic "+l.own, d.err)
	}
	return fmt.Errorf("kafka: write to topic %s: %w: are enough replicas in sync (min.insync.replicas), and is there room on the brokers' disks?", l.own, errNoAnswer)
}

// An outcome is how it went with the records of one batch. The zero outcome is that all went well.
type outcome struct {
	mu    sync.Mutex
	first error
}

// of is called for every record.
func (o *outcome) of(_ *kgo.Record, err error) {
	if err == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.first == nil {
		o.first = err
	}
}

func (o *outcome) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first
}
