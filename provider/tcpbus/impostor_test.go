package tcpbus

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// An impostor listens where a member is said to be, and answers as it likes.
type impostor struct {
	t      testing.TB
	ln     net.Listener
	answer func(nc net.Conn, hello []byte)
}

func startImpostor(t testing.TB, answer func(nc net.Conn, hello []byte)) *impostor {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	im := &impostor{t: t, ln: ln, answer: answer}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(patience))
				hello := make([]byte, helloLen)
				if _, err := io.ReadFull(nc, hello); err == nil {
					answer(nc, hello)
				}
			}()
		}
	}()
	return im
}

// member is a row that leads to the impostor.
func (im *impostor) member(stream site.StreamID) site.Member {
	return site.Member{
		Site: testSite, Stream: stream, State: site.MemberOpen,
		Addresses: map[string][]string{"tcp": {im.ln.Addr().String()}},
	}
}

func TestDial_RefusesImpostors(t *testing.T) {
	valid := &answer{stream: streamID(2), nonce: count32(9)}
	for _, tt := range []struct {
		name   string
		answer func(nc net.Conn, hello []byte)
		want   Reason
	}{
		{"says nothing", func(nc net.Conn, hello []byte) { io.Copy(io.Discard, nc) }, ReasonTimeout},
		{"hangs up", func(nc net.Conn, hello []byte) {}, ReasonBroken},
		{"garbage", func(nc net.Conn, hello []byte) { nc.Write(bytes.Repeat([]byte("no"), answerLen)) }, ReasonMalformed},
		{"half an answer", func(nc net.Conn, hello []byte) { nc.Write(valid.encode()[:20]) }, ReasonMalformed},
		{"another version", func(nc net.Conn, hello []byte) {
			b := valid.encode()
			b[4]++
			nc.Write(b)
			io.Copy(io.Discard, nc)
		}, ReasonVersion},
		{"another stream", func(nc net.Conn, hello []byte) {
			nc.Write((&answer{stream: streamID(3)}).encode())
			io.Copy(io.Discard, nc)
		}, ReasonOtherStream},
		{"our own stream", func(nc net.Conn, hello []byte) {
			nc.Write((&answer{stream: streamID(1)}).encode())
			io.Copy(io.Discard, nc)
		}, ReasonOwnStream},
		{"our proof sent back", func(nc net.Conn, hello []byte) {
			nc.Write(valid.encode())
			proof := make([]byte, proofLen)
			io.ReadFull(nc, proof)
			nc.Write(proof)
			io.Copy(io.Discard, nc)
		}, ReasonProof},
		{"proof without our proof", func(nc net.Conn, hello []byte) {
			nc.Write(valid.encode())
			io.ReadFull(nc, make([]byte, proofLen))
			proof, _ := testKeys().Prove(testSite, testKey, handshakeName, provider.Acceptor, transcript(hello, valid.encode(), nil))
			nc.Write(proof[:])
			io.Copy(io.Discard, nc)
		}, ReasonProof},
		{"wrong secret", func(nc net.Conn, hello []byte) {
			nc.Write(valid.encode())
			proof := make([]byte, proofLen)
			io.ReadFull(nc, proof)
			mine, _ := wrongKeys().Prove(testSite, testKey, handshakeName, provider.Acceptor, append(transcript(hello, valid.encode(), nil), proof...))
			nc.Write(mine[:])
			io.Copy(io.Discard, nc)
		}, ReasonProof},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			im := startImpostor(t, tt.answer)
			in := start(t, Config{HandshakeTimeout: 500 * time.Millisecond}, streamID(1))
			in.SetMembers(provider.Members{Self: in.stream, Others: []site.Member{im.member(streamID(2))}})
			in.awaitRefused(t, tt.want, 1)
			if pe, ok := in.peer(streamID(2)); !ok || pe.Connected || pe.Connections != 0 {
				t.Errorf("peer: %+v, %v", pe, ok)
			}
		})
	}
}

// A proof goes only to who says that it is the one expected.
func TestDial_ProvesNothingToAnotherStream(t *testing.T) {
	got := make(chan int, 100)
	im := startImpostor(t, func(nc net.Conn, hello []byte) {
		nc.Write((&answer{stream: streamID(3)}).encode())
		n, _ := io.Copy(io.Discard, nc)
		got <- int(n)
	})
	in := start(t, Config{}, streamID(1))
	in.SetMembers(provider.Members{Self: in.stream, Others: []site.Member{im.member(streamID(2))}})
	select {
	case n := <-got:
		if n != 0 {
			t.Errorf("%d bytes after the answer", n)
		}
	case <-time.After(patience):
		t.Fatal("nobody dialled")
	}
}
