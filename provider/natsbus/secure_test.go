package natsbus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// certificate writes a certificate for 127.0.0.1 with its key, and returns the files and who trusts it.
func certificate(t *testing.T) (certFile, keyFile string, authority *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	authority = x509.NewCertPool()
	authority.AppendCertsFromPEM(certPEM)
	return file(t, "cert.pem", certPEM), file(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), authority
}

func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// carries fails the test if two instances with cfg do not hear each other.
func carries(t *testing.T, cfg Config) {
	t.Helper()
	one, two := providertest.Start(t, newProvider(t, cfg)), providertest.Start(t, newProvider(t, cfg))
	if err := one.Provider.Send(t.Context(), [][]byte{[]byte("frame")}); err != nil {
		t.Fatal(err)
	}
	if !two.Heard([]byte("frame"), 10*time.Second) {
		t.Error("the frame did not arrive")
	}
}

func TestProvider_UsesTLS(t *testing.T) {
	certFile, keyFile, authority := certificate(t)
	s := startServer(t, fmt.Sprintf("tls { cert_file: %q, key_file: %q }", certFile, keyFile))
	t.Run("with the authority", func(t *testing.T) {
		carries(t, Config{URLs: []string{"tls://" + s.address}, TLS: &tls.Config{RootCAs: authority}})
	})
	for _, tt := range []struct {
		name, want string
		cfg        Config
	}{
		{"without the authority", "RootCAs", Config{URLs: []string{"tls://" + s.address}}},
		{"with another name", "TLS.ServerName", Config{URLs: []string{"tls://" + s.address}, TLS: &tls.Config{RootCAs: authority, ServerName: "other.example"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := providertest.NewEndpoint(t, newProvider(t, tt.cfg), provider.Env{})
			defer e.Close()
			if err := e.Start(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start: %v; want an error with %q", err, tt.want)
			}
		})
	}
}

func TestProvider_UsesCredentials(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := user.PublicKey()
	seed, _ := user.Seed()
	t.Run("token", func(t *testing.T) {
		s := startServer(t, `authorization { token: "t0k3n" }`)
		carries(t, Config{URLs: []string{s.url()}, Token: "t0k3n"})
		carries(t, Config{URLs: []string{"nats://t0k3n@" + s.address}})
	})
	t.Run("user in the URL", func(t *testing.T) {
		s := startServer(t, users(everything, everything))
		carries(t, Config{URLs: []string{"nats://app:" + password + "@" + s.address}})
	})
	t.Run("NKEY", func(t *testing.T) {
		s := startServer(t, fmt.Sprintf("authorization { users = [ {nkey: %s} ] }", public))
		carries(t, Config{URLs: []string{s.url()}, NKeyFile: file(t, "user.nk", seed)})
	})
	t.Run("JWT", func(t *testing.T) {
		operator, _ := nkeys.CreateOperator()
		account, _ := nkeys.CreateAccount()
		operatorID, _ := operator.PublicKey()
		accountID, _ := account.PublicKey()
		operatorJWT, err := jwt.NewOperatorClaims(operatorID).Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		accountJWT, err := jwt.NewAccountClaims(accountID).Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		userJWT, err := jwt.NewUserClaims(public).Encode(account)
		if err != nil {
			t.Fatal(err)
		}
		creds, err := jwt.FormatUserConfig(userJWT, seed)
		if err != nil {
			t.Fatal(err)
		}
		s := startServer(t, fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: { %s: %s }", operatorJWT, accountID, accountJWT))
		carries(t, Config{URLs: []string{s.url()}, CredentialsFile: file(t, "app.creds", creds)})
	})
}
