package pgbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/carillon-go/carillon/provider"
)

// A link is a connection that listens, and a pool to notify with. It is replaced as a whole, so that both ends are where a notification was seen to come through.
type link struct {
	p      *Provider
	env    provider.Env
	tag    tag
	before *tag // of the link before; nil: there was none

	ctx    context.Context // ends with the link; connections of our own end with it
	cancel context.CancelFunc

	tasks sync.WaitGroup     // of the sweeper
	stop  context.CancelFunc // of the sweeper; nil before there is one

	conn     *pgx.Conn       // listens; used by connect, then by Wait, then by Close
	channels map[string]bool // listened to; as conn
	heard    uint32          // number of the last payload of our own that came back; as conn

	pool  *pgxpool.Pool
	owned bool // pool is closed with the link
	table table

	packing sync.Mutex
	number  uint32 // of the last payload; guarded by packing
	row     uint64 // of the last row; guarded by packing

	// sent is the number of the last payload that is committed and must come back.
	sent atomic.Uint32
}

// connect makes a link that listens, and has heard itself. ctx bounds this alone.
func (p *Provider) connect(ctx context.Context, env provider.Env) (*link, error) {
	l := &link{p: p, env: env, tag: newTag(), before: p.last, channels: make(map[string]bool)}
	l.table = table{link: l, name: p.cfg.table}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := l.open(ctx); err != nil {
		ended, cancel := context.WithCancel(context.Background())
		cancel() // nobody waits for a goodbye
		l.Close(ended)
		return nil, err
	}
	p.last = &l.tag
	sweeping, stop := context.WithCancel(l.ctx)
	l.stop = stop
	l.tasks.Go(func() { l.table.sweepUntil(sweeping) })
	return l, nil
}

// open makes the connections of l and tries them out.
func (l *link) open(ctx context.Context) error {
	s := &l.p.cfg
	if err := l.dial(ctx); err != nil {
		return s.explain(connecting, err)
	}
	if _, err := l.conn.Exec(ctx, fmt.Sprintf("SET tcp_user_timeout = %d", l.p.times.stall.Milliseconds())); err != nil {
		return s.explain(connecting, err)
	}
	if l.pool = s.brought; l.pool == nil {
		if err := l.makePool(ctx); err != nil {
			return s.explain(connecting, err)
		}
	}
	if err := l.follow(ctx); err != nil {
		return err
	}
	if err := l.hearItself(ctx); err != nil {
		return err
	}
	if s.maxFrameBytes > inlineBytes {
		return l.table.ensure(ctx)
	}
	return nil
}

// dial makes the connection that listens.
func (l *link) dial(ctx context.Context) error {
	s := &l.p.cfg
	c := s.listen.Copy()
	if s.beforeConnect != nil {
		if err := s.beforeConnect(ctx, c); err != nil {
			return err
		}
	}
	c.DialFunc = l.tied(c.DialFunc)
	conn, err := pgx.ConnectConfig(ctx, c)
	l.conn = conn
	return err
}

// makePool makes a pool of our own.
func (l *link) makePool(ctx context.Context) error {
	c := l.p.cfg.own.Copy()
	c.ConnConfig.DialFunc = l.tied(c.ConnConfig.DialFunc)
	pool, err := pgxpool.NewWithConfig(ctx, c)
	l.pool, l.owned = pool, err == nil
	return err
}

// tied returns dial with connections that end with l, so that nobody waits for a server that is silent when l is closed.
func (l *link) tied(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(l.ctx, cancel)()
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &tiedConn{c, context.AfterFunc(l.ctx, func() { c.Close() })}, nil
	}
}

// A tiedConn is closed with its link.
type tiedConn struct {
	net.Conn
	untie func() bool
}

// Close implements [net.Conn].
func (c *tiedConn) Close() error {
	c.untie()
	return c.Conn.Close()
}

