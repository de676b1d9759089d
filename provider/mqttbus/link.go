package mqttbus

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
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

// why returns the reason behind err: ctx, or what the guard found.
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

// settle subscribes, and tries the rights that are needed.
func (l *link) settle(ctx context.Context, answer *paho.Connack) error {
	p, own := l.p, l.p.toAll(l.env.Site)
	if err := l.accepts(answer.Properties); err != nil {
		return err
	}
	if !answer.SessionPresent {
		p.settled, p.topics = false, make(map[string]bool)
		// With No Local nobody knows whether he may read: mosquitto confirms what it then does not carry. Nor does it
		// change a subscription that there is, so that one goes before No Local.
		if err := l.subscribe(ctx, []string{own}, false); err != nil {
			return err
		}
		if err := l.try(ctx, own); err != nil {
			return err
		}
		if err := l.read(ctx, own); err != nil {
			return err
		}
		if err := l.unsubscribe(ctx, []string{own}); err != nil {
			return err
		}
	}
	if err := l.follow(ctx, true); err != nil {
		return err
	}
	if answer.SessionPresent {
		return l.try(ctx, own)
	}
	return nil
}

// accepts reports what keeps this instance from working with a server that has these properties.
func (l *link) accepts(is *paho.ConnackProperties) error {
	if is.MaximumQoS != nil && *is.MaximumQoS < 1 {
		return l.trouble(connecting, "it carries messages with QoS 0 only, which may be lost anywhere", "allow QoS 1 there (mosquitto: max_qos)", nil)
	}
	needed := l.p.cfg.capabilities.MaxFrameBytes + l.overhead()
	if is.MaximumPacketSize != nil && *is.MaximumPacketSize < uint32(needed) {
		what := fmt.Sprintf("it takes packets of %d bytes, and frames here have up to %d", *is.MaximumPacketSize, l.p.cfg.capabilities.MaxFrameBytes)
		remedy := fmt.Sprintf("raise its limit to %d (mosquitto: max_packet_size)", needed)
		if fits := int(*is.MaximumPacketSize) - l.overhead(); fits >= minFrameBytes {
			remedy += fmt.Sprintf(", or set MaxFrameBytes to %d", fits)
		}
		return l.trouble(connecting, what, remedy, nil)
	}
	return nil
}

// overhead is what a message has beside its frame, at most.
func (l *link) overhead() int {
	const streamText = 20 + 1 + 16 // a stream at its longest
	return 5 + 2 + len(l.p.toAll(l.env.Site)) + len("to/") + streamText + 2 + 1
}

// wanted returns the topics that this instance listens to: those of the sites it accepts, of every further site whose instances have turned
// up, and its own, once it is known.
func (l *link) wanted(m *members) []string {
	var topics []string
	for _, s := range l.env.Sites {
		topics = append(topics, l.p.toAll(s))
	}
	if m != nil {
		topics = append(topics, l.p.toOne(l.env.Site, m.self))
		for _, s := range m.sites {
			topics = append(topics, l.p.toAll(s))
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// follow subscribes to what is wanted and was not yet, or to all of it again, and leaves what is wanted no more.
func (l *link) follow(ctx context.Context, again bool) error {
	p, m := l.p, l.p.members.Load()
	wanted := l.wanted(m)
	missing := slices.DeleteFunc(slices.Clone(wanted), func(t string) bool { return p.topics[t] && !again })
	if err := l.subscribe(ctx, missing, true); err != nil {
		return err
	}
	if m != nil {
		select {
		case <-m.followed:
		default:
			close(m.followed)
		}
	}
	var stale []string
	for t := range p.topics {
		if !slices.Contains(wanted, t) {
			stale = append(stale, t)
		}
	}
	return l.unsubscribe(ctx, stale)
}

// unsubscribe returns when the server has confirmed that it forgets the topics.
func (l *link) unsubscribe(ctx context.Context, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	if _, err := l.client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: topics}); err != nil {
		return l.explain(subscribing, l.why(ctx, err))
	}
	for _, t := range topics {
		delete(l.p.topics, t)
	}
	return nil
}

// subscribe returns when the server has confirmed all of the topics.
func (l *link) subscribe(ctx context.Context, topics []string, noLocal bool) error {
	if len(topics) == 0 {
		return nil
	}
	s := new(paho.Subscribe)
	for _, t := range topics {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: t, QoS: 1, NoLocal: noLocal, RetainHandling: 2}) // 2: nothing old
	}
	answer, err := l.client.Subscribe(ctx, s)
	if answer == nil {
		return l.explain(subscribing, l.why(ctx, err))
	}
	if len(answer.Reasons) != len(topics) {
		return l.trouble(subscribing, fmt.Sprintf("it answered for %d of %d topics", len(answer.Reasons), len(topics)), "see its log", nil)
	}
	for i, code := range answer.Reasons {
		switch {
		case code >= 0x80:
			return l.explain(subscribing, &refusal{code, answer.Properties.ReasonString})
		case code == packets.SubackGrantedQoS0:
			return l.trouble(subscribing, "it grants QoS 0 only, with which messages may be lost anywhere", "allow QoS 1 there", nil)
		}
		l.p.topics[topics[i]] = true
	}
	return nil
}

// try publishes a message without contents, which shows whether this instance may publish. Others ignore it.
func (l *link) try(ctx context.Context, topic string) error {
	_, err := l.publish(ctx, topic, [][]byte{nil}, l.mark)
	return err
}

// read waits for what try published to come back.
func (l *link) read(ctx context.Context, topic string) error {
	patience := time.NewTimer(l.p.readingWithin)
	defer patience.Stop()
	select {
	case <-l.heard:
		return nil
	case <-patience.C:
		return l.trouble(subscribing, fmt.Sprintf("it confirmed the subscription, but carries nothing of %q to this instance", topic), "let the user read it: "+l.grant(), nil)
	case <-l.flight.lost:
		return l.explain(subscribing, errLost)
	case <-ctx.Done():
		return l.explain(subscribing, ctx.Err())
	}
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

// noAuth is for the authentication that MQTT 5 can carry in packets of its own, which the guard lets nobody begin.
type noAuth struct{}

func (noAuth) Authenticate(*paho.Auth) *paho.Auth { return new(paho.Auth) }
func (noAuth) Authenticated()                     {}

// errSilent ends a connection over which nothing comes.
var errSilent = fmt.Errorf("the server is silent: %w", context.DeadlineExceeded)

// A pinger asks at least as often as this client wants to, also where the server would be content with less.
type pinger struct {
	*paho.DefaultPinger
	most  time.Duration
	ended func(error) // is told when there was no answer
}

// Run implements [paho.Pinger].
func (p *pinger) Run(ctx context.Context, c net.Conn, seconds uint16) error {
	most := uint16(max(1, p.most/time.Second))
	if seconds == 0 || seconds > most {
		seconds = most
	}
	err := p.DefaultPinger.Run(ctx, c, seconds)
	if err != nil {
		p.ended(errSilent)
	}
	return err
}
