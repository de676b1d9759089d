//go:build linux

// Package kafka carries events through a topic, a record each.
package kafka

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/carillon-go/carillon/bench/internal/opponent/kafka/kafkaserver"
	"github.com/carillon-go/carillon/bench/internal/opponent/module"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const topic = "events"

// Systems returns the one.
func Systems() []system.System {
	return []system.System{{
		Name:  "kafka",
		Title: "Kafka's protocol (franz-go " + module.Version("github.com/twmb/franz-go") + ", kfake)",
		Note: "one partition, read from its end without a group; acks=all and idempotence, as by default; no compression; " +
			kafkaserver.Settings,
		Serve: kafkaserver.Serve,
		Publish: func(ctx context.Context, _ system.Spec, address string) (system.Publisher, error) {
			return newPublisher(ctx, address)
		},
		Subscribe: subscribe,
	}}
}

// A publisher sends events. It implements system.Publisher and system.Reporter.
type publisher struct {
	client *kgo.Client
	mu     sync.Mutex // guards failed
	failed error
}

func newPublisher(ctx context.Context, address string) (*publisher, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0))
	if err != nil {
		return nil, err
	}
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		client.Close()
		return nil, fmt.Errorf("kafka: create the topic: %w", err)
	}
	return &publisher{client: client}, nil
}

// Address returns "": subscribers connect to the server.
func (p *publisher) Address() string { return "" }

// Ready returns at once: a subscriber knows the end of the partition when Subscribe returns.
func (p *publisher) Ready(context.Context) error { return nil }

// Publish hands the event to the client, which sends what it has while requests are under way.
func (p *publisher) Publish(event []byte) error {
	p.client.Produce(context.Background(), &kgo.Record{Value: append([]byte(nil), event...)}, func(_ *kgo.Record, err error) {
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.failed = err
		}
	})
	return nil
}

// Flush does nothing: the client waits for nothing.
func (p *publisher) Flush() error { return nil }

// Report says whether an event was not taken.
func (p *publisher) Report() (facts string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "", p.failed
}

// Close waits for what is under way and ends the connection.
func (p *publisher) Close() error {
	err := p.client.Flush(context.Background())
	p.client.Close()
	return err
}

// A subscriber receives events.
type subscriber struct {
	client *kgo.Client
	ended  chan struct{} // closed when the goroutine that reads has ended
}

// subscribe returns when it knows where the partition ends now.
func subscribe(ctx context.Context, _ system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		return nil, err
	}
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("kafka: end of the partition: %w", err)
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: ends.KOffsets()[topic]})
	s := &subscriber{client: client, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		for {
			fetches := client.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachRecord(func(r *kgo.Record) { deliver(r.Value) })
		}
	}()
	return s, nil
}

// Close ends the connection.
func (s *subscriber) Close() error {
	s.client.Close()
	<-s.ended
	return nil
}
