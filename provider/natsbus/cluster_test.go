package natsbus

import (
	"fmt"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider/providertest"
)

func TestProvider_MovesToAnotherServerOfTheCluster(t *testing.T) {
	routes := []string{providertest.NewAddress(t), providertest.NewAddress(t)}
	var servers []*testServer
	for _, own := range routes {
		servers = append(servers, startServer(t, fmt.Sprintf("server_name: %q\ncluster { name: test, listen: %q, routes: [\"nats://%s\", \"nats://%s\"] }",
			own, own, routes[0], routes[1])))
	}
	// Each names one server alone, and learns of the other.
	var eps []*providertest.Endpoint
	for _, s := range servers {
		eps = append(eps, providertest.Start(t, newProvider(t, Config{URLs: []string{s.url()}})))
	}
	providertest.Introduce(eps...)
	// The servers of a cluster tell each other of subscriptions when they get to it.
	reach := func(when string) {
		t.Helper()
		round := 0
		eventually(t, "they hear each other "+when, func() bool {
			round++
			heard := true
			for i, e := range eps {
				frame := fmt.Appendf(nil, "%s, from %d, round %d", when, i, round)
				one := append([]byte("one: "), frame...)
				p := e.Provider.(*Provider)
				heard = p.Send(t.Context(), [][]byte{frame}) == nil && p.SendTo(t.Context(), eps[1-i].Stream(), [][]byte{one}) == nil &&
					eps[1-i].Heard(frame, 20*time.Millisecond) && eps[1-i].Heard(one, 20*time.Millisecond) && heard
			}
			return heard
		})
	}
	reach("through the cluster")
	servers[0].kill()
	reach("when one server is gone")
	if eps[0].Reconnects() == 0 {
		t.Error("the one whose server is gone was not told")
	}
}
