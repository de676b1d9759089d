package tcpbus

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// FuzzAccept lets a stranger say anything to a listening instance. It hears one answer of
// fixed length at the most, is hung up on, and is nobody's peer.
func FuzzAccept(f *testing.F) {
	h := goldenHello()
	f.Add(h.encode())
	h.site, h.key, h.expected = testSite, testKey, streamID(1)
	f.Add(h.encode())
	f.Add(append(h.encode(), make([]byte, proofLen)...))
	f.Add(append(h.encode(), make([]byte, 1000)...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{})
	in := start(f, Config{}, streamID(1), withLimits(func(l *limits) { l.unproven, l.unprovenPerAddress = 1024, 1024 }))
	in.knows()
	f.Fuzz(func(t *testing.T, said []byte) {
		nc, err := net.Dial("tcp", in.address())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		nc.Write(said) // it may have hung up on the first part
		nc.(*net.TCPConn).CloseWrite()
		heard, err := io.ReadAll(io.LimitReader(nc, 4096))
		if len(heard) != 0 && len(heard) != answerLen {
			t.Errorf("%x was answered with %x", said, heard)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after %x: %v, want the end of the connection", said, err)
		}
		if len(heard) > 0 {
			if _, err := parseAnswer(heard); err != nil {
				t.Errorf("the answer: %v", err)
			}
		}
		in.expectNobody(t)
	})
}
