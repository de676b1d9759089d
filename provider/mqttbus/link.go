package mqttbus

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"

	"github.com/carillon-go/carillon/provider"
)

const (
	// keepAlive is how often the server is asked whether it is there, at least; twice as long without its answer ends a connection.
	keepAlive = 5 * time.Second

	// answerWithin bounds one answer of the server, where the caller's ctx does not.
	answerWithin = 10 * time.Second

	// readingWithin is how long a new session may wait for its own message, before the right to read counts as missing.
	readingWithin = 5 * time.Second

	// receiveMaximum is how many messages the server may have sent that were not acknowledged.
	receiveMaximum = 256

	// maxPacketBytes is what a packet may have: the longest frame, the longest topic, and what stands between.
	maxPacketBytes = maxFrameBytes + 1024
)

// A link is a connection with which this instance is subscribed. When it breaks it is replaced as a whole; the session at the server
// outlives it.
type link struct {
	p      *Provider
	env    provider.Env
	server endpoint

	conn   *conn
	client *paho.Client
	flight *inFlight
	began  time.Time
	ended  chan error // receives why the connection ended

	mark  []byte // is in the message that tries the rights
	heard chan struct{}
	once  sync.Once // closes heard
}

// connect makes a link, at the first of the endpoints that serves.
func (p *Provider) connect(ctx context.Context, env provider.Env) (*link, error) {
	env.ReceiveBuffer(p.cfg.receiveBytes)
	var l *link
	var err error
	for range p.cfg.endpoints {
		e := p.cfg.endpoints[p.turn%len(p.cfg.endpoints)]
		if l, err = p.connectTo(ctx, env, e); err == nil {
			p.settled = true
			return l, nil
		}
		p.turn++
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// connectTo makes a link to one endpoint.
func (p *Provider) connectTo(ctx context.Context, env provider.Env, e endpoint) (*link, error) {
	if p.clientID == "" {
		p.clientID = newClientID()
	}
	l := &link{p: p, env: env, server: e, began: time.Now(), ended: make(chan error, 1), mark: make([]byte, 16), heard: make(chan struct{})}
	l.flight = newInFlight(l.end)
	rand.Read(l.mark)
	hello, err := l.hello(ctx)
	if err != nil {
		return nil, l.explain(connecting, err)
	}
	if err := l.dial(ctx); err != nil {
		return nil, l.explain(connecting, err)
	}
	l.client = paho.NewClient(paho.ClientConfig{
		Conn:               l.conn,
		Session:            l.flight,
		AuthHandler:        noAuth{},
		PingHandler:        &pinger{paho.NewDefaultPinger(), p.keepAlive, l.end},
		PacketTimeout:      answerWithin,
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){l.arrived},
		OnClientError:      l.end,
		OnServerDisconnect: func(*paho.Disconnect) {}, // flight has told
	})
	answer, err := l.client.Connect(ctx, hello)
	if answer != nil && answer.ReasonCode != packets.ConnackSuccess {
		if err == nil { // paho takes what is below 0x80 for a success
			l.leave(false)
		}
		return nil, l.explain(connecting, &refusal{answer.ReasonCode, answer.Properties.ReasonString})
	}
	if err != nil {
		return nil, l.explain(connecting, l.why(ctx, err))
	}
	if err := l.settle(ctx, answer); err != nil {
		if errors.Is(err, errLost) || errors.Is(err, paho.ErrConnectionLost) || errors.Is(err, session.ErrNoConnection) {
			select {
			case why := <-l.ended:
				err = l.explain(connecting, why)
			case <-ctx.Done():
			}
		}
		l.leave(p.settled) // then what waits in the session is worth keeping
		return nil, err
	}
	return l, nil
}

// why returns the error of ctx if it has ended, since that is what interrupted, and else err.
func (l *link) why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// hello returns the packet that opens a session, or resumes it.
func (l *link) hello(ctx context.Context) (*paho.Connect, error) {
	p, e := l.p, l.server
	if p.cfg.credentials != nil {
		var err error
		if e.user, e.password, err = p.cfg.credentials(ctx); err != nil {
			return nil, fmt.Errorf("no credentials: %w", err)
		}
		e.named = true
	}
	return &paho.Connect{
		ClientID: p.clientID, CleanStart: !p.settled,
		UsernameFlag: e.named, Username: e.user,
		PasswordFlag: e.password != "", Password: []byte(e.password),
		KeepAlive: uint16(max(1, math.Ceil(p.keepAlive.Seconds()))),
		Properties: &paho.ConnectProperties{
			SessionExpiryInterval: new(p.cfg.expirySeconds),
			ReceiveMaximum:        new(uint16(receiveMaximum)),
			MaximumPacketSize:     new(uint32(maxPacketBytes)),
			RequestProblemInfo:    true,
		},
	}, nil
}

// dial makes the connection.
func (l *link) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	under, err := l.p.cfg.dial(ctx, l.server.address)
	if err != nil {
		return err
	}
	c := under
	if l.server.tls {
		cfg := l.p.cfg.tls.Clone() // nil is fine
		if cfg == nil {
			cfg = new(tls.Config)
		}
		if cfg.ServerName == "" {
			cfg.ServerName = l.server.host
		}
		t := tls.Client(under, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			under.Close()
			return err
		}
		c = t
	}
	l.conn = newConn(c, under, maxPacketBytes)
	return nil
}

