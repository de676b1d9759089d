//go:build linux

// Package opponent gathers what people would pick instead of Carillon. A program that runs them calls
// natsserver.RunIfAsked first in its main function.
package opponent

import (
	"slices"

	"github.com/carillon-go/carillon/bench/internal/opponent/memberlist"
	"github.com/carillon-go/carillon/bench/internal/opponent/mqtt"
	"github.com/carillon-go/carillon/bench/internal/opponent/nats"
	"github.com/carillon-go/carillon/bench/internal/opponent/postgres"
	"github.com/carillon-go/carillon/bench/internal/opponent/rabbit"
	"github.com/carillon-go/carillon/bench/internal/opponent/redis"
	"github.com/carillon-go/carillon/bench/internal/opponent/watermill"
	"github.com/carillon-go/carillon/bench/internal/opponent/zmq"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// Systems returns all of them, the strongest first. One whose server or library is not on this machine says
// so when it is run.
func Systems() []system.System {
	return slices.Concat(nats.Systems(), zmq.Systems(), redis.Systems(), postgres.Systems(), rabbit.Systems(),
		mqtt.Systems(), watermill.Systems(), memberlist.Systems())
}
