package providertest

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
)

// lentFrom makes the system choose among one port only, as it may when it chooses among many.
func lentFrom(port int) func(string, string, syscall.RawConn) error {
	const ipLocalPortRange = 51 // since Linux 6.3
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipLocalPortRange, port<<16|port)
		}); e != nil {
			return e
		}
		return err
	}
}

// The system lends a reserved port neither to those who listen at port 0 nor to those who connect, before, while and after a
// server listens there.
func TestReservePort_LendsItToNobodyElse(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port, release, err := ReservePort(0)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, again, err := ReservePort(port); err == nil {
		again()
		t.Error("what is reserved can be reserved once more")
	}
	listen := func() (net.Listener, error) {
		lc := net.ListenConfig{Control: lentFrom(port)}
		return lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	}
	dial := func() (net.Conn, error) {
		d := net.Dialer{Control: lentFrom(port)}
		return d.DialContext(t.Context(), "tcp", other.Addr().String())
	}
	nobody := func(when string) {
		t.Helper()
		l, err := listen()
		if errors.Is(err, syscall.ENOPROTOOPT) {
			t.Skip("Linux 6.3 or later is needed to try it out")
		}
		if err == nil {
			l.Close()
			t.Errorf("%s, somebody who listens at port 0 gets it", when)
		} else if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s, listen at port 0: %v; want EADDRINUSE", when, err)
		}
		if c, err := dial(); err == nil {
			c.Close()
			t.Errorf("%s, somebody who connects gets it", when)
		} else if !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("%s, connect: %v; want EADDRNOTAVAIL", when, err)
		}
	}
	nobody("before the server has listened")
	for range 2 {
		server, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		nobody("while the server listens")
		server.Close()
		nobody("after the server has listened")
	}
	release()
	c, err := dial()
	if err != nil {
		t.Fatalf("after it was released, connect: %v", err)
	}
	c.Close()
}
