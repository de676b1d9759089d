package udpbus

import "golang.org/x/sys/windows"

// From ws2ipdef.h.
const (
	ipDontFragment = 14 // IP_DONTFRAGMENT
	ipv6DontFrag   = 14 // IPV6_DONTFRAG
)

// share lets several instances bind the port.
func share(fd uintptr) error {
	return windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1)
}

// groupOnly does nothing: a socket hears the groups that it has joined.
func groupOnly(bool) func(uintptr) error { return func(uintptr) error { return nil } }

// growReadBuffer returns how large the receive buffer is.
func growReadBuffer(fd uintptr, _ int) (granted int, err error) {
	return windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_RCVBUF)
}

// dontFragment sets DF. A socket for both families keeps the default for IPv4.
func dontFragment(fd uintptr, v6 bool) error {
	if v6 {
		return windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IPV6, ipv6DontFrag, 1)
	}
	return windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IP, ipDontFragment, 1)
}
