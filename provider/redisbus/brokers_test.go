package redisbus

import (
	"testing"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
)

// The server is killed again and again while instances raise events. What the outages swallow is repaired once it
// is back, or told as missed.
func TestBrokers_LoseNothingInSilenceWhenTheServerIsKilled(t *testing.T) {
	s := startServer(t)
	carillontest.Outages{
		Provider: func(int) provider.Provider { return newTest(t, Config{URL: s.url()}) },
		Kill:     s.kill,
		Start:    s.start,
	}.Run(t)
}
