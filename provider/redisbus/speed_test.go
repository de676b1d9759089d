package redisbus

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site/memsite"
)

var outputMemory = regexp.MustCompile(`omem=(\d+)`)

// Instances that raise as fast as they can miss nothing, though the server cuts off at once who is behind by 8 MB, which it
// otherwise bears for a minute. Pacing keeps them below, but for one that gets no processor time for so long that nobody waits for it any
// more; that is repaired.
func TestBrokers_AtFullSpeedNothingIsMissed(t *testing.T) {
	for _, tt := range []struct {
		name    string
		raising int // instances
		each    int // events
	}{
		{"all raise", 3, 60_000},
		{"one raises, and hears its own echo", 1, 180_000},
	} {
		t.Run(tt.name, func(t *testing.T) { atFullSpeed(t, tt.raising, tt.each) })
	}
}

func atFullSpeed(t *testing.T, raising, each int) {
	const (
		instances = 3
		size      = 512
	)
	s := startServer(t, "--client-output-buffer-limit", "pubsub", "8mb", "8mb", "1")
	db := memsite.New(nil)
	id := carillon.NewID()
	event := carillon.Define[[]byte](id, "measured", carillon.WithCodec(carillon.Bytes()))
	var brokers []*carillon.Broker
	var raised [instances]atomic.Int64
	var missed atomic.Int64
	for i := range instances {
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "test", Server: fmt.Sprint("instance ", i), Database: db, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
			Providers: []provider.Provider{newTest(t, Config{URL: s.url()})},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		event.OnRaised(b, func(_ context.Context, r carillon.Raised[[]byte]) {
			if !r.Local {
				raised[i].Add(1)
			}
		})
		event.OnMissed(b, func(_ context.Context, m carillon.Missed) {
			t.Logf("instance %d missed %+v", i, m)
			missed.Add(int64(m.Count))
		})
		b.Enable()
		brokers = append(brokers, b)
	}
	var running sync.WaitGroup
	for _, b := range brokers[:raising] {
		running.Go(func() {
			data := make([]byte, size)
			for range each {
				if err := event.Raise(t.Context(), b, carillon.ID{}, data); err != nil {
					t.Errorf("raise: %v", err)
					return
				}
			}
		})
	}
	most := 0
	for i := range instances {
		expected := int64(raising * each)
		if i < raising {
			expected -= int64(each) // its own
		}
		if !eventually(func() bool {
			for _, m := range outputMemory.FindAllStringSubmatch(s.do("CLIENT", "LIST", "TYPE", "pubsub"), -1) {
				n, _ := strconv.Atoi(m[1])
				most = max(most, n)
			}
			return raised[i].Load() >= expected
		}) {
			t.Errorf("instance %d: %d of %d events were raised", i, raised[i].Load(), expected)
		}
	}
	running.Wait()
	t.Logf("at most %d KiB were seen waiting at the server for one instance", most>>10)
	if n := missed.Load(); n > 0 {
		t.Errorf("%d events were missed", n)
	}
	for i, b := range brokers {
		st := b.Stats()
		t.Logf("instance %d: %d failed calls of Send, %d frames repaired", i, st.Providers[0].Failures, st.Repair.Repaired)
	}
}
