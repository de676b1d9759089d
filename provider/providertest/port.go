package providertest

import (
	"fmt"
	"net"
	"strconv"
	"testing"
)

// NewAddress returns an address, host:port on the loopback interface, for a server in a process of its own that the test starts, kills and
// starts again there. Until the test ends the system lends the port to nobody else, whether the server runs or not; see [ReservePort].
func NewAddress(tb testing.TB) string {
	tb.Helper()
	port, release, err := ReservePort(0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(release)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// ReservePort reserves a TCP port of 127.0.0.1 until release is called: the one given, which must be free, or one that the system
// chooses if that is 0. A port that is found free and used later is one that somebody else may have by then: whoever
// listens at port 0, and every connection that is made, gets one of the same ports. A server can listen at the
// reserved one, again and again, if it sets SO_REUSEADDR first, as nearly all do; nobody can connect to it meanwhile.
//
// Only Linux can reserve. Elsewhere the port was free a moment ago, and release does nothing.
func ReservePort(port int) (reserved int, release func(), err error) {
	reserved, release, err = reservePort(port)
	if err != nil {
		return 0, nil, fmt.Errorf("providertest: reserve port %d: %w", port, err)
	}
	return reserved, release, nil
}
