// Package opponenttest runs a system for tests: publisher and subscribers in one process, a few thousand
// events, each of which has to arrive exactly once everywhere.
package opponenttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/bench/internal/system"
)

const (
	subscribers = 2
	events      = 5000
	eventBytes  = 128
	timeout     = 2 * time.Minute
)

// Run runs s. What the system lacks on this machine skips the test, unless CARILLON_NO_SKIP is set; then it fails.
func Run(t *testing.T, s system.System) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	spec := system.Spec{Dir: folder(t), Subscribers: subscribers, Size: eventBytes}

	var address string
	if s.Serve != nil {
		server, err := s.Serve(ctx, spec)
		check(t, err)
		t.Cleanup(func() {
			if err := server.Stop(); err != nil {
				t.Errorf("stop the server: %v", err)
			}
		})
		if len(server.PIDs) == 0 {
			t.Error("the server names no process")
		}
		address = server.Address
	}
	publisher, err := s.Publish(ctx, spec, address)
	check(t, err)
	t.Cleanup(func() { closes(t, publisher) })
	if s.Serve == nil {
		address = publisher.Address()
	}
	counts := newCounts()
	for n := range subscribers {
		c, err := s.Subscribe(ctx, spec, address, func(event []byte) { counts.add(t, n, event) })
		check(t, err)
		t.Cleanup(func() { closes(t, c) })
	}
	if err := publisher.Ready(ctx); err != nil {
		t.Fatal(err)
	}

	event := make([]byte, eventBytes)
	for number := range events {
		if s.Window > 0 && number >= s.Window {
			if err := counts.wait(ctx, number-s.Window+1, publisher.Flush); err != nil {
				t.Fatalf("event %d of %d within the window of %d: %v", number, events, s.Window, err)
			}
		}
		fill(event, number)
		if err := publisher.Publish(event); err != nil {
			t.Fatalf("event %d: %v", number, err)
		}
	}
	if err := publisher.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := counts.wait(ctx, events, nil); err != nil {
		t.Fatalf("%v of %d events: %v", counts.totals(), events, err)
	}
}

// folder returns one that other users may pass through, as those of testing do not.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "carillon-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, system.ErrMissing) && os.Getenv("CARILLON_NO_SKIP") != "1":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

func closes(t *testing.T, c interface{ Close() error }) {
	if err := c.Close(); err != nil {
		t.Errorf("close %T: %v", c, err)
	}
}

// fill makes the event of this number. Its bytes take all values, so that a system that carries text only
// has to encode them.
func fill(event []byte, number int) {
	for i := range event {
		event[i] = byte(number + i)
	}
	binary.BigEndian.PutUint64(event, uint64(number))
}

// counts are what the subscribers received.
type counts struct {
	mu    sync.Mutex
	more  chan struct{} // has room for one; filled with each event
	seen  [subscribers][events]bool
	total [subscribers]int
}

func newCounts() *counts { return &counts{more: make(chan struct{}, 1)} }

func (c *counts) add(t *testing.T, subscriber int, event []byte) {
	want := make([]byte, eventBytes)
	number := -1
	if len(event) == eventBytes {
		number = int(binary.BigEndian.Uint64(event))
	}
	if number < 0 || number >= events {
		t.Errorf("subscriber %d received %d bytes: %x", subscriber, len(event), event)
		return
	}
	if fill(want, number); !bytes.Equal(event, want) {
		t.Errorf("subscriber %d received event %d changed: %x", subscriber, number, event)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[subscriber][number] {
		t.Errorf("subscriber %d received event %d twice", subscriber, number)
	}
	c.seen[subscriber][number] = true
	c.total[subscriber]++
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *counts) totals() [subscribers]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// wait returns when each subscriber has n events. Before it waits it calls flush, if that is not nil.
func (c *counts) wait(ctx context.Context, n int, flush func() error) error {
	for {
		lowest := events
		for _, total := range c.totals() {
			lowest = min(lowest, total)
		}
		if lowest >= n {
			return nil
		}
		if flush != nil {
			if err := flush(); err != nil {
				return err
			}
			flush = nil
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
