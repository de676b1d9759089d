package providertest

import (
	"runtime"
	"strings"
	"time"
)

// goroutines returns the stack traces of all goroutines by their number.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		number, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		all[number] = stack
	}
	return all
}

// leaked returns the goroutines that run now, did not run before, and do not end within
// patience. A goroutine that has told its waiter that it is done still needs a moment to go.
func leaked(before map[string]string, ignore func(stack string) bool, patience time.Duration) []string {
	var left []string
	Eventually(patience, func() bool {
		left = left[:0]
		for number, stack := range goroutines() {
			_, old := before[number]
			// The timeout of go test and tb.Context start goroutines of their own.
			if !old && !strings.Contains(stack, "testing.(*T).Run") && !strings.Contains(stack, "testing.(*M).") && !ofRelay(stack) && !ignore(stack) {
				left = append(left, stack)
			}
		}
		return len(left) == 0
	})
	return left
}
