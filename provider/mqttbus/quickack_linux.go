package mqttbus

import (
	"net"
	"syscall"
)

// acknowledger returns a function that has the kernel acknowledge at once what was read from c. Mosquitto, unless it is told otherwise, sends a small
// packet only when the one before it was acknowledged (Nagle's algorithm), which Linux delays by 40 ms: that would be the time
// for each batch of several frames.
func acknowledger(c net.Conn) func() {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return func() {}
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return func() {}
	}
	now := func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) }
	return func() { raw.Control(now) }
}