// publish sends frames to a topic.
func (l *link) publish(ctx context.Context, topic string, frames [][]byte, mark []byte) (unheard int, err error) {
	unheard, err = l.flight.publish(ctx, topic, frames, mark)
	var r *refusal
	switch {
	case err == nil:
		return unheard, nil
	case errors.Is(err, errUnanswered):
		l.end(err)
	case errors.As(err, &r) && r.code == packets.DisconnectPacketTooLarge:
		return 0, fmt.Errorf("%w: %w", l.explain(publishing, err), provider.ErrFrameTooLarge)
	}
	return 0, l.explain(publishing, err)
}

// arrived takes a message. paho calls it for one after the other.
func (l *link) arrived(m paho.PublishReceived) (bool, error) {
	taken := func() {}
	if m.Packet.QoS > 0 {
		taken = l.flight.receive(m.Packet.PacketID)
	}
	if len(m.Packet.Payload) == 0 { // somebody tries his rights
		if string(m.Packet.Properties.CorrelationData) == string(l.mark) {
			l.once.Do(func() { close(l.heard) })
		}
		taken()
		return true, nil
	}
	l.env.Deliver(provider.Batch{Frames: [][]byte{m.Packet.Payload}, From: m.Packet.Topic, Done: taken})
	return true, nil
}

// end remembers why the connection ended. It is told by who knows first; what paho says later is of no interest.
func (l *link) end(err error) {
	select {
	case l.ended <- err:
	default:
	}
}

// Wait implements [uplink.Link].
func (l *link) Wait(ctx context.Context) error {
	for {
		select {
		case err := <-l.ended:
			l.mayRename(err)
			return l.explain(staying, err)
		case <-l.p.changed:
			if err := l.follow(ctx, false); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// mayRename sees to it that another name is taken for the next connection, if somebody else has this one, such as a copy of this process. Otherwise the two
// would drive each other out for ever. Mosquitto gives no reason when it ends the connection of the one that was there first: so several that are
// ended without a word soon after they were made count as much.
func (l *link) mayRename(err error) {
	const (
		soon = 10 * time.Second
		most = 3
	)
	p := l.p
	var r *refusal
	switch {
	case errors.As(err, &r) && r.code == packets.DisconnectSessionTakenOver:
		p.cutShort = most
	case isClosed(err) && time.Since(l.began) < soon:
		p.cutShort++
	default:
		p.cutShort = 0
	}
	if p.cutShort >= most {
		p.clientID, p.settled, p.cutShort = "", false, 0
	}
}

// Close implements [uplink.Link].
func (l *link) Close(ctx context.Context) { l.leave(ctx.Err() != nil) }

// leave ends the connection, and the session as well unless it is to be kept.
func (l *link) leave(keepSession bool) {
	bye := new(paho.Disconnect)
	if !keepSession {
		bye.Properties = &paho.DisconnectProperties{SessionExpiryInterval: new(uint32(0))}
	}
	l.client.Disconnect(bye) // an error says that the connection is broken already
}
