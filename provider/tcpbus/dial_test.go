package tcpbus

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A peer that has stopped in good order is dialled until the member rows say so, and that is worth no line. One that
// has a row and cannot be reached is worth one each time.
func TestDial_LogsAPeerThatStaysUnreachableOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newTest(t, Config{})
		p.log, p.state, p.lim = slog.New(slog.NewTextHandler(&out, nil)), stateStarted, defaultLimits
		peer := &target{leadsTo: streamID(9), wake: make(chan struct{}, 1)}
		refused := errors.New("connection refused")
		fail := func(d time.Duration) { // for so long, every 100 ms
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				p.dialled(peer, refused)
			}
		}
		lines := func() int { return strings.Count(out.String(), "peer not reachable") }

		fail(defaultLimits.silence)
		if lines() != 0 {
			t.Errorf("within %v: %s", defaultLimits.silence, &out)
		}
		fail(time.Minute)
		if lines() != 1 {
			t.Errorf("after a minute, %d lines: %s", lines(), &out)
		}
		p.mu.Lock()
		peer.connectionEndedLocked(true) // there was one, and it lasted
		p.mu.Unlock()
		fail(defaultLimits.silence)
		if lines() != 1 {
			t.Errorf("when it has just gone again, %d lines", lines())
		}
		fail(time.Minute)
		if lines() != 2 {
			t.Errorf("when it stays away again, %d lines, want 2", lines())
		}
	})
}
