package mqttbus

import (
	"bufio"
	"fmt"
	"io"

	"github.com/eclipse/paho.golang/packets"
)

// A guard passes on what a server sends, packet by packet, and ends at what paho's decoder must not see: a length without
// bound, for which it would ask memory before anything has come, and what this client has no use for. Reading
// from it after an error gives the same error.
type guard struct {
	from  *bufio.Reader
	limit int // bytes of a packet, without its first two to five

	header  [5]byte
	pending []byte // of header, to be passed on before anything else
	left    int    // bytes of the packet that were not read yet
	err     error
}

// Read implements [io.Reader].
func (g *guard) Read(b []byte) (int, error) {
	if len(g.pending) == 0 && g.left == 0 && g.err == nil {
		g.err = g.next()
	}
	switch {
	case g.err != nil:
		return 0, g.err
	case len(g.pending) > 0:
		n := copy(b, g.pending)
		g.pending = g.pending[n:]
		return n, nil
	}
	n, err := g.from.Read(b[:min(len(b), g.left)])
	g.left -= n
	if n == 0 {
		g.err = err
	}
	return n, g.err
}

// next takes the beginning of a packet.
func (g *guard) next() error {
	first, err := g.from.ReadByte()
	if err != nil {
		return err
	}
	kind, flags := first>>4, first&0xf
	switch kind {
	case packets.PUBLISH:
		if qos := flags >> 1 & 3; qos > 1 {
			return fmt.Errorf("%w: a message with QoS %d", errStrange, qos)
		}
	case packets.CONNACK, packets.PUBACK, packets.SUBACK, packets.UNSUBACK, packets.PINGRESP, packets.DISCONNECT:
		if flags != 0 {
			return fmt.Errorf("%w: a packet that begins with 0x%02x", errStrange, first)
		}
	default:
		return fmt.Errorf("%w: a packet that begins with 0x%02x", errStrange, first)
	}
	header := append(g.header[:0], first)
	length := 0
	for shift := 0; ; shift += 7 {
		if shift > 21 {
			return fmt.Errorf("%w: a length of more than four bytes", errStrange)
		}
		b, err := g.from.ReadByte()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		header = append(header, b)
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	if kind == packets.CONNACK && length < 3 {
		return errOld // MQTT 5 has three bytes at least
	}
	if length > g.limit {
		return fmt.Errorf("%w: a packet of %d bytes, though it was told that %d are the most", errStrange, length, g.limit)
	}
	g.pending, g.left = header, length
	return nil
}
