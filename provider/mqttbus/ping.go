package mqttbus

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// noAuth is for the authentication that MQTT 5 can carry in packets of its own, which the guard lets nobody begin.
type noAuth struct{}

func (noAuth) Authenticate(*paho.Auth) *paho.Auth { return new(paho.Auth) }
func (noAuth) Authenticated()                     {}

// errSilent ends a connection over which nothing comes.
var errSilent = fmt.Errorf("the server is silent: %w", context.DeadlineExceeded)

// A pinger asks at least as often as this client wants to, also where the server would be content with less.
type pinger struct {
	*paho.DefaultPinger
	most  time.Duration
	ended func(error) // is told when there was no answer
}

// Run implements [paho.Pinger].
func (p *pinger) Run(ctx context.Context, c net.Conn, seconds uint16) error {
	most := uint16(max(1, p.most/time.Second))
	if seconds == 0 || seconds > most {
		seconds = most
	}
	err := p.DefaultPinger.Run(ctx, c, seconds)
	if err != nil {
		p.ended(errSilent)
	}
	return err
}
