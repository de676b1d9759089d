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
	var next time.Time // no attempt before it
	var since time.Time
	for {
		select {
		case <-p.ctx.Done():
			return
		case s, ok := <-p.status:
			// Only the application's connection is lost without a word from the dialer before.
			if !ok {
				p.status = nil
			} else if s != nats.CONNECTED && p.brought != nil {
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
			p.env.Logger.LogAttrs(p.ctx, slog.LevelDebug, "frames cannot be sent", slog.String("provider", name), slog.String("error", t.err.Error()))
		}
		if wait := time.Until(next); wait > 0 {
			timer.Reset(wait)
			continue
		}
		if !p.conn.IsConnected() {
			continue // its status will change
		}
		if !p.mend(p.ctx, t) {
			next = time.Now().Add(mendPause)
			timer.Reset(mendPause)
			continue
		}
		if p.ctx.Err() != nil {
			return
		}
		p.env.Logger.LogAttrs(p.ctx, slog.LevelInfo, "subscribed again", slog.String("provider", name),
			slog.String("server", p.conn.ConnectedUrlRedacted()), slog.Duration("after", time.Since(since)))
		since = time.Time{}
		p.env.Reconnected()
	}
}
