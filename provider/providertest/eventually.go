package providertest

import "time"

// Eventually polls cond until it is true, for patience at most, and returns what it said last. It is for what another process or
// goroutine does in its own time; one that fails the test is carillontest.Eventually.
func Eventually(patience time.Duration, cond func() bool) bool {
	end := time.NewTimer(patience)
	defer end.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	for pause := time.Millisecond; !cond(); pause = min(2*pause, 20*time.Millisecond) {
		again.Reset(pause)
		select {
		case <-again.C:
		case <-end.C:
			return cond()
		}
	}
	return true
}
