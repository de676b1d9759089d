package udpbus

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestLeaveOutOwn_TheKernelKeepsWhatOthersSend(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1"} {
		t.Run(address, func(t *testing.T) {
			socket := func(address string) *net.UDPConn {
				c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 0)))
				if err != nil {
					t.Skipf("no socket at %s: %v", address, err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			at := func(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
			in, own, other := socket(address), socket(address), socket(address)
			if err := leaveOutOwn(in, at(own)); err != nil {
				t.Fatal(err)
			}
			send := func(c *net.UDPConn, text string) {
				if _, err := c.WriteToUDPAddrPort([]byte(text), at(in)); err != nil {
					t.Fatal(err)
				}
			}
			send(own, "our own")
			send(other, "another's")
			if address == "127.0.0.1" { // the same port at another address is somebody else's
				elsewhere, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), at(own).Port())))
				if err != nil {
					t.Fatal(err)
				}
				defer elsewhere.Close()
				send(elsewhere, "same port")
			}
			send(own, "our own again")
			send(other, "the last")
			in.SetReadDeadline(time.Now().Add(time.Minute))
			var heard []string
			for b := make([]byte, 100); len(heard) == 0 || heard[len(heard)-1] != "the last"; {
				n, err := in.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				heard = append(heard, string(b[:n]))
			}
			want := 2
			if address == "127.0.0.1" {
				want = 3
			}
			if len(heard) != want || heard[0] != "another's" {
				t.Errorf("heard %q; want all but our own", heard)
			}
		})
	}
}
