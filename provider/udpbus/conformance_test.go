package udpbus

import (
	"testing"

	"github.com/carillon-go/carillon/provider/providertest"
)

func TestProvider_KeepsTheContract(t *testing.T) {
	for name, cfg := range map[string]Config{
		"multicast": {}, // on the interface of the route to the site database
		"broadcast": {Mode: Broadcast},
		"unicast":   {Interface: "127.0.0.1", Mode: Unicast},
		"large":     {Interface: "127.0.0.1", MaxFrameBytes: maxFrameBytes},
	} {
		t.Run(name, func(t *testing.T) { providertest.Run(t, harness(cfg)) })
	}
}

func BenchmarkProvider(b *testing.B) {
	for name, cfg := range map[string]Config{
		"multicast": {Interface: "127.0.0.1"},
		"unicast":   {Interface: "127.0.0.1", Mode: Unicast},
		"large":     {Interface: "127.0.0.1", MaxFrameBytes: maxFrameBytes},
	} {
		b.Run(name, func(b *testing.B) { providertest.RunBenchmarks(b, harness(cfg)) })
	}
}
