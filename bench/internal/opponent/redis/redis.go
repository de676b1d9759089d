//go:build linux

// Package redis carries events through Redis pub/sub, pipelined by rueidis.
package redis

import (
	"context"
	"fmt"
	"io"
	"unsafe"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/bench/internal/opponent/redis/redisserver"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const channel = "events"

// Systems returns the one.
func Systems() []system.System {
	return []system.System{{
		Name:  "redis",
		Title: "Redis pub/sub, pipelined (rueidis " + rueidis.LibVer + ")",
		Note: fmt.Sprintf("client-output-buffer-limit pubsub 0 0 0, so that the server cuts no slow subscriber off; nothing "+
			"saved to disk; up to %d PUBLISH commands in a pipeline, two pipelines at a time; at most once", pipeline),
		Serve: redisserver.Serve,
		Publish: func(_ context.Context, _ system.Spec, address string) (system.Publisher, error) {
			return newPublisher(address)
		},
		Subscribe: subscribe,
	}}
}

// connect returns a client with one connection, so that what it is given keeps its order.
func connect(address string) (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{
		InitAddress:       []string{address},
		ForceSingleClient: true,
		DisableCache:      true,
		DisableRetry:      true,
		PipelineMultiplex: -1,
	})
}

// A subscription is what Subscribe opens.
type subscription struct {
	client  rueidis.Client
	release func()
}

// subscribe returns when the server has confirmed the subscription.
func subscribe(ctx context.Context, _ system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
	client, err := connect(address)
	if err != nil {
		return nil, err
	}
	dedicated, release := client.Dedicate()
	s := &subscription{client, release}
	confirmed := make(chan struct{}, 1)
	broken := dedicated.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage:      func(m rueidis.PubSubMessage) { deliver(bytesOf(m.Message)) },
		OnSubscription: func(rueidis.PubSubSubscription) { confirmed <- struct{}{} },
	})
	if err := dedicated.Do(ctx, dedicated.B().Subscribe().Channel(channel).Build()).Error(); err != nil {
		s.Close()
		return nil, err
	}
	select {
	case <-confirmed:
		return s, nil
	case err = <-broken:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Close()
	return nil, fmt.Errorf("redis: subscribe: %w", err)
}

// Close ends the connection.
func (s *subscription) Close() error {
	s.release()
	s.client.Close()
	return nil
}

// bytesOf returns the bytes of a message without a copy. They are only to be read.
func bytesOf(message string) []byte { return unsafe.Slice(unsafe.StringData(message), len(message)) }
