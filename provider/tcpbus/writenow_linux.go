package tcpbus

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// A nowWriter writes to a connection what the kernel takes without waiting. It is not safe
// for concurrent use.
type nowWriter struct {
	raw    syscall.RawConn
	slices [][]byte
	n      int
	err    error
	try    func(fd uintptr) bool // made once: a closure for each call would be allocated
}

// newNowWriter returns nil if c cannot be written to without waiting.
func newNowWriter(c net.Conn) *nowWriter {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	w := &nowWriter{raw: raw}
	w.try = func(fd uintptr) bool {
		w.n, w.err = unix.Writev(int(fd), w.slices)
		return true // whatever came of it: do not wait until fd is ready
	}
	return w
}

// write writes from the front of slices. To have written nothing is no error.
func (w *nowWriter) write(slices [][]byte) (written int64, err error) {
	w.slices = slices
	err = w.raw.Write(w.try)
	w.slices = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == unix.EAGAIN || w.err == unix.EINTR:
		return 0, nil
	}
	return int64(max(w.n, 0)), w.err
}
