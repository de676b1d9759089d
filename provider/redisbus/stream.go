package redisbus

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/site"
)

const (
	frameField = "f" // of an entry: the message with the frame

	readEntries  = 256         // at most at once
	readPatience = time.Second // after which new sites are looked for
	streamLives  = time.Hour   // after the last frame, so that a site that is given up leaves nothing
)

// places is how far this instance has come in each stream, by its key. It outlives links.
type places struct {
	mu   sync.Mutex
	last map[string]string // ID of the last entry that was delivered, or was there before us
}

// all returns the keys, and after them the IDs, as XREAD wants them.
func (s *places) all() (keys, ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, id := range s.last {
		keys, ids = append(keys, key), append(ids, id)
	}
	return keys, ids
}

// passed says that the entry with this ID was delivered.
func (s *places) passed(key, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[key] = id
}

// knows reports whether there is a place in this stream.
func (s *places) knows(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.last[key]
	return ok
}

// begin makes id the place in a stream that had none.
func (s *places) begin(key, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = make(map[string]string)
	}
	s.last[key] = id
}

// remember is how long what a connection sent may come back after it was replaced.
func (p *Provider) remember() time.Duration {
	if p.cfg.Keep > 0 {
		return rememberStream
	}
	return remember
}

// find makes sure that there is a place in the stream of each of these sites: its end, unless this instance has been there before.
// What is added from then on is read, whenever the reading begins.
func (p *Provider) find(l *link, sites []site.ID) error {
	for _, s := range sites {
		key := p.toAll(s)
		if p.places.knows(key) {
			continue
		}
		entries, err := l.client.Do(l.ctx, l.client.B().Xrevrange().Key(key).End("+").Start("-").Count(1).Build()).AsXRange()
		if err != nil {
			return explain(subscribing, l.server, p.cfg.Prefix, err)
		}
		last := "0-0"
		if len(entries) > 0 {
			last = entries[0].ID
		}
		p.places.begin(key, last)
	}
	return nil
}

// read begins to deliver what is added to the streams, over a connection of its own, until l ends. The first look says whether it may.
func (p *Provider) read(l *link) error {
	reader, release := l.client.Dedicate()
	if err := p.readOnce(l, reader, time.Millisecond); err != nil {
		release()
		return explain(subscribing, l.server, p.cfg.Prefix, err)
	}
	l.reading = make(chan error, 1)
	l.readers.Go(func() {
		defer release()
		for {
			err := p.readOnce(l, reader, readPatience)
			if l.ctx.Err() != nil {
				return
			}
			if err != nil {
				l.reading <- err
				return
			}
		}
	})
	return nil
}

// readOnce waits for entries, for so long, and delivers them.
func (p *Provider) readOnce(l *link, reader rueidis.DedicatedClient, patience time.Duration) error {
	keys, ids := p.places.all()
	cmd := reader.B().Xread().Count(readEntries).Block(patience.Milliseconds()).Streams().Key(keys...).Id(ids...).Build()
	streams, err := reader.Do(l.ctx, cmd).AsXRead()
	if err != nil {
		if rueidis.IsRedisNil(err) {
			return nil // nothing came
		}
		return err
	}
	for key, entries := range streams {
		for _, e := range entries {
			p.arrived(l, e.FieldValues[frameField])
			p.places.passed(key, e.ID)
		}
	}
	return nil
}

// add puts frames into the stream of our site.
func (p *Provider) add(ctx context.Context, l *link, frames [][]byte) error {
	b := p.batches.Get().(*batch)
	key := p.toAll(l.env.Site)
	b.fill(l, frames, func(message string) rueidis.Completed { return p.addition(l, key, message) })
	b.commands = append(b.commands, l.client.B().Expire().Key(key).Seconds(int64(streamLives/time.Second)).Build())
	var err error
	for _, r := range l.client.DoMulti(ctx, b.commands...) {
		if e := r.Error(); e != nil && err == nil {
			err = e
		}
	}
	if err != nil { // then the library may still write what b holds
		return explain(publishing, l.server, p.cfg.Prefix, err)
	}
	p.putBack(b)
	return nil
}

// addition is the command that adds a message to a stream.
func (p *Provider) addition(l *link, key, message string) rueidis.Completed {
	return l.client.B().Xadd().Key(key).Maxlen().Almost().Threshold(strconv.Itoa(p.cfg.Keep)).Id("*").FieldValue().FieldValue(frameField, message).Build()
}

// probe is the command that tries out the right to send to all, with a message that holds no frame.
func (p *Provider) probe(l *link) rueidis.Completed {
	key, message := p.toAll(l.env.Site), string(l.prefix[:])
	if p.cfg.Keep > 0 {
		return p.addition(l, key, message)
	}
	return l.client.B().Publish().Channel(key).Message(message).Build()
}
