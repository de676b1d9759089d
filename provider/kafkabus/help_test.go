package kafkabus

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/carillon-go/carillon/provider/providertest"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// newTest makes a Provider that the test closes.
func newTest(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}

// eventually polls cond until it is true, and fails the test when that takes too long.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	if !providertest.Eventually(patience, cond) {
		tb.Fatalf("not within %v: %s", patience, what)
	}
}

// through makes all connections go over a relay, whatever the brokers say where they are.
func through(r *providertest.Relay) []kgo.Opt {
	return []kgo.Opt{kgo.Dialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, r.Addr())
	})}
}

// pair starts two instances that know each other.
func pair(tb testing.TB, one, two Config) (a, b *providertest.Endpoint) {
	tb.Helper()
	a, b = providertest.Start(tb, newTest(tb, one)), providertest.Start(tb, newTest(tb, two))
	providertest.Introduce(a, b)
	return a, b
}

// hears sends a new frame from one to another, once, and waits until it is there.
func hears(tb testing.TB, from, to *providertest.Endpoint, when string) {
	tb.Helper()
	frame := newFrame(when)
	if err := from.Provider.Send(tb.Context(), [][]byte{frame}); err != nil {
		tb.Fatalf("%s: %v", when, err)
	}
	if !to.Heard(frame, patience) {
		tb.Fatalf("%s: it was not heard", when)
	}
}

// hearsAgain sends until one arrives: whoever has lost a connection needs a moment.
func hearsAgain(tb testing.TB, from, to *providertest.Endpoint, when string) {
	tb.Helper()
	var err error
	eventually(tb, when, func() bool {
		frame := newFrame(when)
		err = from.Provider.Send(tb.Context(), [][]byte{frame})
		return err == nil && to.Heard(frame, 10*time.Millisecond)
	})
}

// refused sends until Send fails with an error that has want in it, which it returns.
func refused(tb testing.TB, from *providertest.Endpoint, want string) error {
	tb.Helper()
	var err error
	eventually(tb, "Send fails with "+want, func() bool {
		err = from.Provider.Send(tb.Context(), [][]byte{newFrame("refused")})
		return err != nil && bytes.Contains([]byte(err.Error()), []byte(want))
	})
	return err
}

var framesMade int // by the goroutine of the test alone

// newFrame returns a frame that no other is like.
func newFrame(text string) []byte {
	framesMade++
	return fmt.Appendf(nil, "%s: number %d", text, framesMade)
}

// count returns how often an instance heard a frame.
func count(e *providertest.Endpoint, frame []byte) (n int) {
	for f := range slices.Values(e.Frames()) {
		if bytes.Equal(f, frame) {
			n++
		}
	}
	return n
}

// stranger returns a client of nobody's.
func stranger(tb testing.TB, brokers []string, opts ...kgo.Opt) *kgo.Client {
	tb.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression())}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cl.Close)
	return cl
}

// stacks returns the stack traces of all goroutines.
func stacks() string {
	b := make([]byte, 4<<20)
	return string(b[:runtime.Stack(b, true)])
}

// roots returns the authority that signed a server's certificate.
func roots(s *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return pool
}
