//go:build linux

package nats

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// A subscriber receives events. It implements system.Reporter.
type subscriber struct {
	conn    *nats.Conn
	sub     *nats.Subscription
	mac     *mac // nil: events come without
	deliver func(event []byte)

	refused atomic.Int64 // events that were cut or whose tag is wrong
}

func subscribe(address string, v variant, deliver func(event []byte)) (*subscriber, error) {
	conn, err := connect(address)
	if err != nil {
		return nil, err
	}
	s := &subscriber{conn: conn, deliver: deliver}
	if v.sealed {
		s.mac = newMAC()
	}
	take := func(m *nats.Msg) { s.takeEvent(m.Data) }
	if v.packed {
		take = func(m *nats.Msg) { s.takePacked(m.Data) }
	}
	s.sub, err = conn.Subscribe(subject, take)
	if err == nil {
		err = s.sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = conn.Flush() // returns when the server has taken the subscription
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *subscriber) takeEvent(event []byte) {
	if s.mac != nil {
		var ok bool
		if event, ok = s.mac.open(event); !ok {
			s.refused.Add(1)
			return
		}
	}
	s.deliver(event)
}

func (s *subscriber) takePacked(message []byte) {
	for len(message) > 0 {
		if len(message) < lengthBytes {
			s.refused.Add(1)
			return
		}
		end := lengthBytes + int(binary.BigEndian.Uint16(message))
		if len(message) < end {
			s.refused.Add(1)
			return
		}
		s.takeEvent(message[lengthBytes:end])
		message = message[end:]
	}
}

// Report says what the client dropped or had to refuse.
func (s *subscriber) Report() (facts string, err error) {
	dropped, err := s.sub.Dropped()
	if dropped > 0 {
		err = errors.Join(err, fmt.Errorf("nats: the client dropped %d messages", dropped))
	}
	if n := s.refused.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("nats: %d events did not verify", n))
	}
	return "", err
}

// Close ends the connection.
func (s *subscriber) Close() error {
	s.conn.Close()
	return nil
}
