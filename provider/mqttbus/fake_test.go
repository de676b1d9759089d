package mqttbus

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/eclipse/paho.golang/packets"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// A fake is an MQTT server with one client at a time that answers as a test wants: what mosquitto does not do, or not when it is wanted.
type fake struct {
	// answer returns what is written when p has come; nil writes what a server does to which nothing is wrong.
	answer func(p packets.Packet) []packets.Packet

	listener net.Listener
	tasks    sync.WaitGroup

	mu      sync.Mutex
	packets []packets.Packet // that came
	conns   []net.Conn
}

// startFake starts a fake that the test ends.
func startFake(tb testing.TB, answer func(p packets.Packet) []packets.Packet) *fake {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	f := &fake{answer: answer, listener: l}
	f.tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.tasks.Go(func() { f.serve(c) })
		}
	})
	tb.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			c.Close()
		}
		f.mu.Unlock()
		f.tasks.Wait()
	})
	return f
}

func (f *fake) url() string { return "mqtt://" + f.listener.Addr().String() }

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.packets = append(f.packets, p.Content)
		f.mu.Unlock()
		var answer []packets.Packet
		if f.answer != nil {
			answer = f.answer(p.Content)
		}
		if answer == nil {
			answer = usual(p.Content)
		}
		for _, a := range answer {
			if _, err := a.WriteTo(c); err != nil {
				return
			}
		}
	}
}

// came returns the packets of one type that came so far.
func came[P packets.Packet](f *fake) []P {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []P
	for _, p := range f.packets {
		if p, ok := p.(P); ok {
			all = append(all, p)
		}
	}
	return all
}

// usual is what a server answers to which nothing is wrong. Messages without contents it carries back.
func usual(p packets.Packet) []packets.Packet {
	none := &packets.Properties{}
	switch p := p.(type) {
	case *packets.Connect:
		return []packets.Packet{&packets.Connack{Properties: none}}
	case *packets.Subscribe:
		return []packets.Packet{&packets.Suback{PacketID: p.PacketID, Reasons: bytes.Repeat([]byte{1}, len(p.Subscriptions)), Properties: none}}
	case *packets.Unsubscribe:
		return []packets.Packet{&packets.Unsuback{PacketID: p.PacketID, Reasons: make([]byte, len(p.Topics)), Properties: none}}
	case *packets.Publish:
		answer := []packets.Packet{&packets.Puback{PacketID: p.PacketID, Properties: none}}
		if len(p.Payload) == 0 {
			answer = append(answer, &packets.Publish{Topic: p.Topic, QoS: 1, PacketID: 1, Properties: p.Properties})
		}
		return answer
	case *packets.Pingreq:
		return []packets.Packet{&packets.Pingresp{}}
	}
	return []packets.Packet{}
}

// raw is bytes instead of a packet.
type raw struct {
	packets.Pingreq
	bytes []byte
}

// WriteTo implements [packets.Packet].
func (r *raw) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(r.bytes)
	return int64(n), err
}

// endpoint starts an instance that reaches f without a network, for use inside a testing/synctest bubble. To be closed by the caller.
func (f *fake) endpoint(t *testing.T) *providertest.Endpoint {
	t.Helper()
	p, err := New(Config{URLs: []string{"mqtt://h"}, Dial: func(context.Context, string) (net.Conn, error) {
		here, there := net.Pipe()
		f.tasks.Go(func() { f.serve(there) })
		return here, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	e := providertest.NewEndpoint(t, p, provider.Env{})
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}
