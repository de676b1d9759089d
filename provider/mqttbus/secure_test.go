package mqttbus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider/providertest"
)

// certificate makes a certificate that signs itself, for 127.0.0.1, and returns it in the forms of both sides.
func certificate(t *testing.T) (pair tls.Certificate, roots *x509.CertPool, certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	if pair, err = tls.X509KeyPair([]byte(certPEM), []byte(keyPEM)); err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certPEM))
	return pair, roots, certPEM, keyPEM
}

// secured starts a server with TLS, and with lines of its listener.
func secured(t *testing.T, certPEM, keyPEM string, lines ...string) (*server, string) {
	t.Helper()
	s := startServer(t)
	s.configure(append([]string{"certfile " + s.write("cert.pem", certPEM), "keyfile " + s.write("key.pem", keyPEM), "cafile " + s.write("ca.pem", certPEM)}, lines...)...)
	s.restart()
	return s, "mqtts://" + s.address
}

func TestTLS(t *testing.T) {
	pair, roots, certPEM, keyPEM := certificate(t)
	_, url := secured(t, certPEM, keyPEM)
	_, strict := secured(t, certPEM, keyPEM, "require_certificate true")
	trusting := Config{URLs: []string{url}, TLS: &tls.Config{RootCAs: roots}}
	t.Run("a certificate that is trusted", func(t *testing.T) {
		a, b := started(t, trusting), started(t, trusting)
		hears(t, a, b, "over TLS")
	})
	t.Run("a certificate that is not", func(t *testing.T) {
		startFails(t, Config{URLs: []string{url}}, "its certificate is not accepted")
	})
	t.Run("another name", func(t *testing.T) {
		startFails(t, Config{URLs: []string{url}, TLS: &tls.Config{RootCAs: roots, ServerName: "broker.invalid"}}, "its certificate is not accepted")
	})
	t.Run("a certificate of this instance", func(t *testing.T) {
		started(t, Config{URLs: []string{strict}, TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}})
	})
	t.Run("no certificate of this instance", func(t *testing.T) {
		startFails(t, Config{URLs: []string{strict}, TLS: &tls.Config{RootCAs: roots}}, "certificate") // it closes the connection so fast that its reason may be lost
	})
	t.Run("an instance without TLS", func(t *testing.T) {
		startFails(t, Config{URLs: []string{"mqtt" + url[len("mqtts"):]}}, "it may want TLS (mqtts://)")
	})
	if trusting.TLS.ServerName != "" {
		t.Error("the application's TLS configuration was changed")
	}
}

// Tokens are asked for whenever a connection is made.
func TestCredentials_AreAskedForEachTime(t *testing.T) {
	s := startServer(t)
	s.setUsers(secret, map[string][]string{"app": {may}})
	s.configure("password_file "+s.folder+"/passwords", "acl_file "+s.folder+"/acl")
	s.restart()
	way := providertest.NewRelay(t, s.address)
	var asked atomic.Int64
	e := started(t, Config{URLs: []string{"mqtt://nobody:nothing@" + way.Addr()}, Credentials: func(context.Context) (string, string, error) {
		asked.Add(1)
		return "app", secret, nil
	}})
	way.Cut()
	way.Heal()
	comesBack(t, e)
	if asked.Load() < 2 {
		t.Errorf("asked %d times, want 2 or more", asked.Load())
	}
	startFails(t, Config{URLs: []string{s.url()}, Credentials: func(context.Context) (string, string, error) {
		return "", "", errors.New("the vault is closed")
	}}, "no credentials: the vault is closed")
}
