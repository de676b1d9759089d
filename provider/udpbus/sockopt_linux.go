package udpbus

import "golang.org/x/sys/unix"

// share lets several instances bind the port, whoever runs them. SO_REUSEADDR
// is enough on Linux: each socket gets its copy of what is sent to many. With
// SO_REUSEPORT all would have to belong to one user.
func share(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
}

// groupOnly keeps out groups that other sockets of this machine have joined on the same
// port, and what comes in on other interfaces.
func groupOnly(v6 bool) func(fd uintptr) error {
	return func(fd uintptr) error {
		if v6 {
			return unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0)
		}
		return unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0)
	}
}

// growReadBuffer tries to exceed the system's limit, which the administrator may, and
// returns how large the receive buffer is.
func growReadBuffer(fd uintptr, asked int) (granted int, err error) {
	size := func() (int, error) {
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		return n / 2, err // the kernel doubles what it is asked for, to have room for its own data
	}
	if granted, err = size(); err != nil || granted >= asked {
		return granted, err
	}
	unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, asked) // fails without CAP_NET_ADMIN
	return size()
}

// dontFragment sets DF. What does not pass the interface fails with EMSGSIZE; what an ICMP message
// says about the way beyond, which anybody can forge, is not listened to.
func dontFragment(fd uintptr, v6 bool) error {
	if v6 {
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE); err != nil {
			return err
		}
		// Such a socket sends over IPv4 as well.
	}
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
}
