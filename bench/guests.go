//go:build linux

package main

import (
	"github.com/carillon-go/carillon/bench/internal/opponent/mqtt/mosquitto"
	"github.com/carillon-go/carillon/bench/internal/opponent/nats/natsserver"
	"github.com/carillon-go/carillon/bench/internal/opponent/postgres"
	"github.com/carillon-go/carillon/bench/internal/opponent/redis/redisserver"
	"github.com/carillon-go/carillon/bench/internal/own"
	"github.com/carillon-go/carillon/bench/internal/system"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/mqttbus"
	"github.com/carillon-go/carillon/provider/natsbus"
	"github.com/carillon-go/carillon/provider/pgbus"
	"github.com/carillon-go/carillon/provider/redisbus"
)

// guests are our transports on message brokers, each at the server that its bare client is measured at.
var guests = []own.Guest{
	{
		Name: "natsbus", Title: "Carillon over NATS core (nats-server " + natsserver.Version + ")", Note: natsserver.Settings, Serve: natsserver.Start,
		Provider: func(address string) (provider.Provider, error) {
			return natsbus.New(natsbus.Config{URLs: []string{"nats://" + address}})
		},
	},
	{
		Name: "redisbus", Title: "Carillon over Redis pub/sub", Note: "the server as for Redis alone", Serve: redisserver.Serve,
		Provider: func(address string) (provider.Provider, error) {
			return redisbus.New(redisbus.Config{URL: "redis://" + address})
		},
	},
	{
		Name: "pgbus", Title: "Carillon over PostgreSQL NOTIFY", Note: "the server as for PostgreSQL alone", Serve: postgres.Serve,
		Provider: func(address string) (provider.Provider, error) {
			return pgbus.New(pgbus.Config{URL: "postgres://postgres@" + address + "/postgres?sslmode=disable"})
		},
	},
	{
		Name: "mqttbus", Title: "Carillon over MQTT 5 (mosquitto)", Note: "QoS 1; the server as for MQTT alone", Serve: mosquitto.Serve,
		Provider: func(address string) (provider.Provider, error) {
			return mqttbus.New(mqttbus.Config{URLs: []string{"mqtt://" + address}})
		},
	},
}

func guestSystems() (all []system.System) {
	for _, g := range guests {
		all = append(all, g.System())
	}
	return all
}
