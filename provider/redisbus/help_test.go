package redisbus

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider/providertest"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// newTest makes a Provider that the test closes.
func newTest(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}

// eventually polls cond until it is true, and returns false when that takes longer than patience.
func eventually(cond func() bool) bool { return providertest.Eventually(patience, cond) }
