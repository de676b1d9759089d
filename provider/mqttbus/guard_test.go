package mqttbus

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"
)

// through returns what a guard with a limit of 200 bytes lets through, and why it ended.
func through(b []byte) ([]byte, error) {
	return io.ReadAll(&guard{from: bufio.NewReader(bytes.NewReader(b)), limit: 200})
}

func TestGuard_LetsThroughWhatPahoMaySee(t *testing.T) {
	packet := func(first byte, length ...byte) []byte { return append([]byte{first}, length...) }
	filled := func(n int, begin ...byte) []byte { return append(begin, make([]byte, n)...) }
	for _, tt := range []struct {
		name string
		in   []byte
		want string // in the error; empty: all goes through
	}{
		{"nothing", nil, ""},
		{"an answer to a ping", packet(0xd0, 0), ""},
		{"several packets", append(packet(0xd0, 0), filled(4, 0x40, 4)...), ""},
		{"the longest packet", filled(200, 0x32, 0xc8, 0x01), ""},
		{"a packet too long", filled(201, 0x32, 0xc9, 0x01), "packet of 201 bytes"},
		{"a length of five bytes", packet(0x32, 0x80, 0x80, 0x80, 0x80, 0), "more than four bytes"},
		{"the largest length", packet(0x32, 0xff, 0xff, 0xff, 0x7f), "packet of 268435455 bytes"},
		{"a message with QoS 0", filled(10, 0x30, 10), ""},
		{"a message with QoS 2", filled(10, 0x34, 10), "QoS 2"},
		{"a message with QoS 3", filled(10, 0x36, 10), "QoS 3"},
		{"a message that comes again", filled(10, 0x3a, 10), ""},
		{"the goodbye of a server", filled(1, 0xe0, 1), ""},
		{"flags where there are none", filled(4, 0x41, 4), "0x41"},
		{"an authentication", filled(2, 0xf0, 2), "0xf0"},
		{"what only a client sends", filled(10, 0x10, 10), "0x10"},
		{"an answer of the older protocol", filled(2, 0x20, 2), errOld.Error()},
		{"the shortest answer of this one", filled(3, 0x20, 3), ""},
		{"a web server", []byte("HTTP/1.1 400 Bad Request\r\n"), "0x48"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := through(tt.in)
			switch {
			case tt.want == "" && (err != nil || !bytes.Equal(out, tt.in)):
				t.Errorf("%d of %d bytes went through, then: %v", len(out), len(tt.in), err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// Whatever a server sends: what goes through is the beginning of it, in packets that are no longer than the limit, and
// the decoder survives it.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{})
	for _, p := range []packets.Packet{
		&packets.Connack{Properties: &packets.Properties{ReceiveMaximum: new(uint16(20)), AuthMethod: "m", ReasonString: "r"}},
		&packets.Publish{Topic: "t", QoS: 1, PacketID: 1, Payload: []byte("frame"), Properties: &packets.Properties{CorrelationData: []byte("c")}},
		&packets.Puback{PacketID: 7, ReasonCode: 0x97, Properties: &packets.Properties{ReasonString: "r", User: []packets.User{{Key: "k", Value: "v"}}}},
		&packets.Suback{PacketID: 7, Reasons: []byte{1, 0x87}, Properties: &packets.Properties{}},
		&packets.Disconnect{ReasonCode: 0x8e, Properties: &packets.Properties{ServerReference: "s"}},
	} {
		var b bytes.Buffer
		p.WriteTo(&b)
		f.Add(b.Bytes())
		f.Add(append(b.Bytes(), 0xd0, 0))
	}
	f.Add([]byte{0x20, 2, 0, 1})
	f.Add([]byte{0x32, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := through(b)
		if !bytes.HasPrefix(b, out) {
			t.Fatalf("%d bytes went through that were not sent", len(out))
		}
		if err == nil && len(out) != len(b) {
			t.Errorf("%d of %d bytes went through, without an error", len(out), len(b))
		}
		g := &guard{from: bufio.NewReader(bytes.NewReader(b)), limit: 200}
		for {
			p, err := packets.ReadPacket(g)
			if err != nil {
				if _, again := g.Read(make([]byte, 1)); g.err != nil && !errors.Is(again, g.err) {
					t.Errorf("after the error %v it read on: %v", g.err, again)
				}
				return
			}
			if m, ok := p.Content.(*packets.Publish); ok && (m.QoS > 1 || len(m.Payload) > 200) {
				t.Errorf("a message with QoS %d and %d bytes", m.QoS, len(m.Payload))
			}
		}
	})
}
