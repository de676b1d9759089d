package redisbus

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// A link is a subscription, and what is used to publish while it lasts. When it breaks it is replaced
// as a whole, so both ends are at the server that was found fit for it.
type link struct {
	provider *Provider
	env      provider.Env
	server   string // its address, for people
	prefix   prefix
	client   rueidis.Client
	owned    bool // client is closed with the link

	ctx    context.Context // ends with the link; connections end with it
	cancel context.CancelFunc

	dedicated rueidis.DedicatedClient
	lost      <-chan error    // receives why the subscription ended
	channels  map[string]bool // subscribed to; of connect, and then of Wait alone

	readers sync.WaitGroup
	reading chan error // receives why streams can be read no longer; nil without Config.Keep
}

// connect makes a link that is subscribed. Where several addresses are known, each is tried once; the next call begins with the next.
func (p *Provider) connect(ctx context.Context, env provider.Env) (*link, error) {
	env.ReceiveBuffer(receiveBufferBytes)
	l, err := p.try(ctx, env)
	for range p.source.others() {
		if err == nil || ctx.Err() != nil {
			break
		}
		l, err = p.try(ctx, env)
	}
	return l, err
}

// try makes a link to one address.
func (p *Provider) try(ctx context.Context, env provider.Env) (*link, error) {
	l := &link{provider: p, env: env, prefix: newPrefix(), channels: make(map[string]bool)}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, l.cancel)
	err := p.open(l)
	if err == nil {
		err = p.subscribe(l)
	}
	if stopped := stop(); !stopped { // what failed failed because the time is over
		err = explain(connecting, l.server, p.cfg.Prefix, context.Cause(ctx))
	}
	if err != nil {
		l.Close(ctx)
		return nil, err
	}
	env.Logger.LogAttrs(ctx, slog.LevelInfo, "subscribed", slog.String(keyServer, l.server),
		slog.String(keyChannel, p.toAll(env.Site)), slog.String(keyFrom, l.prefix.String()))
	return l, nil
}

// open gives l its client.
func (p *Provider) open(l *link) error {
	if p.cfg.Client != nil {
		l.client, l.server = p.cfg.Client, "the application's client"
		return nil
	}
	o := p.source.options[p.turn%len(p.source.options)]
	p.turn++ // the next one, should this one fail
	o.DialCtxFn = l.dialWith(o.DialCtxFn)
	l.server = strings.Join(o.InitAddress, ", ")
	if o.Sentinel.MasterSet != "" {
		l.server = fmt.Sprintf("primary %q of the Sentinels %s", o.Sentinel.MasterSet, l.server)
	}
	client, err := rueidis.NewClient(o)
	if client != nil {
		l.client, l.owned = client, true
	}
	if err != nil {
		return explain(connecting, l.server, p.cfg.Prefix, err)
	}
	return nil
}

// dialFunc is how the client library asks for a connection.
type dialFunc = func(ctx context.Context, address string, d *net.Dialer, cfg *tls.Config) (net.Conn, error)

// dialWith returns a dialFunc whose connections end with l. other, if not nil, dials.
func (l *link) dialWith(other dialFunc) dialFunc {
	return func(ctx context.Context, address string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(l.ctx, cancel)()
		var c net.Conn
		var err error
		switch {
		case other != nil:
			c, err = other(ctx, address, d, cfg)
		case cfg != nil:
			cfg = cfg.Clone()
			cfg.ServerName = hostOf(address) // the library knows that of the first address only
			c, err = (&tls.Dialer{NetDialer: d, Config: cfg}).DialContext(ctx, "tcp", address)
		default:
			c, err = d.DialContext(ctx, "tcp", address)
		}
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

// subscribe makes l hear what others send, and makes sure that l may publish.
func (p *Provider) subscribe(l *link) error {
	l.dedicated, _ = l.client.Dedicate()
	if err := l.check(p.cfg.Prefix); err != nil {
		return err
	}
	p.echo.use(l.prefix, time.Now(), p.remember())
	l.lost = l.dedicated.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage:      func(m rueidis.PubSubMessage) { p.arrived(l, m.Message) },
		OnSubscription: func(rueidis.PubSubSubscription) {},
	})
	if err := p.hear(l, l.env.Sites); err != nil {
		return err
	}
	if err := l.client.Do(l.ctx, p.probe(l)).Error(); err != nil {
		return explain(publishing, l.server, p.cfg.Prefix, err)
	}
	if err := p.join(l); err != nil || p.cfg.Keep == 0 {
		return err
	}
	return p.read(l)
}

