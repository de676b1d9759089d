package providertest

import (
	"errors"
	"os"
	"sync"
	"syscall"
)

// reservePort binds a socket that never listens. Another that has SO_REUSEADDR as well may be bound there and listen; but the
// system chooses no port that a socket is bound to.
func reservePort(port int) (reserved int, release func(), err error) {
	// No child inherits it, which would hold it for as long as it lives.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, os.NewSyscallError("socket", err)
	}
	end := sync.OnceFunc(func() { syscall.Close(fd) })
	defer func() {
		if err != nil {
			end()
		}
	}()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		return 0, nil, os.NewSyscallError("bind", err)
	}
	// Not before: else somebody's reservation, which has it too, would not be in the way.
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, nil, os.NewSyscallError("setsockopt", err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, nil, os.NewSyscallError("getsockname", err)
	}
	v4, ok := at.(*syscall.SockaddrInet4)
	if !ok {
		return 0, nil, errors.New("the socket has an address of another kind")
	}
	return v4.Port, end, nil
}
