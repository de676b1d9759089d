//go:build linux

// Package nats carries events through core NATS: an event a message, or packed by hand into larger
// messages, each with and without a MAC on every event.
package nats

import (
	"context"
	"io"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/bench/internal/opponent/nats/natsserver"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const (
	subject = "events"

	// Largest message that events are packed into. It fills the client's write buffer.
	packBytes = 32 << 10
)

// A variant is how events become messages.
type variant struct {
	sealed bool // HMAC-SHA-256 on each event, 32 bytes, verified by each subscriber
	packed bool // many events a message
}

// Systems returns the four variants.
func Systems() []system.System {
	const (
		versions = " (nats-server " + natsserver.Version + ", nats.go " + nats.Version + ")"
		note     = natsserver.Settings + "; no limit on what waits in a subscriber; no TLS, no authentication; at most once"
		noteHMAC = "; HMAC-SHA-256 with 32 bytes of tag on each event, state reused, verified by every subscriber"
		notePack = "; events packed by hand into messages of up to 32 KiB, what waits goes when the publisher flushes"
	)
	return []system.System{
		newSystem("nats", "NATS core"+versions, note, variant{}),
		newSystem("nats-hmac", "NATS core + HMAC on each event"+versions, note+noteHMAC, variant{sealed: true}),
		newSystem("nats-packed", "NATS core, packed by hand"+versions, note+notePack, variant{packed: true}),
		newSystem("nats-packed-hmac", "NATS core, packed by hand + HMAC on each event"+versions, note+notePack+noteHMAC,
			variant{sealed: true, packed: true}),
	}
}

func newSystem(name, title, note string, v variant) system.System {
	return system.System{
		Name: name, Title: title, Note: note,
		Serve: natsserver.Start,
		Publish: func(_ context.Context, _ system.Spec, address string) (system.Publisher, error) {
			return newPublisher(address, v)
		},
		Subscribe: func(_ context.Context, _ system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
			return subscribe(address, v, deliver)
		},
	}
}

// connect makes a lost connection an error of what is done next, instead of a gap.
func connect(address string) (*nats.Conn, error) {
	return nats.Connect("nats://"+address, nats.NoReconnect())
}
