package kafkabus

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// open begins to read, and makes sure that what is written arrives.
func (l *link) open(ctx context.Context) error {
	there, err := l.ready(ctx)
	if err != nil {
		return err
	}
	if err := l.fits(ctx); err != nil {
		return err
	}
	if err := l.read(ctx, there); err != nil {
		return err
	}
	l.p.positions.begin()
	return l.tryOut(ctx)
}

// read begins to read the partitions that are not read yet, where this instance has to begin or to go on. When it
// returns nil, it has been settled where that is.
func (l *link) read(ctx context.Context, there []topic) error {
	var fresh []topic
	for _, t := range there {
		n := topic{name: t.name, id: t.id}
		for _, p := range t.partitions {
			if !l.follow[t.name][p] {
				n.partitions = append(n.partitions, p)
			}
		}
		if len(n.partitions) > 0 {
			fresh = append(fresh, n)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	latest, err := l.list(ctx, fresh, listLatest)
	if err != nil {
		return err
	}
	earliest, err := l.list(ctx, fresh, listEarliest)
	if err != nil {
		return err
	}
	from := make(map[string]map[int32]kgo.Offset)
	for _, t := range fresh {
		from[t.name] = make(map[int32]kgo.Offset)
		l.ids[t.name] = t.id
		if l.follow[t.name] == nil {
			l.follow[t.name] = make(map[int32]bool)
		}
		for _, p := range t.partitions {
			at := partition{t.name, p}
			next := l.p.positions.resume(t.name, t.id, p, earliest[at], latest[at])
			from[t.name][p] = kgo.NewOffset().At(next)
			l.follow[t.name][p] = true
		}
	}
	l.client.AddConsumePartitions(from)
	return nil
}

// A partition is one of a topic.
type partition struct {
	topic  string
	number int32
}

// What the brokers take for a time when they are asked for offsets.
const (
	listLatest   = -1
	listEarliest = -2
)

// list asks where partitions begin or end.
func (l *link) list(ctx context.Context, of []topic, which int64) (map[partition]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	wanted := 0
	for _, t := range of {
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = t.name
		for _, p := range t.partitions {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = p, which
			rt.Partitions = append(rt.Partitions, rp)
			wanted++
		}
		req.Topics = append(req.Topics, rt)
	}
	offsets := make(map[partition]int64, wanted)
	for _, shard := range l.client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, l.p.cfg.explain("ask where topics end", l.because(shard.Err))
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, l.p.cfg.explain("ask where topic "+t.Topic+" ends", err)
				}
				offsets[partition{t.Topic, p.Partition}] = p.Offset
			}
		}
	}
	if len(offsets) < wanted {
		return nil, l.p.cfg.explain("ask where topics end", errNotAll)
	}
	return offsets, nil
}

// tryOut writes a record without a frame and waits until something of the own topic can be read: the right to write, and that to read, are tried out.
func (l *link) tryOut(ctx context.Context) error {
	if err := l.produce(ctx, [][]byte{nil}); err != nil {
		return err
	}
	reading, giveUp := context.WithTimeout(ctx, readyWithin)
	defer giveUp()
	for {
		fetched := l.client.PollFetches(reading)
		switch {
		case ctx.Err() != nil:
			return l.p.cfg.explain("read topic "+l.own, l.because(ctx.Err()))
		case reading.Err() != nil:
			return fmt.Errorf("kafka: read topic %s: what was written did not come back within %v: is its leader well?", l.own, readyWithin)
		}
		read := false
		var failed error
		fetched.EachPartition(func(p kgo.FetchTopicPartition) {
			read = read || p.Topic == l.own && len(p.Records) > 0
			if errors.Is(p.Err, kgo.ErrMaxDecompress) && p.Topic == l.own {
				failed = errCompressed(l.own) // it may be the probe; and if it is a stranger's, the next attempt will tell
			}
			if err := l.judge(p.Topic, p.Partition, p.Err); err != nil && failed == nil {
				failed = err
			}
		})
		if failed != nil {
			return failed
		}
		l.early = append(l.early, fetched...)
		if read {
			return nil
		}
	}
}
