package tcpbus

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// tlsConfig returns a configuration with a new certificate for 127.0.0.1, which it
// trusts.
func tlsConfig(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tcpbus"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      roots,
		ServerName:   "127.0.0.1",
	}
}

// mutual returns c, asking the end that dials for a certificate as well.
func mutual(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, c.RootCAs
	c.ServerName = "" // the host dialled
	return c
}

func TestTLS_CarriesFramesBothWays(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  *tls.Config
	}{
		{"server certificate", tlsConfig(t)},
		{"mutual", mutual(tlsConfig(t))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			a := start(t, Config{TLS: tt.cfg}, streamID(1))
			b := start(t, Config{TLS: tt.cfg}, streamID(2))
			introduce(a, b)
			for i := range 200 {
				a.send(t, numbered(uint64(i), i*159))
				b.send(t, numbered(uint64(i), i*159))
			}
			a.awaitExactly(t, 200)
			b.awaitExactly(t, 200)
			if !a.Capabilities().SecureChannel {
				t.Error("with TLS, SecureChannel is not claimed")
			}
		})
	}
}

func TestTLS_RefusesOtherCertificates(t *testing.T) {
	a := start(t, Config{TLS: tlsConfig(t)}, streamID(1))
	b := start(t, Config{TLS: tlsConfig(t)}, streamID(2))
	introduce(a, b)
	a.awaitRefused(t, ReasonTLS, 1)
	b.awaitRefused(t, ReasonTLS, 1)
	if a.connectedTo(b) {
		t.Error("connected")
	}
}

func TestTLS_AndPlainDoNotMix(t *testing.T) {
	a := start(t, Config{TLS: tlsConfig(t)}, streamID(1))
	b := start(t, Config{}, streamID(2))
	introduce(a, b)
	a.awaitRefused(t, ReasonTLS, 1)       // b's hello is no TLS
	b.awaitRefused(t, ReasonMalformed, 1) // a's TLS is no hello
	if a.connectedTo(b) {
		t.Error("connected")
	}
}

// middle ends TLS on both sides and carries what is inside from one to the other,
// as somebody with a certificate that both trust could.
type middle struct {
	ln     net.Listener
	front  *tls.Config
	back   *tls.Config
	target string
	passed chan []byte // everything that the end that dialled sent, once
}

func startMiddle(t *testing.T, cfg *tls.Config, target string) *middle {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{ln: ln, front: cfg, back: cfg, target: target, passed: make(chan []byte, 100)}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go m.carry(nc)
		}
	}()
	return m
}

func (m *middle) carry(nc net.Conn) {
	defer nc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	back, err := net.Dial("tcp", m.target)
	if err != nil {
		return
	}
	defer back.Close()
	in, out := tls.Server(nc, m.front), tls.Client(back, m.back)
	if in.HandshakeContext(ctx) != nil || out.HandshakeContext(ctx) != nil {
		return
	}
	go func() {
		io.Copy(in, out)
		nc.Close()
	}()
	var seen bytes.Buffer
	io.Copy(io.MultiWriter(out, &seen), in)
	m.passed <- seen.Bytes()
}

func TestTLS_RefusesAManInTheMiddle(t *testing.T) {
	cfg := tlsConfig(t) // the worst case: he has the site's own certificate
	a := start(t, Config{TLS: cfg}, streamID(1))
	b := start(t, Config{TLS: cfg}, streamID(2))
	m := startMiddle(t, cfg, b.address())

	row := b.member()
	row.Addresses = map[string][]string{"tcp": {m.ln.Addr().String()}}
	a.SetMembers(provider.Members{Self: a.stream, Others: []site.Member{row}})
	b.knows()
	select {
	case seen := <-m.passed:
		if len(seen) != helloLen+proofLen {
			t.Errorf("a sent %d bytes through the middle, want hello and proof, %d", len(seen), helloLen+proofLen)
		}
	case <-time.After(patience):
		t.Fatal("nobody came through the middle")
	}
	b.awaitRefused(t, ReasonProof, 1)
	if a.connectedTo(b) || b.connectedTo(a) {
		t.Error("connected through somebody who reads along")
	}
}

func TestTLS_OlderVersionsAreNotSpoken(t *testing.T) {
	in := start(t, Config{TLS: tlsConfig(t)}, streamID(1))
	in.knows()
	_, err := tls.Dial("tcp", in.address(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	in.awaitRefused(t, ReasonTLS, 1)
}

func TestTLS_StallIsATimeout(t *testing.T) {
	in := start(t, Config{TLS: tlsConfig(t), HandshakeTimeout: 50 * time.Millisecond}, streamID(1))
	in.knows()
	nc := dialRaw(t, in)
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a stalled TLS handshake: %v, want to be closed without a word", err)
	}
	in.awaitRefused(t, ReasonTimeout, 1)
}
