//go:build linux

package postgres

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
)

// A subscriber receives events over a connection of its own. It implements system.Reporter.
type subscriber struct {
	conn    *pgconn.PgConn
	closing atomic.Bool   // the end of the connection is wanted
	ended   chan struct{} // closed when the goroutine that reads has ended
	failed  chan error    // has room for the first thing that went wrong
}

// subscribe returns when the server has executed LISTEN. It works on the protocol's own layer, where a
// notification is handed over at once instead of being queued first.
func subscribe(ctx context.Context, address string, deliver func(event []byte)) (*subscriber, error) {
	config, err := pgconn.ParseConfig(dsn(address))
	if err != nil {
		return nil, err
	}
	s := &subscriber{ended: make(chan struct{}), failed: make(chan error, 1)}
	var event, text []byte
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) {
		text = append(text[:0], n.Payload...)
		var err error
		if event, err = base64.RawStdEncoding.AppendDecode(event[:0], text); err != nil {
			s.fail(fmt.Errorf("postgres: payload: %w", err))
			return
		}
		deliver(event)
	}
	if s.conn, err = pgconn.ConnectConfig(ctx, config); err != nil {
		return nil, err
	}
	if err := s.conn.Exec(ctx, "LISTEN "+channel).Close(); err != nil {
		return nil, errors.Join(err, s.conn.Close(ctx))
	}
	go func() {
		defer close(s.ended)
		var err error
		for err == nil {
			err = s.conn.WaitForNotification(context.Background()) // one that can be cancelled costs a goroutine each time
		}
		if !s.closing.Load() {
			s.fail(fmt.Errorf("postgres: the connection ended: %w", err))
		}
	}()
	return s, nil
}

func (s *subscriber) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// Report says what went wrong while it received.
func (s *subscriber) Report() (facts string, err error) {
	select {
	case err = <-s.failed:
	default:
	}
	return "", err
}

// Close ends the connection.
func (s *subscriber) Close() error {
	s.closing.Store(true)
	err := s.conn.Conn().Close()
	<-s.ended
	return err
}
