// Package providertest checks that a transport keeps the contract of package
// provider: every sentence of [provider.Provider] and of its optional
// interfaces, and every claim in [provider.Capabilities]. It also has
// benchmarks that measure all transports with the same code, and [Faulty],
// which makes any Provider lose, repeat, delay, reorder and damage frames.
//
// It is for tests of transports; package carillontest is for tests of
// applications. A test of a transport looks like this:
//
//	func TestProvider(t *testing.T) {
//		providertest.Run(t, providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
//			server := startServer(tb) // stopped by tb.Cleanup
//			var net providertest.Network
//			for range n {
//				net.Providers = append(net.Providers, natsbus.New(server.URL))
//			}
//			return &net
//		}))
//	}
//
// The suite cannot run inside a testing/synctest bubble, because it uses
// subtests. Its checks run one after the other; nothing else may start
// goroutines meanwhile.
package providertest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// A Harness makes networks of the transport under test. Whatever the suite
// needs from the transport's surroundings it asks the Harness for, so that it
// knows no product.
type Harness interface {
	// Network returns a network that nobody else uses, with n Providers on it that are
	// not started. The suite starts and closes them. Servers and whatever
	// else the Harness starts, it stops through tb.Cleanup. It is called many
	// times, never concurrently.
	Network(tb testing.TB, n int) *Network
}

// HarnessFunc is a function that is a [Harness].
type HarnessFunc func(tb testing.TB, n int) *Network

// Network calls f.
func (f HarnessFunc) Network(tb testing.TB, n int) *Network { return f(tb, n) }

// Network is what a [Harness] makes. Providers is required; everything else
// has a zero value that fits a transport in memory or over a loopback
// connection. Checks that need a function which is nil are skipped, except where a
// capability is claimed that nothing else can prove.
type Network struct {
	// Providers are the n that were asked for. Each can reach all others once it is
	// started and, if it is a [provider.MemberWatcher], has been told of them.
	Providers []provider.Provider

	// Lossy says that the transport loses frames even when nothing is wrong, as UDP does
	// when a socket's buffer is full. The suite then sends again what did not
	// arrive. For any other transport a frame lost on a quiet network is a
	// problem.
	Lossy bool

	// Cut breaks the link of Providers[i] to all others, in both directions, without
	// telling it; Heal mends it. Both return when it is done.
	Cut, Heal func(i int)

	// Unnoticed says that Providers[i] cannot notice what Cut does, so that it need not
	// report lost frames through Reconnected.
	Unnoticed bool

	// Garbage writes b, as a stranger would, where Providers[i] listens: into
	// its socket, connection or topic. It is called while Providers[i] runs. An error
	// means that the transport did not let the stranger write it, which is fine.
	// A transport that claims SecureChannel must have it.
	Garbage func(i int, b []byte) error

	// Broken returns a Provider whose Start must fail at once because
	// what it needs is not there: a wrong address, a port that is taken.
	Broken func() provider.Provider

	// Silent returns a Provider whose Start gets no answer, so that only its ctx
	// ends it.
	Silent func() provider.Provider

	// Restart restarts the transport's servers and returns when they are up. A
	// transport that claims Durable must have it.
	Restart func()

	// Route is Env.Route. The zero Addr means 127.0.0.1.
	Route netip.Addr

	// Patience is how long the suite waits for what must happen before it reports a
	// problem. It costs time only where something is wrong, or a machine is very busy. Zero means 30 s.
	Patience time.Duration

	// Settle is how long the suite waits for what must not happen. Longer finds more;
	// it costs its time in several checks. Zero means 50 ms.
	Settle time.Duration

	// FloodBytes is how much is sent past a receiver that stands still. It should
	// exceed everything that buffers between two instances. Zero means 32 MiB.
	FloodBytes int

	// IgnoreGoroutine says that a goroutine, given as its stack trace, belongs to
	// the surroundings and not to a Provider, so that it is no leak. Nil
	// ignores none.
	IgnoreGoroutine func(stack string) bool
}

// withDefaults returns a copy of n in which the zero values are replaced.
func (n *Network) withDefaults() *Network {
	c := *n
	if !c.Route.IsValid() {
		c.Route = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	if c.Settle == 0 {
		c.Settle = 50 * time.Millisecond
	}
	if c.FloodBytes == 0 {
		c.FloodBytes = 32 << 20
	}
	if c.IgnoreGoroutine == nil {
		c.IgnoreGoroutine = func(string) bool { return false }
	}
	return &c
}
