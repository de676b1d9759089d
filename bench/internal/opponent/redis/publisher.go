//go:build linux

package redis

import (
	"context"

	"github.com/redis/rueidis"
)

const pipeline = 1024 // commands at most; with fewer, more round trips are waited for

// A batch is what goes to the server in one pipeline.
type batch struct {
	bytes []byte // of the events, one after the other
	ends  []int  // where each of them ends
}

// A publisher fills a batch while its goroutine sends the one before. It implements system.Publisher.
type publisher struct {
	client rueidis.Client
	fill   *batch
	full   chan *batch
	free   chan *batch
	ended  chan struct{} // closed when the goroutine has ended
	err    error         // why it ended early; read it after ended
}

func newPublisher(address string) (*publisher, error) {
	client, err := connect(address)
	if err != nil {
		return nil, err
	}
	p := &publisher{
		client: client, fill: new(batch),
		full: make(chan *batch), free: make(chan *batch, 2), ended: make(chan struct{}),
	}
	p.free <- new(batch)
	go func() {
		defer close(p.ended)
		p.err = p.send()
	}()
	return p, nil
}

// Address returns "": subscribers connect to the server.
func (p *publisher) Address() string { return "" }

// Ready returns at once: a subscriber waits for the server's word that it is subscribed.
func (p *publisher) Ready(context.Context) error { return nil }

// Publish adds an event to the pipeline, which goes when it is full.
func (p *publisher) Publish(event []byte) error {
	p.fill.bytes = append(p.fill.bytes, event...)
	p.fill.ends = append(p.fill.ends, len(p.fill.bytes))
	if len(p.fill.ends) < pipeline {
		return nil
	}
	return p.Flush()
}

// Flush hands over what was added.
func (p *publisher) Flush() error {
	if len(p.fill.ends) == 0 {
		return nil
	}
	select {
	case p.full <- p.fill:
	case <-p.ended:
		return p.err
	}
	select {
	case p.fill = <-p.free:
		return nil
	case <-p.ended:
		return p.err
	}
}

// send sends full batches until there will be no more.
func (p *publisher) send() error {
	commands := make([]rueidis.Completed, 0, pipeline)
	for b := range p.full {
		commands = commands[:0]
		start := 0
		for _, end := range b.ends {
			event := rueidis.BinaryString(b.bytes[start:end])
			commands = append(commands, p.client.B().Publish().Channel(channel).Message(event).Build())
			start = end
		}
		for _, result := range p.client.DoMulti(context.Background(), commands...) {
			if err := result.Error(); err != nil {
				return err
			}
		}
		b.bytes, b.ends = b.bytes[:0], b.ends[:0]
		p.free <- b
	}
	return nil
}

// Close sends what waits and ends the connection.
func (p *publisher) Close() error {
	err := p.Flush()
	close(p.full)
	<-p.ended
	p.client.Close()
	if err == nil {
		err = p.err
	}
	return err
}
