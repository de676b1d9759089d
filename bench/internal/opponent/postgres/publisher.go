//go:build linux

package postgres

import (
	"context"
	"encoding/base64"

	"github.com/jackc/pgx/v5"
)

const (
	perTransaction = 64

	// One statement is one transaction: one round trip and one commit for all of its events, in their order.
	notify = "SELECT pg_notify('" + channel + "', payload) FROM unnest($1::text[]) AS payload"
)

// A publisher sends events, a transaction at a time. It implements system.Publisher.
type publisher struct {
	conn     *pgx.Conn
	payloads []string // of the transaction in the making
}

func newPublisher(ctx context.Context, address string) (*publisher, error) {
	conn, err := pgx.Connect(ctx, dsn(address))
	if err != nil {
		return nil, err
	}
	return &publisher{conn: conn}, nil
}

// Address returns "": subscribers connect to the server.
func (p *publisher) Address() string { return "" }

// Ready returns at once: a subscriber listens when Subscribe returns.
func (p *publisher) Ready(context.Context) error { return nil }

// Publish adds an event to the transaction, which is committed when it is full.
func (p *publisher) Publish(event []byte) error {
	p.payloads = append(p.payloads, base64.RawStdEncoding.EncodeToString(event))
	if len(p.payloads) < perTransaction {
		return nil
	}
	return p.Flush()
}

// Flush commits what was added.
func (p *publisher) Flush() error {
	if len(p.payloads) == 0 {
		return nil
	}
	_, err := p.conn.Exec(context.Background(), notify, p.payloads)
	p.payloads = p.payloads[:0]
	return err
}

// Close commits what was added and ends the connection.
func (p *publisher) Close() error {
	err := p.Flush()
	if closing := p.conn.Close(context.Background()); err == nil {
		err = closing
	}
	return err
}
