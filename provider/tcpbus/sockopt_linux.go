package tcpbus

import (
	"os"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall lacks.
const tcpUserTimeout = 0x12

// setUserTimeout makes the kernel give up a connection on which nothing that was written
// is acknowledged for d, which would take it a quarter of an hour
// by itself. A keepalive probe alone does not notice: none is sent while data waits.
func setUserTimeout(c syscall.RawConn, d time.Duration) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(max(d.Milliseconds(), 1)))
	}); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", err)
}
