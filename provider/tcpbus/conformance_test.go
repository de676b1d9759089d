package tcpbus

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// wiring carries every connection of a network through relays, one per pair and direction, so
// that one instance can be cut off.
type wiring struct {
	tb        testing.TB
	providers []*Provider

	mu     sync.Mutex
	relays map[[2]int]*relay // by who dials whom
	cut    map[int]bool
}

// dialFrom returns what providers[i] dials with.
func (w *wiring) dialFrom(i int) func(context.Context, *net.Dialer, string) (net.Conn, error) {
	return func(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
		for j, p := range w.providers {
			if j == i || len(p.Addresses()) == 0 || p.Addresses()[0] != address {
				continue
			}
			w.mu.Lock()
			if w.cut[i] || w.cut[j] {
				w.mu.Unlock()
				return nil, errors.New("the link is cut")
			}
			r := w.relays[[2]int{i, j}]
			if r == nil {
				r = startRelay(w.tb, address, nil)
				w.relays[[2]int{i, j}] = r
			}
			w.mu.Unlock()
			return d.DialContext(ctx, "tcp", r.ln.Addr().String())
		}
		return d.DialContext(ctx, "tcp", address) // of one that is gone
	}
}

func (w *wiring) Cut(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[i] = true
	for pair, r := range w.relays {
		if pair[0] == i || pair[1] == i {
			r.reset()
		}
	}
}

func (w *wiring) Heal(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cut, i)
}

// harness makes networks of instances with this configuration.
func harness(cfg Config, stranger *tls.Config, relayed bool) providertest.Harness {
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		w := &wiring{tb: tb, relays: make(map[[2]int]*relay), cut: make(map[int]bool)}
		network := &providertest.Network{
			Broken: func() provider.Provider {
				taken, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { taken.Close() })
				return newTest(tb, Config{Listen: taken.Addr().String()})
			},
			// A stranger, and after him one who knows what a hello looks like.
			Garbage: func(i int, b []byte) error {
				address := w.providers[i].Addresses()[0]
				var nc net.Conn
				nc, err := net.Dial("tcp", address)
				if err == nil && stranger != nil {
					nc, err = tls.Dial("tcp", address, stranger)
				}
				if err != nil {
					return err
				}
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(time.Second))
				if _, err := nc.Write(b); err != nil {
					return err
				}
				hello := &hello{site: w.providers[i].env.Site, key: 1, stream: streamID(99)}
				_, err = nc.Write(append(hello.encode(), bytes.Repeat([]byte{1}, proofLen)...))
				return err
			},
			IgnoreGoroutine: func(stack string) bool {
				return strings.Contains(stack, "(*relay).carry") || strings.Contains(stack, "startRelay")
			},
		}
		for i := range n {
			p := newTest(tb, cfg)
			if relayed {
				p.dialWith = w.dialFrom(i)
			}
			w.providers = append(w.providers, p)
			network.Providers = append(network.Providers, p)
		}
		if relayed {
			network.Cut, network.Heal = w.Cut, w.Heal
		}
		return network
	})
}

func TestProvider_KeepsTheContract(t *testing.T) {
	// The suite floods a receiver that stands still and expects the frame that it sends
	// when that goes on, so the flood has to fit.
	const queueBytes = 40 << 20
	t.Run("plain", func(t *testing.T) { providertest.Run(t, harness(Config{QueueBytes: queueBytes}, nil, false)) })
	t.Run("through a network that breaks", func(t *testing.T) {
		providertest.Run(t, harness(Config{QueueBytes: queueBytes}, nil, true))
	})
	t.Run("TLS", func(t *testing.T) {
		cfg := mutual(tlsConfig(t))
		stranger := cfg.Clone() // he has even stolen the certificate, but no key of the site
		stranger.ServerName = "127.0.0.1"
		providertest.Run(t, harness(Config{TLS: cfg, QueueBytes: queueBytes}, stranger, false))
	})
}
