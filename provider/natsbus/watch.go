package natsbus

import (
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// mendPause lies between two attempts to end a trouble that lasts although there is a connection, such as a missing right.
const mendPause = time.Second

// watch follows the connection until Close: what was lost or refused is noticed and, when all is well again, told.
func (p *Provider) watch() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var next, since time.Time // no attempt before next; in trouble since
	var told *trouble         // to the Broker
	var ended *connection     // nothing more is to be heard of its status
	for failed := 0; ; {
		c := p.conn.Load()
		status := c.status
		if c == ended {
			status = nil
		}
		select {
		case <-p.ctx.Done():
			return
		case s, ok := <-status:
			if !ok {
				ended = c
			}
			// Only the application's connection is lost without a word from the dialer before.
			if s != nats.CONNECTED && !c.own() {
				p.fail(errLost)
			}
		case <-p.wake:
		case <-timer.C:
		}
		p.follow()
		t := p.trouble.Load()
		if t == nil {
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		if t != told {
			told = t
			p.env.Disconnected(t.err)
		}
		if wait := time.Until(next); wait > 0 {
			timer.Reset(wait)
			continue
		}
		reopen := c.own() && c.IsClosed()
		if !reopen && !c.IsConnected() {
			continue // its status will change
		}
		if !(reopen && p.reopen()) && !(!reopen && p.mend(p.ctx, t)) {
			failed++
			pause := mendPause
			if reopen {
				pause = retryAfter(failed)
			}
			next = time.Now().Add(pause)
			timer.Reset(pause)
			continue
		}
		if p.ctx.Err() != nil {
			return
		}
		p.env.Logger.LogAttrs(p.ctx, slog.LevelInfo, "subscribed again",
			slog.String("server", p.conn.Load().ConnectedUrlRedacted()), slog.Duration("after", time.Since(since)))
		since, told, failed = time.Time{}, nil, 0
		p.env.Reconnected()
	}
}

// reopen replaces our own connection when nats.go has given it up for good, as it does when the server complains about something that
// nats.go does not know. It reports whether all is well.
func (p *Provider) reopen() bool {
	p.shut()
	t := p.fail(errLost)
	if err := p.open(p.ctx); err != nil {
		if p.ctx.Err() == nil {
			p.fail(err)
		}
		return false
	}
	return p.trouble.CompareAndSwap(t, nil)
}
