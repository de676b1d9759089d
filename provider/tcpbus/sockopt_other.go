//go:build !linux

package tcpbus

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing here: keepalive probes notice a dead peer on an
// idle connection, and the deadline of a write one on a busy connection.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
