//go:build linux

package own

import (
	"context"
	"time"

	"github.com/carillon-go/carillon/bench/internal/harness"
)

// settle is how long instances that have just started may be busy with that.
const settle = 2 * time.Second

// MeasureIdle returns what each of several instances costs that have so many peers, over TCP, while nobody raises
// anything.
func MeasureIdle(ctx context.Context, program string, peers int, d time.Duration) ([]harness.Idle, error) {
	s, err := harness.Start(ctx, Find("tcpbus"), peers, harness.SmallestSize, harness.Options{Program: program})
	if err != nil {
		return nil, err
	}
	defer s.Abandon()
	if _, err := s.Rest(ctx, settle); err != nil {
		return nil, err
	}
	return s.Rest(ctx, d)
}
