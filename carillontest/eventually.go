package carillontest

import (
	"testing"
	"time"
)

// Eventually waits until ok returns true, and fails the test when that takes
// longer than 30 s. It is for what the application does when it is told of an event: its
// functions run beside those of a [Recorder]. Inside a testing/synctest bubble,
// synctest.Wait is often enough.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-limit.C:
			t.Fatalf("after %v: still waiting for this: %s", patience, what)
		}
	}
}
