package kafkabus

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/carillon-go/carillon/provider"
)

// receive delivers what arrives until ctx ends, and returns why it cannot go on.
func (l *link) receive(ctx context.Context) error {
	fetched := l.early
	l.early = nil
	for {
		var failed error
		fetched.EachPartition(func(p kgo.FetchTopicPartition) {
			if ctx.Err() != nil {
				return // the next link reads it again
			}
			l.deliver(p)
			if err := l.judge(p.Topic, p.Partition, p.Err); err != nil && failed == nil {
				failed = err
			}
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case failed != nil:
			return failed
		}
		fetched = l.client.PollFetches(ctx)
	}
}

// deliver delivers what was fetched of one partition.
func (l *link) deliver(p kgo.FetchTopicPartition) {
	if len(p.Records) == 0 {
		return
	}
	frames := l.frames[:0]
	for _, r := range p.Records {
		from, frame, ok := parseRecord(r)
		if ok && len(frame) > 0 && from != l.p.tag {
			frames = append(frames, frame)
		}
	}
	if len(frames) > 0 {
		l.env.Deliver(provider.Batch{Frames: frames, From: p.Topic + "/" + strconv.Itoa(int(p.Partition))})
	}
	clear(frames)
	l.frames = frames
	l.p.positions.advance(p.Topic, p.Partition, p.Records[len(p.Records)-1].Offset+1)
}

// judge returns what an error of reading a partition means: nil if franz-go goes on by itself.
func (l *link) judge(topic string, number int32, err error) error {
	packed, isPacked := errors.AsType[*kgo.ErrDecompressTooLarge](err)
	_, isLoss := errors.AsType[*kgo.ErrDataLoss](err)
	switch {
	case err == nil, isContext(err), errors.Is(err, kgo.ErrClientClosed):
		return nil
	case isPacked:
		l.skip(topic, packed.NextOffset-packed.Offset)
		l.p.positions.advance(topic, number, packed.NextOffset)
		l.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {number: {Epoch: packed.Epoch, Offset: packed.NextOffset}}})
		return nil
	case isLoss, errors.Is(err, kerr.OffsetOutOfRange), errors.Is(err, kerr.TopicAuthorizationFailed): // the next link knows where to go on
	case kerr.IsRetriable(err):
		l.poke()
		return nil
	default:
		l.p.positions.fail(topic, number)
	}
	return l.p.cfg.explain("read partition "+strconv.Itoa(int(number))+" of topic "+topic, err)
}

// skip counts records that are not taken, and says so once a second at most.
func (l *link) skip(topic string, records int64) {
	l.skipped += records
	if now := time.Now(); now.Sub(l.skipSaid) >= time.Second {
		l.skipSaid = now
		l.env.Logger.LogAttrs(context.Background(), slog.LevelWarn, "records skipped, as they are compressed, which no instance does",
			slog.String("topic", topic), slog.Int64("records", l.skipped))
	}
}
