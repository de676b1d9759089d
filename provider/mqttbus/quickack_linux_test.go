package mqttbus

import (
	"net"
	"syscall"
	"testing"
)

// Without it a batch of several frames takes 40 ms at a mosquitto with its default settings.
func TestConn_AcknowledgesAtOnce(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	under, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := under.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	prompt := func() (value int) {
		raw.Control(func(fd uintptr) {
			value, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK)
		})
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 0) })
	if prompt() != 0 {
		t.Skip("the kernel does not delay acknowledgements on the loopback interface")
	}
	c := newConn(under, under, maxPacketBytes)
	defer c.Close()
	peer, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	peer.Write([]byte{0xd0, 0}) // an answer to a ping
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if prompt() == 0 {
		t.Error("the kernel may still delay acknowledgements after a read")
	}
}
