//go:build darwin || freebsd

package udpbus

import "golang.org/x/sys/unix"

// share lets several instances bind the port. The BSDs ask for both options
// where Linux is content with one.
func share(fd uintptr) error {
	if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// groupOnly does nothing: a socket hears the groups that it has joined.
func groupOnly(bool) func(uintptr) error { return func(uintptr) error { return nil } }

// growReadBuffer returns how large the receive buffer is.
func growReadBuffer(fd uintptr, _ int) (granted int, err error) {
	return unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
}

// dontFragment sets DF. A socket for both families keeps the default for IPv4.
func dontFragment(fd uintptr, v6 bool) error {
	if v6 {
		return unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
	}
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_DONTFRAG, 1)
}
