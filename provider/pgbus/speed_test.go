package pgbus

import (
	"fmt"
	"testing"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
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
	s := startServer(t)
	cfg := Config{URL: s.url("postgres"), Prefix: fmt.Sprint("speed", maxFrameBytes), MaxFrameBytes: maxFrameBytes}
	most := 0.0
	carillontest.FullSpeed{
		Provider: func(int) provider.Provider { return newTest(t, cfg) },
		Events:   10_000,
		Watch:    func() { most = max(most, ask[float64](t, s, "SELECT pg_notification_queue_usage()")) },
	}.Run(t)
	t.Logf("at most %.0f KiB were seen waiting in the server's queue", most*8*(1<<20))
}
