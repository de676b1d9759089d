package tcpbus

import (
	"net"
	"syscall"
	"testing"
	"time"
)

func sockopt(t *testing.T, c *net.TCPConn, level, opt int) int {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	if e := rc.Control(func(fd uintptr) { v, err = syscall.GetsockoptInt(int(fd), level, opt) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return v
}

// At both ends the kernel gives a silent peer up after PeerTimeout.
func TestSockopt_DeadPeersAreNoticed(t *testing.T) {
	a, b := start(t, Config{PeerTimeout: 15 * time.Second}, streamID(1)), start(t, Config{PeerTimeout: 15 * time.Second}, streamID(2))
	introduce(a, b)
	awaitConnected(t, a, b)
	for name, c := range map[string]*net.TCPConn{"one end": a.conn(b).raw, "the other end": b.conn(a).raw} {
		for what, tt := range map[string]struct{ level, opt, want int }{
			"TCP_USER_TIMEOUT": {syscall.IPPROTO_TCP, tcpUserTimeout, 15000},
			"SO_KEEPALIVE":     {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			"TCP_KEEPIDLE":     {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 6},
			"TCP_KEEPINTVL":    {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 3},
			"TCP_KEEPCNT":      {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
			"TCP_NODELAY":      {syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		} {
			if got := sockopt(t, c, tt.level, tt.opt); got != tt.want {
				t.Errorf("%s: %s = %d, want %d", name, what, got, tt.want)
			}
		}
	}
}