// check refuses a server that would take messages and carry them nowhere.
func (l *link) check(channelPrefix string) error {
	answer, err := l.dedicated.Do(l.ctx, l.dedicated.B().Arbitrary("HELLO").Build()).AsMap()
	if err != nil {
		if _, ok := rueidis.IsRedisErr(err); ok {
			return nil // older than the command
		}
		return explain(connecting, l.server, channelPrefix, err)
	}
	said := func(key string) string {
		m := answer[key]
		s, _ := m.ToString()
		return s
	}
	switch mode, role := said("mode"), said("role"); {
	case mode == "sentinel":
		return fmt.Errorf("redis: connect to %s: it is a Sentinel; add ?master_set=NAME to the URL, with the name it knows the primary by", l.server)
	case mode == "cluster" && l.provider.cfg.Keep > 0:
		return fmt.Errorf("redis: connect to %s: it belongs to a Cluster, where Keep cannot be used; leave Keep at 0, or give the address of a server that is none", l.server)
	case mode != "cluster" && role != "" && role != "master":
		return fmt.Errorf("redis: connect to %s: it is a read-only replica, and what is published there the others do not hear; give the primary's address, or those of its Sentinels and ?master_set=NAME", l.server)
	}
	return nil
}

// join subscribes to what SetMembers has told of: the channel of this instance alone, and that of every site whose
// instances have turned up. Channels of earlier streams and sites remain; nobody uses them.
func (p *Provider) join(l *link) error {
	m := p.members.Load()
	if m == nil {
		return nil
	}
	if err := p.listen(l, []string{p.toOne(l.env.Site, m.self)}); err != nil {
		return err
	}
	return p.hear(l, slices.Collect(maps.Values(m.foreign)))
}

// hear makes l hear what is sent to all of these sites.
func (p *Provider) hear(l *link, sites []site.ID) error {
	if p.cfg.Keep > 0 {
		return p.find(l, sites)
	}
	channels := make([]string, 0, len(sites))
	for _, s := range sites {
		channels = append(channels, p.toAll(s))
	}
	return p.listen(l, channels)
}

// listen subscribes to channels, but for those that are subscribed already.
func (p *Provider) listen(l *link, channels []string) error {
	missing := make([]string, 0, len(channels))
	for _, c := range channels {
		if !l.channels[c] {
			l.channels[c] = true
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// The server subscribes to all channels of a command, or to none, before it serves anybody else.
	cmd := l.dedicated.B().Subscribe().Channel(missing...).Build()
	if err := l.dedicated.Do(l.ctx, cmd).Error(); err != nil {
		return explain(subscribing, l.server, p.cfg.Prefix, err)
	}
	return nil
}

// arrived takes a message.
func (p *Provider) arrived(l *link, message string) {
	from, frame, ok := parseMessage(message)
	if !ok || p.echo.is(from) {
		return
	}
	p.delivering.Lock()
	defer p.delivering.Unlock()
	l.env.Deliver(provider.Batch{Frames: [][]byte{frame}, From: from.String()})
}

// Wait implements [uplink.Link]. Meanwhile it subscribes to what is new.
func (l *link) Wait(ctx context.Context) error {
	for {
		select {
		case err := <-l.reading:
			return explain(staying, l.server, l.provider.cfg.Prefix, err)
		case err := <-l.lost:
			return explain(staying, l.server, l.provider.cfg.Prefix, err)
		case <-l.provider.changed:
			if err := l.provider.join(l); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close implements [uplink.Link].
func (l *link) Close(context.Context) {
	l.cancel()
	if l.dedicated != nil {
		l.dedicated.Close()
	}
	l.readers.Wait()
	if l.owned {
		l.client.Close()
	}
}
