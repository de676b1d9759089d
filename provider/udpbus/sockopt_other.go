//go:build !linux && !darwin && !freebsd && !windows

package udpbus

// share does nothing, so one instance per machine can use the port.
func share(uintptr) error { return nil }

// groupOnly does nothing: a socket hears the groups that it has joined.
func groupOnly(bool) func(uintptr) error { return func(uintptr) error { return nil } }

// growReadBuffer does not know what the system granted, and says what was asked.
func growReadBuffer(_ uintptr, asked int) (int, error) { return asked, nil }

// dontFragment does nothing: the default of MaxFrameBytes passes everywhere whole.
func dontFragment(uintptr, bool) error { return nil }
