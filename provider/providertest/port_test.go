package providertest

import (
	"fmt"
	"net"
	"testing"
)

// A server comes and goes at a reserved port.
func TestNewAddress_IsForServersThatComeAndGo(t *testing.T) {
	address := NewAddress(t)
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("somebody answers where nobody listens")
	}
	for range 3 {
		server, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("the server cannot listen: %v", err)
		}
		client, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted.Close() // first, so that it is the server's end that the system remembers for a while
		client.Close()
		server.Close()
	}
}

func TestReservePort_RefusesOneThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	if got, release, err := ReservePort(port); err == nil {
		release()
		t.Errorf("ReservePort(%d), which is taken, returned %d", port, got)
	}
}

func TestReservePort_ReleaseEndsIt(t *testing.T) {
	port, release, err := ReservePort(0)
	if err != nil {
		t.Fatal(err)
	}
	release()
	release() // twice is fine
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