// follow listens to the channels that are wanted now, and no longer to others.
func (l *link) follow(ctx context.Context) error {
	s := &l.p.cfg
	wanted := make(map[string]bool)
	for _, of := range l.env.Sites {
		wanted[s.toAll(of)] = true
	}
	if m := l.p.members.Load(); m != nil {
		wanted[s.toOne(l.env.Site, m.self)] = true
		for _, of := range m.sites {
			wanted[s.toAll(of)] = true
		}
	}
	var statements []string
	for c := range wanted {
		if !l.channels[c] {
			statements = append(statements, "LISTEN "+pgx.Identifier{c}.Sanitize())
		}
	}
	for c := range l.channels {
		if !wanted[c] {
			statements = append(statements, "UNLISTEN "+pgx.Identifier{c}.Sanitize())
		}
	}
	if len(statements) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.p.times.answer)
	defer cancel()
	// Without arguments they go in one message, and are one transaction.
	if _, err := l.conn.Exec(ctx, strings.Join(statements, "; ")); err != nil {
		return s.explain(listening, err)
	}
	l.channels = wanted
	return nil
}

// hearItself makes sure that what is notified through the pool arrives where l listens.
func (l *link) hearItself(ctx context.Context) error {
	h := l.nextHead()
	w := payloadWriter{next: func() head { return h }}
	w.begin()
	w.flush()
	if err := l.notify(ctx, l.p.cfg.toAll(l.env.Site), w.payloads, nil, nil); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, l.p.times.hear)
	defer cancel()
	for l.heard != h.number {
		n, err := l.conn.WaitForNotification(wait)
		switch {
		case err == nil:
			l.take(ctx, n)
		case ctx.Err() != nil:
			return ctx.Err()
		case wait.Err() != nil && !l.conn.IsClosed():
			return l.p.cfg.deaf("what this instance notifies does not come back to it")
		default:
			return l.p.cfg.explain(connecting, err)
		}
	}
	return nil
}

// Wait implements uplink.Link. It delivers what arrives.
func (l *link) Wait(ctx context.Context) error {
	sent := l.sent.Load()
	for {
		wait, done := l.p.changed.wait(ctx, l.p.times.quiet)
		l.p.changed.taken()
		if err := l.follow(ctx); err != nil {
			done()
			return err
		}
		heard, err := l.listen(ctx, wait)
		silent := errors.Is(wait.Err(), context.DeadlineExceeded) && !heard
		done()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		case !silent:
			continue
		}
		if err := l.ping(ctx); err != nil {
			return err
		}
		if missing := sent - l.heard; missing != 0 && missing < 1<<31 {
			return l.p.cfg.deaf("what this instance notifies comes back to it no longer")
		}
		sent = l.sent.Load() // what came back needs a moment, so it is looked at next time
	}
}

// listen delivers what arrives until wait ends or the connection does, and reports whether anything did.
func (l *link) listen(ctx, wait context.Context) (heard bool, err error) {
	for {
		n, err := l.conn.WaitForNotification(wait)
		if err != nil {
			if wait.Err() != nil && !l.conn.IsClosed() {
				return heard, nil
			}
			return heard, l.p.cfg.explain(staying, err)
		}
		heard = true
		// Who sent this may have heard of our stream, and send to it when this is delivered.
		if l.p.changed.taken() {
			if err := l.follow(ctx); err != nil {
				return heard, err
			}
		}
		l.take(ctx, n)
	}
}

// ping makes sure that the connection is alive.
func (l *link) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.p.times.quiet)
	defer cancel()
	if err := l.conn.Ping(ctx); err != nil {
		return l.p.cfg.explain(staying, err)
	}
	return nil
}

// Close implements uplink.Link.
func (l *link) Close(ctx context.Context) {
	defer l.tasks.Wait()
	defer l.cancel()
	defer context.AfterFunc(ctx, l.cancel)()
	if l.stop != nil {
		l.stop()
	}
	if l.conn != nil {
		l.conn.Close(ctx)
		if ctx.Err() != nil {
			l.cancel()
		}
		// The library ends a broken connection in a goroutine of its own.
		select {
		case <-l.conn.PgConn().CleanupDone():
		case <-ctx.Done():
			l.cancel()
			<-l.conn.PgConn().CleanupDone()
		}
	}
	if l.owned {
		l.pool.Close()
	}
}
