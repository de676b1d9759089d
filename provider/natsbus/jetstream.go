package natsbus

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/uplink"
	"github.com/carillon-go/carillon/site"
)

// jetStreamName is what operators know this transport by. It is not that of the core, so that a site can use both while it moves.
const jetStreamName = "jetstream"

var (
	_ provider.Unicaster     = (*JetStream)(nil)
	_ provider.MemberWatcher = (*JetStream)(nil)
)

// JetStreamConfig says where the servers are, and how long they keep what is sent.
type JetStreamConfig struct {
	// Config is that of the core, but for Conn, which must be nil: the connection is replaced whenever it breaks.
	// The user needs more rights: docs/providers.md lists them.
	Config

	// MaxAge is how long a frame is kept, for those whose connection was away for less. 1 s at least. 0 means 10 minutes.
	MaxAge time.Duration

	// MaxBytes is how much is kept of each site, and reserved at the servers. What is older goes first. 1 MiB at least. 0 means 128 MiB.
	MaxBytes int64

	// Replicas is how many servers of a cluster keep it, 1, 3 or 5. 0 means 1.
	Replicas int

	// Memory keeps it in the memory of the servers instead of in files, so that it does not outlive them.
	Memory bool
}

const (
	defaultMaxAge   = 10 * time.Minute
	defaultMaxBytes = 128 << 20
	minMaxBytes     = 1 << 20
)

// stream returns the configuration of the stream of a site. MaxAge and the rest count only for who makes it.
func (c JetStreamConfig) stream(of subjects) jetstream.StreamConfig {
	storage := jetstream.FileStorage
	if c.Memory {
		storage = jetstream.MemoryStorage
	}
	return jetstream.StreamConfig{
		Name: of.stream(), Subjects: []string{of.kept()}, Description: "Carillon: frames of one site, for instances that were away",
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, Storage: storage, Replicas: c.Replicas,
		MaxAge: c.MaxAge, MaxBytes: c.MaxBytes, Duplicates: min(c.MaxAge, time.Minute),
	}
}

// stream is the name of the stream: the words of the subject, with "=" between them, which no word has and a stream's name may.
func (s subjects) stream() string { return strings.ReplaceAll(s.root, ".", "=") }

// kept is the subject of what is sent to all and kept.
func (s subjects) kept() string { return s.root + ".kept" }

// check returns c with defaults, and the options of a connection; or an error that names the field.
func (c JetStreamConfig) check() (JetStreamConfig, settings, []nats.Option, error) {
	if c.Conn != nil {
		return c, settings{}, nil, provider.WrongSetting("nats", "Conn", "is set; a provider on JetStream makes its own connections, from URLs and credentials")
	}
	s, options, err := c.Config.check()
	if err != nil {
		return c, s, nil, err
	}
	c.MaxAge, c.MaxBytes, c.Replicas = cmp.Or(c.MaxAge, defaultMaxAge), cmp.Or(c.MaxBytes, defaultMaxBytes), cmp.Or(c.Replicas, 1)
	switch {
	case c.MaxAge < time.Second:
		return c, s, nil, provider.WrongSetting("nats", "MaxAge", "%v: want at least %v, or 0 for %v", c.MaxAge, time.Second, defaultMaxAge)
	case c.MaxBytes < minMaxBytes:
		return c, s, nil, provider.WrongSetting("nats", "MaxBytes", "%d: want at least %d, or 0 for %d", c.MaxBytes, minMaxBytes, defaultMaxBytes)
	case c.Replicas < 1 || c.Replicas > 5:
		return c, s, nil, provider.WrongSetting("nats", "Replicas", "%d: want 1, 3 or 5, or 0 for 1", c.Replicas)
	}
	return c, s, append(options, nats.NoReconnect()), nil
}

// JetStream is one instance's place on a NATS system whose servers keep what is sent to all for a while, in a stream
// for each site: at least once, in order. What an instance misses while its connection is away it gets afterwards, and it outlives a restart of the servers. What is
// sent to one instance alone is not kept. It is safe for concurrent use. Use [NewJetStream] to make one.
type JetStream struct {
	cfg     JetStreamConfig // without its Config, which may hold credentials; options hold those in functions
	set     settings
	options []nats.Option
	from    string // a header that tells our own messages

	keeper  *uplink.Keeper[*streamLink]
	places  map[site.ID]*place // where we are in each stream; of connect, and of the link that it made
	members atomic.Pointer[members]
	changed chan struct{} // holds a token while members may be newer than the subscription
}

// A place is how far we have come in a stream. It outlives links.
type place struct {
	made time.Time     // when the stream was made; another time means another stream
	last atomic.Uint64 // sequence of the last message delivered, or of the last that was there before us
}

// NewJetStream checks cfg and returns a JetStream that is not started. An error names the field that is wrong; it never holds a credential.
func NewJetStream(cfg JetStreamConfig) (*JetStream, error) {
	cfg, s, options, err := cfg.check()
	if err != nil {
		return nil, err
	}
	cfg.Config = Config{}
	p := &JetStream{cfg: cfg, set: s, options: options, from: rand.Text(), places: make(map[site.ID]*place), changed: make(chan struct{}, 1)}
	p.keeper = uplink.New(uplink.Options[*streamLink]{Name: jetStreamName, MaxFrameBytes: s.maxFrameBytes, Connect: p.connect})
	return p, nil
}

// Name returns "jetstream".
func (p *JetStream) Name() string { return jetStreamName }

// Format implements [fmt.Formatter] for every verb: it names the transport, so that no setting is printed.
func (p *JetStream) Format(f fmt.State, _ rune) { io.WriteString(f, "natsbus.JetStream") }

// Capabilities implements [provider.Provider].
func (p *JetStream) Capabilities() provider.Capabilities {
	return provider.Capabilities{MaxFrameBytes: p.set.maxFrameBytes, Ordered: true, Redelivers: true, Durable: !p.cfg.Memory}
}

// Start implements [provider.Provider]. It makes the stream of the site if there is none.
func (p *JetStream) Start(ctx context.Context, env provider.Env) error {
	return p.keeper.Start(ctx, env)
}

// Close implements [provider.Provider].
func (p *JetStream) Close() error { return p.keeper.Close() }

// SetMembers implements [provider.MemberWatcher]. What is sent to this instance alone it hears soon after.
func (p *JetStream) SetMembers(m provider.Members) {
	p.members.Store(newMembers(m, p.site))
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Send implements [provider.Provider]. It returns when the stream holds all frames.
func (p *JetStream) Send(ctx context.Context, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *streamLink) error { return l.publish(ctx, frames) })
}

// SendTo implements [provider.Unicaster]. An instance can be reached if it is among the members.
func (p *JetStream) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	return p.keeper.Send(ctx, frames, func(ctx context.Context, l *streamLink) error {
		subject, ok := p.members.Load().find(to)
		if !ok {
			return fmt.Errorf("nats: send to %v: %w", to, provider.ErrUnreachable)
		}
		for _, f := range frames {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := l.conn.Publish(subject, f); err != nil {
				return fmt.Errorf("nats: publish: %w", err)
			}
		}
		return nil
	})
}

func (p *JetStream) site(s site.ID) subjects { return subjects{p.set.prefix + "." + s.String()} }
