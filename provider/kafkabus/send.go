package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	sendWithin = 5 * time.Second // for what goes out together

	// What goes out together. As much again, and more, may be left of what a Send before has given up.
	togetherFrames = 4096
	togetherBytes  = 8 << 20
	bufferedFrames = 4 * togetherFrames
	bufferedBytes  = 4 * togetherBytes
)

var (
	errNotAll   = errors.New("the answer is not complete")
	errNoAnswer = errors.New("no acknowledgement in time")
)

// send writes frames and returns when they are acknowledged.
func (l *link) send(ctx context.Context, frames [][]byte) error {
	for len(frames) > 0 {
		n := together(frames)
		if err := l.produce(ctx, frames[:n]); err != nil {
			return err
		}
		frames = frames[n:]
	}
	return nil
}

// together returns how many of the frames go out at once.
func together(frames [][]byte) int {
	bytes := 0
	for i, f := range frames {
		if bytes += len(f) + recordOverhead; i > 0 && (i == togetherFrames || bytes > togetherBytes) {
			return i
		}
	}
	return len(frames)
}

// produce writes some frames, or a probe, and returns when they are acknowledged, or one was not.
func (l *link) produce(ctx context.Context, frames [][]byte) error {
	waiting, giveUp := context.WithTimeout(ctx, l.p.cfg.sendWithin)
	defer giveUp()
	err := l.produceOnce(waiting, frames)
	for isContext(err) && waiting.Err() == nil {
		// What a Send before had given up was still buffered, and franz-go gives up all that waits behind it.
		err = l.produceOnce(waiting, frames)
	}
	if err == nil {
		return nil
	}
	lost := l.lost.Load()
	switch {
	case ctx.Err() != nil:
		return l.because(ctx.Err())
	case lost != nil:
		return *lost
	case waiting.Err() != nil, errors.Is(err, kgo.ErrRecordTimeout):
		l.poke() // perhaps no broker answers at all
		return l.unanswered()
	case errors.Is(err, kerr.MessageTooLarge):
		return tooSmall(l.own, 0, l.p.cfg.batchBytes())
	}
	if !kerr.IsRetriable(err) {
		l.poke()
	}
	return l.p.cfg.explain("write to topic "+l.own, err)
}

func (l *link) produceOnce(ctx context.Context, frames [][]byte) error {
	var done outcome
	key := l.p.place.currentKey()
	for _, f := range frames {
		l.client.Produce(ctx, newRecord(l.own, key, &l.p.tag, f), done.of)
	}
	if err := l.client.Flush(ctx); err != nil {
		return err
	}
	return done.err()
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
