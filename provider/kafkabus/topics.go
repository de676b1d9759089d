package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	readyWithin = 10 * time.Second // for the partitions of a topic to have leaders, and for what is written to come back
	firstPause  = 20 * time.Millisecond
	lastPause   = 500 * time.Millisecond
)

// A topic is what the brokers say of one.
type topic struct {
	name       string
	id         [16]byte
	partitions []int32 // those that have a leader
	leaderless bool    // there are others
	err        error   // why nothing is known of it
}

// isMissing reports whether the topic is not there.
func (t *topic) isMissing() bool { return errors.Is(t.err, kerr.UnknownTopicOrPartition) }

// isPending reports whether the brokers are still at it.
func (t *topic) isPending() bool {
	return t.err == nil && t.leaderless || t.err != nil && !t.isMissing() && kerr.IsRetriable(t.err)
}

// describe asks for all topics. A broker that does not answer in time is not the last word: another is asked.
func (l *link) describe(ctx context.Context) ([]topic, error) {
	all, err := l.describeOnce(ctx)
	if err != nil && ctx.Err() == nil {
		all, err = l.describeOnce(ctx)
	}
	return all, err
}

func (l *link) describeOnce(ctx context.Context) ([]topic, error) {
	ctx, cancel := context.WithTimeout(ctx, l.p.cfg.lookWithin)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false // it would have another retention
	for _, name := range l.topics() {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	answer, err := l.client.Request(ctx, req)
	if err != nil {
		return nil, l.because(err)
	}
	var all []topic
	for _, said := range answer.(*kmsg.MetadataResponse).Topics {
		if said.Topic == nil {
			continue
		}
		t := topic{name: *said.Topic, id: said.TopicID, err: kerr.ErrorForCode(said.ErrorCode)}
		for _, p := range said.Partitions {
			if p.Leader < 0 {
				t.leaderless = true
			} else {
				t.partitions = append(t.partitions, p.Partition)
			}
		}
		all = append(all, t)
	}
	return all, nil
}

// ready returns all topics that are there, when every partition has a leader. The own one is made if it is missing.
func (l *link) ready(ctx context.Context) ([]topic, error) {
	deadline := time.NewTimer(readyWithin)
	defer deadline.Stop()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		all, err := l.describe(ctx)
		if err != nil {
			return nil, l.p.cfg.explain("ask for topics", err)
		}
		var there []topic
		waiting := ""
		for _, t := range all {
			switch {
			case t.isMissing() && t.name == l.own:
				if err := l.create(ctx); err != nil {
					return nil, err
				}
				waiting = t.name
			case t.isMissing(): // of a site of which no instance has been here; watch will see it
			case t.isPending():
				waiting = t.name
			case t.err != nil:
				return nil, l.p.cfg.explain("describe topic "+t.name, t.err)
			default:
				there = append(there, t)
			}
		}
		if waiting == "" {
			return there, nil
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, ctx.Err()
		case <-deadline.C:
			again.Stop()
			return nil, fmt.Errorf("kafka: topic %s has partitions without a leader for %v now: are all brokers running?", waiting, readyWithin)
		}
	}
}

// create makes the own topic. That another instance does the same at this moment is fine.
func (l *link) create(ctx context.Context) error {
	cfg := &l.p.cfg
	// Brokers delete whole segments, and the one that is written to never; so segments are short.
	retention, segment := cfg.retention.Milliseconds(), cfg.retention.Milliseconds()/5
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(answerWithin.Milliseconds())
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = l.own, cfg.partitions, cfg.replicas
	for _, setting := range [][2]string{
		{"cleanup.policy", "delete"},
		{"compression.type", "uncompressed"},
		{"retention.ms", strconv.FormatInt(retention, 10)},
		{"segment.ms", strconv.FormatInt(segment, 10)},
		{"max.message.bytes", strconv.Itoa(max(1<<20, batchBytes, cfg.maxFrameBytes+recordOverhead))},
	} {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = setting[0], kmsg.StringPtr(setting[1])
		t.Configs = append(t.Configs, c)
	}
	req.Topics = append(req.Topics, t)
	doing := "create topic " + l.own
	answer, err := l.client.Request(ctx, req)
	if err != nil {
		return cfg.explain(doing, l.because(err))
	}
	for _, said := range answer.(*kmsg.CreateTopicsResponse).Topics {
		err := kerr.ErrorForCode(said.ErrorCode)
		switch {
		case err == nil:
			l.env.Logger.LogAttrs(ctx, slog.LevelInfo, "topic created", slog.String("topic", l.own), slog.Duration("retention", cfg.retention))
		case errors.Is(err, kerr.TopicAlreadyExists):
		case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
			return fmt.Errorf("kafka: topic %s is not there, and %s may not create it (%w): create it, with cleanup.policy=delete and retention.ms=%d, or allow Create on topics with the prefix %s-",
				l.own, cfg.who(), err, retention, cfg.prefix)
		default:
			why := ""
			if said.ErrorMessage != nil {
				why = " (" + strings.Join(strings.Fields(*said.ErrorMessage), " ") + ")"
			}
			return fmt.Errorf("kafka: create topic %s: %w%s: create it yourself, with cleanup.policy=delete and retention.ms=%d, or change Partitions and Replicas", l.own, err, why, retention)
		}
	}
	return nil
}

// fits makes sure that the own topic keeps and takes what is to be sent, if this user may read its settings.
func (l *link) fits(ctx context.Context) error {
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, l.own
	r.ConfigNames = []string{"cleanup.policy", "compression.type", "max.message.bytes"}
	req.Resources = append(req.Resources, r)
	answer, err := l.client.Request(ctx, req)
	if err != nil {
		// What keeps this from being answered keeps other questions too; or the broker does not know this one.
		l.env.Logger.LogAttrs(ctx, slog.LevelDebug, "the settings of the topic are not known", slog.String("topic", l.own), slog.Any("error", err))
		return nil
	}
	for _, said := range answer.(*kmsg.DescribeConfigsResponse).Resources {
		if said.ErrorCode != 0 {
			continue // no right to know, which is not needed
		}
		for _, c := range said.Configs {
			if c.Value == nil {
				continue
			}
			switch c.Name {
			case "cleanup.policy":
				if strings.Contains(*c.Value, "compact") {
					return fmt.Errorf("kafka: topic %s has cleanup.policy=%s, which forgets all but the last frame of an instance: set it to delete", l.own, *c.Value)
				}
			case "compression.type":
				if *c.Value != "uncompressed" && *c.Value != "producer" {
					return errCompressed(l.own)
				}
			case "max.message.bytes":
				if limit, err := strconv.Atoi(*c.Value); err == nil && limit < l.p.cfg.batchBytes() {
					return tooSmall(l.own, limit, l.p.cfg.batchBytes())
				}
			}
		}
	}
	return nil
}

// batchBytes is the size of the largest batch of records.
func (s *settings) batchBytes() int { return max(batchBytes, s.maxFrameBytes+recordOverhead) }

func errCompressed(topic string) error {
	return fmt.Errorf("kafka: what is written to topic %s is compressed by the brokers, which frames gain nothing by and instances do not take: set its compression.type to uncompressed", topic)
}

func tooSmall(topic string, limit, want int) error {
	has := "less"
	if limit > 0 {
		has = strconv.Itoa(limit)
	}
	return fmt.Errorf("kafka: topic %s takes batches of %s bytes (max.message.bytes), and wants to take %d: raise it with kafka-configs, on the topic or on all brokers", topic, has, want)
}
