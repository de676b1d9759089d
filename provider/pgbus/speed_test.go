package pgbus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site/memsite"
)

// Instances that raise as fast as they can miss nothing, and the server's queue stays short.
func TestBrokers_AtFullSpeedNothingIsMissed(t *testing.T) {
	for _, tt := range []struct {
		name          string
		maxFrameBytes int
	}{
		{"in payloads", 0},
		{"in the table", 32 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) { atFullSpeed(t, tt.maxFrameBytes) })
	}
}

func atFullSpeed(t *testing.T, maxFrameBytes int) {
	const (
		instances = 3
		each      = 10_000
		size      = 512
	)
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: fmt.Sprint("speed", maxFrameBytes), MaxFrameBytes: maxFrameBytes}
	db := memsite.New(nil)
	event := carillon.Define[[]byte](carillon.NewID(), "measured", carillon.WithCodec(carillon.Bytes()))
	var brokers []*carillon.Broker
	var raised [instances]atomic.Int64
	var missed atomic.Int64
	for i := range instances {
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "test", Server: fmt.Sprint("instance ", i), Database: db, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
			Providers: []provider.Provider{newTest(t, cfg)},
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
	for _, b := range brokers {
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
	most := 0.0
	for i := range instances {
		const expected = (instances - 1) * each
		if !eventually(func() bool {
			most = max(most, ask[float64](t, s, "SELECT pg_notification_queue_usage()"))
			return raised[i].Load() >= expected
		}) {
			t.Errorf("instance %d: %d of %d events were raised", i, raised[i].Load(), expected)
		}
	}
	running.Wait()
	t.Logf("at most %.0f KiB were seen waiting in the server's queue", most*8*(1<<20))
	if n := missed.Load(); n > 0 {
		t.Errorf("%d events were missed", n)
	}
	for i, b := range brokers {
		st := b.Stats()
		t.Logf("instance %d: %d failed calls of Send, %d frames repaired", i, st.Providers[0].Failures, st.Repair.Repaired)
	}
}
