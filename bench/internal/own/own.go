//go:build linux

// Package own is Carillon itself over its transports, as an application uses it: through the public API,
// with a site database in SQLite and every default, so with all guarantees on.
package own

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/carillon-go/carillon/bench/internal/system"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/provider/udpbus"
	"github.com/carillon-go/carillon/site"
)

// A carrier is a transport as the benchmark sets it up. To measure another one, add it to carriers, or to the guests of the program.
type carrier struct {
	name, title, note string
	suite             site.Suite // zero: that of a new site

	// serve, if set, starts the message broker that the transport needs.
	serve func(ctx context.Context, s system.Spec) (*system.Server, error)

	// address, if set, finds what all instances of a run must have the same, such as a free port.
	address func() (string, error)

	// provider makes one instance's transport. address is what address returned, or else the message broker's.
	provider func(address string) (provider.Provider, error)

	// connected, if set, returns how many others p is connected to.
	connected func(p provider.Provider) int
}

const small, large = 1200, 65_000 // bytes of a UDP frame

var carriers = []carrier{
	{
		name: "tcpbus", title: "Carillon over TCP", note: "MAC (GHASH-HMAC-SHA-256), window, repair, member table, drop counters",
		provider: newTCP, connected: connectedTCP,
	},
	{
		name: "tcpbus-hmac", title: "Carillon over TCP, plain HMAC", note: "as tcpbus, suite HMAC-SHA-256",
		suite: site.SuiteHMACSHA256, provider: newTCP, connected: connectedTCP,
	},
	{
		name: "tcpbus-gcm", title: "Carillon over TCP, encrypting", note: "as tcpbus, suite AES-256-GCM",
		suite: site.SuiteAES256GCM, provider: newTCP, connected: connectedTCP,
	},
	{
		name: "udpbus", title: "Carillon over UDP multicast, frames of 1,200 B", note: "as tcpbus",
		address: freeUDPPort, provider: newUDP(small),
	},
	{
		name: "udpbus-large", title: "Carillon over UDP multicast, frames of 65,000 B", note: "as tcpbus; such datagrams pass only where the network takes them, as the loopback interface does",
		address: freeUDPPort, provider: newUDP(large),
	},
}

// Systems returns Carillon over each of its transports.
func Systems() []system.System {
	var all []system.System
	for _, c := range carriers {
		all = append(all, c.system())
	}
	return all
}

// A Guest is a transport on a message broker. Its code is no part of the lean program of package instance, which is measured as an
// application's smallest.
type Guest struct {
	Name, Title string
	Note        string // what differs from the defaults of the server

	Serve    func(ctx context.Context, s system.Spec) (*system.Server, error)
	Provider func(address string) (provider.Provider, error) // one instance's transport at the server's address
}

// System returns Carillon over g.
func (g Guest) System() system.System {
	note := "as tcpbus"
	if g.Note != "" {
		note += "; " + g.Note
	}
	return carrier{name: g.Name, title: g.Title, note: note, serve: g.Serve, provider: g.Provider}.system()
}

func (c carrier) system() system.System {
	return system.System{Name: c.name, Title: c.title, Note: c.note, Serve: c.serve, Publish: c.publish, Subscribe: c.subscribe}
}

func newTCP(string) (provider.Provider, error) {
	return tcpbus.New(tcpbus.Config{}) // the zero Config listens on the loopback interface, where the database is
}

func connectedTCP(p provider.Provider) (n int) {
	for _, peer := range p.(*tcpbus.Provider).Peers() {
		if peer.Connected {
			n++
		}
	}
	return n
}

func newUDP(frameBytes int) func(address string) (provider.Provider, error) {
	return func(address string) (provider.Provider, error) {
		port, err := strconv.Atoi(address)
		if err != nil {
			return nil, fmt.Errorf("port of the multicast group: %w", err)
		}
		return udpbus.New(udpbus.Config{Port: port, Interface: "127.0.0.1", MaxFrameBytes: frameBytes})
	}
}

// freeUDPPort keeps runs apart that share the multicast group.
func freeUDPPort() (string, error) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer c.Close()
	return strconv.Itoa(c.LocalAddr().(*net.UDPAddr).Port), nil
}

func (c carrier) publish(ctx context.Context, s system.Spec, address string) (system.Publisher, error) {
	var err error
	if c.address != nil {
		if address, err = c.address(); err != nil {
			return nil, err
		}
	}
	if err := createSite(ctx, s.Dir, c.suite); err != nil {
		return nil, err
	}
	in, err := c.join(ctx, s, address)
	if err != nil {
		return nil, err
	}
	in.broker.Enable()
	return &publisher{instance: in, subscribers: s.Subscribers, address: address, connected: c.connected}, nil
}

func (c carrier) subscribe(ctx context.Context, s system.Spec, address string, deliver func([]byte)) (io.Closer, error) {
	in, err := c.join(ctx, s, address)
	if err != nil {
		return nil, err
	}
	in.listen(deliver)
	in.broker.Enable()
	return in, nil
}
