package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/provider/udpbus"
)

// newProviders makes the providers that the settings name.
func newProviders(s *appsettings.Settings) ([]provider.Provider, error) {
	var all []provider.Provider
	for _, name := range s.Providers {
		var p provider.Provider
		var err error
		switch name {
		case "tcp":
			p, err = newTCP(&s.TCP)
		case "udp":
			p, err = newUDP(&s.UDP)
		default:
			err = fmt.Errorf("there is no provider %q in this program; choices: tcp, udp", name)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func newUDP(c *appsettings.UDP) (provider.Provider, error) {
	return udpbus.New(udpbus.Config{
		Mode: udpbus.Mode(c.Mode), Group: c.Group, Port: c.Port, Interface: c.Interface, TTL: c.TTL,
		Peers: c.Peers, MaxFrameBytes: c.MaxFrameBytes,
	})
}

func newTCP(c *appsettings.TCP) (provider.Provider, error) {
	secure, err := newTLS(&c.TLS)
	if err != nil {
		return nil, err
	}
	return tcpbus.New(tcpbus.Config{
		Listen: c.Listen, Advertise: c.Advertise, AllowNetworks: c.AllowNetworks, Endpoints: c.Endpoints,
		TLS: secure, MaxFrameBytes: c.MaxFrameBytes, QueueBytes: c.QueueBytes,
		DialTimeout: c.DialTimeout, HandshakeTimeout: c.HandshakeTimeout, PeerTimeout: c.PeerTimeout,
	})
}

// newTLS reads the files that c names; nil means no TLS.
func newTLS(c *appsettings.TLS) (*tls.Config, error) {
	if c.CertFile == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read certificate %q and key %q: %w", c.CertFile, c.KeyFile, err)
	}
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the authority's certificate: %w", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%q holds no certificate in PEM", c.CAFile)
		}
		secure.ClientCAs, secure.ClientAuth = secure.RootCAs, tls.RequireAndVerifyClientCert
	}
	return secure, nil
}
