package redisbus

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
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
	s := startServer(t, "--client-output-buffer-limit", "pubsub", "8mb", "8mb", "1")
	most := 0
	carillontest.FullSpeed{
		Provider: func(int) provider.Provider { return newTest(t, Config{URL: s.url()}) },
		Events:   each,
		Raising:  raising,
		Watch: func() {
			for _, m := range outputMemory.FindAllStringSubmatch(s.do("CLIENT", "LIST", "TYPE", "pubsub"), -1) {
				n, _ := strconv.Atoi(m[1])
				most = max(most, n)
			}
		},
	}.Run(t)
	t.Logf("at most %d KiB were seen waiting at the server for one instance", most>>10)
}
