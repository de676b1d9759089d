//go:build linux

// Package machine asks the operating system: what time it is, and what processes have used.
package machine

import (
	"time"

	"golang.org/x/sys/unix"
)

// A Clock tells the machine's monotonic time, which is the same in all its processes. Package time reads
// that clock without a system call, and counts from a start of its own; the Clock knows the difference.
type Clock struct {
	base   time.Time
	offset int64
}

// NewClock returns a Clock that is right to a microsecond.
func NewClock() Clock {
	var best Clock
	shortest := time.Duration(1 << 62)
	for range 16 { // the reading that was interrupted least
		var ts unix.Timespec
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic(err) // there is no Linux without it
		}
		if took := time.Since(before); took < shortest {
			shortest, best = took, Clock{before, ts.Nano() - int64(took/2)}
		}
	}
	return best
}

// Now returns the time in nanoseconds.
func (c Clock) Now() int64 { return c.offset + int64(time.Since(c.base)) }

// SleepUntil returns at the time given, or as soon after it as the kernel lets this thread run. Timers of Go
// may be a millisecond late; the kernel's are not.
func SleepUntil(at int64) {
	ts := unix.NsecToTimespec(at)
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
	}
}

// Punctual has the kernel wake the calling thread without the usual slack of 50 µs. The caller has locked the goroutine
// to its thread.
func Punctual() error { return unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }
