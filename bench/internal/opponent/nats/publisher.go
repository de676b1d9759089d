//go:build linux

package nats

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/nats-io/nats.go"
)

const lengthBytes = 2 // before each event of a packed message

// A publisher sends events. It implements system.Publisher.
type publisher struct {
	conn   *nats.Conn
	packed bool
	mac    *mac   // nil: events go without
	buf    []byte // the message in the making; what is sent has been copied
}

func newPublisher(address string, v variant) (*publisher, error) {
	conn, err := connect(address)
	if err != nil {
		return nil, err
	}
	p := &publisher{conn: conn, packed: v.packed, buf: make([]byte, 0, packBytes)}
	if v.sealed {
		p.mac = newMAC()
	}
	return p, nil
}

// Address returns "": subscribers connect to the server.
func (p *publisher) Address() string { return "" }

// Ready returns at once: a subscriber waits for the server's word that it is subscribed.
func (p *publisher) Ready(context.Context) error { return nil }

// Publish sends the event or puts it into the message that is being packed.
func (p *publisher) Publish(event []byte) error {
	if p.packed {
		return p.pack(event)
	}
	if p.mac == nil {
		return p.conn.Publish(subject, event)
	}
	p.buf = p.mac.appendTag(append(p.buf[:0], event...), event)
	return p.conn.Publish(subject, p.buf)
}

func (p *publisher) pack(event []byte) error {
	size := len(event)
	if p.mac != nil {
		size += tagLen
	}
	if size > math.MaxUint16 {
		return fmt.Errorf("nats: an event of %d bytes does not fit the length field of packed messages", len(event))
	}
	if len(p.buf)+lengthBytes+size > packBytes {
		if err := p.Flush(); err != nil {
			return err
		}
	}
	p.buf = binary.BigEndian.AppendUint16(p.buf, uint16(size))
	p.buf = append(p.buf, event...)
	if p.mac != nil {
		p.buf = p.mac.appendTag(p.buf, event)
	}
	return nil
}

// Flush hands a message that is being packed to the client, whose own goroutine writes at once what was published.
func (p *publisher) Flush() error {
	if !p.packed || len(p.buf) == 0 {
		return nil
	}
	err := p.conn.Publish(subject, p.buf)
	p.buf = p.buf[:0]
	return err
}

// Close sends what waits and ends the connection.
func (p *publisher) Close() error {
	defer p.conn.Close()
	if err := p.Flush(); err != nil {
		return err
	}
	return p.conn.Flush()
}
