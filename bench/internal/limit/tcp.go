//go:build linux

package limit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/carillon-go/carillon/bench/internal/system"
)

type tcpOptions struct {
	write  int           // bytes that are collected for one write
	batch  int           // see packer
	tagger func() tagger // nil: no tags
}

func (o tcpOptions) newTagger() tagger {
	if o.tagger == nil {
		return nil
	}
	return o.tagger()
}

func overTCP(name, title, note string, o tcpOptions) system.System {
	return system.System{
		Name: name, Title: title, Note: note,
		Publish: func(_ context.Context, s system.Spec, _ string) (system.Publisher, error) {
			return publishTCP(s, o)
		},
		Subscribe: func(ctx context.Context, _ system.Spec, address string, deliver func([]byte)) (io.Closer, error) {
			return subscribeTCP(ctx, address, o, deliver)
		},
	}
}

// A tcpPublisher writes to one subscriber after the other.
type tcpPublisher struct {
	*packer
	limit    int
	listener *net.TCPListener
	want     int
	conns    []net.Conn
}

func publishTCP(s system.Spec, o tcpOptions) (*tcpPublisher, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	return &tcpPublisher{packer: newPacker(o.batch, o.newTagger(), o.write), limit: o.write, listener: l, want: s.Subscribers}, nil
}

// Address implements system.Publisher.
func (p *tcpPublisher) Address() string { return p.listener.Addr().String() }

// Ready implements system.Publisher.
func (p *tcpPublisher) Ready(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok {
		p.listener.SetDeadline(end)
	}
	for len(p.conns) < p.want {
		c, err := p.listener.Accept()
		if err != nil {
			return fmt.Errorf("%d of %d subscribers are connected: %w", len(p.conns), p.want, err)
		}
		p.conns = append(p.conns, c)
	}
	return nil
}

// Publish implements system.Publisher.
func (p *tcpPublisher) Publish(event []byte) error {
	if len(p.buf)+p.need(len(event)) > p.limit {
		if err := p.Flush(); err != nil {
			return err
		}
	}
	p.add(event)
	return nil
}

// Flush implements system.Publisher.
func (p *tcpPublisher) Flush() error {
	data := p.take()
	if len(data) == 0 {
		return nil
	}
	for _, c := range p.conns {
		if _, err := c.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// Close implements system.Publisher.
func (p *tcpPublisher) Close() error {
	err := p.listener.Close()
	for _, c := range p.conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

// A reader hands on what it reads until it is closed.
type reader struct {
	conn  io.Closer
	ended chan error // what reading ended with
}

// Close implements io.Closer.
func (r *reader) Close() error {
	err := r.conn.Close()
	if failed := <-r.ended; failed != nil && !errors.Is(failed, net.ErrClosed) && !errors.Is(failed, io.EOF) {
		err = failed
	}
	return err
}

func subscribeTCP(ctx context.Context, address string, o tcpOptions, deliver func([]byte)) (io.Closer, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp4", address)
	if err != nil {
		return nil, err
	}
	r := &reader{conn, make(chan error, 1)}
	go func() { r.ended <- read(conn, o.batch, o.newTagger(), deliver) }()
	return r, nil
}

// read takes as much at once as there is.
func read(conn io.Reader, batch int, t tagger, deliver func([]byte)) error {
	buf := make([]byte, 4*writeBytes)
	for have := 0; ; {
		n, err := conn.Read(buf[have:])
		if err != nil {
			return err
		}
		have += n
		taken, err := unpack(buf[:have], batch, t, deliver)
		if err != nil {
			return err
		}
		if taken == 0 && have == len(buf) {
			return errPacked
		}
		have = copy(buf, buf[taken:have])
	}
}
