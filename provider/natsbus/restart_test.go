package natsbus

import (
	"testing"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
)

func TestProvider_LosesNothingSilentlyWhenItsServerIsKilled(t *testing.T) {
	s := startServer(t, "")
	carillontest.Outages{
		Provider: func(int) provider.Provider { return newProvider(t, Config{URLs: []string{s.url()}}) },
		Kill:     s.kill,
		Start:    s.start,
	}.Run(t)
}
