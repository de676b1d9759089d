package natsbus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider"
)

const (
	defaultPrefix       = "carillon"
	defaultFrameBytes   = 32 << 10
	minFrameBytes       = 512
	maxFrameBytes       = 1 << 20
	defaultReceiveBytes = 8 << 20
	maxPrefixBytes      = 128 // a subject with everything stays far below the 4 KiB of a server's max_control_line
	maxURLs             = 64

	dialTimeout  = 2 * time.Second // for one server
	writeTimeout = 5 * time.Second // after which a server that takes nothing is given up
	pingInterval = 5 * time.Second // three without an answer, and the connection is given up
	firstRetry   = 50 * time.Millisecond
	lastRetry    = 5 * time.Second
)

// Config says where the servers are. The zero Config is a server on this machine, without credentials. However it is printed or logged, a Config shows
// no credential.
type Config struct {
	// URLs lists the servers, such as "nats://10.0.0.7:4222" or "tls://nats.example.com"; an entry may hold several, separated by
	// commas. They may belong to one cluster, of which one that answers suffices to know the others. User and password, or a token before the @, may stand
	// in it. Empty means nats://127.0.0.1:4222.
	URLs []string

	// User and Password, or Token, are what the server was told to ask for. Those in a URL come first.
	User, Password, Token string

	// CredentialsFile is a file with a JWT and its NKEY seed, as nsc writes it (*.creds). It is read again for each connection.
	CredentialsFile string

	// NKeyFile is a file with an NKEY seed of a user. It is read by New, and for each connection.
	NKeyFile string

	// TLS, if set, makes every connection a TLS one, with certificates and authorities as it says. With nil
	// the scheme "tls" in a URL does the same with the system's authorities. It is cloned.
	TLS *tls.Config

	// Conn, if set, is a connection of the application's, to be used instead of one of our own; everything above is then left
	// empty. It should be made with nats.NoEcho(), nats.ReconnectBufSize(-1) and nats.MaxReconnects(-1), and belong to this instance alone: two Brokers on one
	// connection without echo do not hear each other. It stays open when the Provider is closed. Its error handler is wrapped: it hears what it heard before.
	Conn *nats.Conn

	// Prefix begins every subject: letters, digits, "-" and "_", with dots between words. All instances of a site must have the same. Empty means "carillon".
	Prefix string

	// MaxFrameBytes bounds a frame that is sent. More than the default gains little; less is needed where the server's
	// max_payload is less. 512 to 1 MiB. 0 means 32 KiB.
	MaxFrameBytes int

	// ReceiveBytes is how much may wait for this instance while it does not take what arrives, each frame
	// counted with provider.FrameCharge more. Senders are paced so that it suffices; more lets them
	// run ahead. It should stay below the server's max_pending, which keeps as much when this process stands still. At least 256 KiB. 0 means 8 MiB.
	ReceiveBytes int
}

// settings are what is kept of a Config: nothing secret.
type settings struct {
	servers       string // for errors and logs
	prefix        string
	maxFrameBytes int
	receiveBytes  int
}

// Format implements [fmt.Formatter] for every verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String returns the servers, without what stands before an @.
func (c Config) String() string {
	if c.Conn != nil {
		return "nats: a connection of the application"
	}
	servers, err := c.servers()
	if err != nil {
		return "nats: servers that cannot be read"
	}
	return "nats: " + show(servers)
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText keeps encoders from writing credentials.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// servers returns the URLs one by one.
func (c Config) servers() ([]*url.URL, error) {
	var all []*url.URL
	for _, list := range c.URLs {
		for text := range strings.SplitSeq(list, ",") {
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			if !strings.Contains(text, "://") {
				text = "nats://" + text
			}
			u, err := url.Parse(text)
			if err != nil || u.Hostname() == "" {
				// Neither the text nor the words of url.Parse, which repeat it: it may hold a password.
				return nil, provider.WrongSetting("nats", "URLs", "number %d cannot be read (it is not shown, as it may hold a password); write nats://host:port, with %%-encoding in user and password", len(all)+1)
			}
			switch u.Scheme {
			case "nats", "tls":
			default:
				return nil, provider.WrongSetting("nats", "URLs", "number %d has the scheme %q; want nats or tls (for others, in code, bring a connection in Conn)", len(all)+1, u.Scheme)
			}
			all = append(all, u)
		}
	}
	if len(all) == 0 {
		all = append(all, &url.URL{Scheme: "nats", Host: "127.0.0.1:4222"})
	}
	if len(all) > maxURLs {
		return nil, provider.WrongSetting("nats", "URLs", "%d servers; at most %d", len(all), maxURLs)
	}
	return all, nil
}

// show returns servers for people, without what stands before an @.
func show(servers []*url.URL) string {
	var all []string
	for _, u := range servers {
		all = append(all, u.Scheme+"://"+u.Host)
	}
	return strings.Join(all, ", ")
}

// check returns what is kept of c, and the options of a connection of our own; or an error that names the field and what it may be.
func (c Config) check() (settings, []nats.Option, error) {
	s := settings{prefix: c.Prefix, maxFrameBytes: c.MaxFrameBytes, receiveBytes: c.ReceiveBytes}
	if s.prefix == "" {
		s.prefix = defaultPrefix
	}
	if err := checkPrefix(s.prefix); err != nil {
		return s, nil, err
	}
	if s.maxFrameBytes == 0 {
		s.maxFrameBytes = defaultFrameBytes
	}
	if s.maxFrameBytes < minFrameBytes || s.maxFrameBytes > maxFrameBytes {
		return s, nil, provider.WrongSetting("nats", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes, defaultFrameBytes)
	}
	if s.receiveBytes == 0 {
		s.receiveBytes = max(defaultReceiveBytes, 8*s.maxFrameBytes)
	}
	if least := max(256<<10, 2*(s.maxFrameBytes+provider.FrameCharge)); s.receiveBytes < least {
		return s, nil, provider.WrongSetting("nats", "ReceiveBytes", "%d: want at least %d, which is two frames or 256 KiB, or 0 for %d", c.ReceiveBytes, least, defaultReceiveBytes)
	}
	if c.Conn != nil {
		if len(c.URLs) > 0 || c.credentials() > 0 || c.TLS != nil {
			return s, nil, provider.WrongSetting("nats", "Conn", "is set, and with it URLs, TLS or credentials; those belong to the one who makes the connection")
		}
		s.servers = "the application's connection"
		return s, nil, nil
	}
	servers, err := c.servers()
	if err != nil {
		return s, nil, err
	}
	s.servers = show(servers)
	options, err := c.options(servers)
	return s, options, err
}

// checkPrefix looks for what would make a subject of another meaning.
func checkPrefix(prefix string) error {
	for word := range strings.SplitSeq(prefix, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return provider.WrongSetting("nats", "Prefix", "%q: want words of letters, digits, \"-\" and \"_\", with dots between them", prefix)
		}
	}
	if len(prefix) > maxPrefixBytes {
		return provider.WrongSetting("nats", "Prefix", "has %d bytes; at most %d", len(prefix), maxPrefixBytes)
	}
	return nil
}

// credentials returns how many kinds of credentials are set.
func (c Config) credentials() (n int) {
	for _, set := range []bool{c.User != "" || c.Password != "", c.Token != "", c.CredentialsFile != "", c.NKeyFile != ""} {
		if set {
			n++
		}
	}
	return n
}

// options returns what every connection of our own is made with, but for what belongs to one Provider.
func (c Config) options(servers []*url.URL) ([]nats.Option, error) {
	if c.credentials() > 1 {
		return nil, errors.New("nats: several kinds of credentials are set; leave one of User with Password, Token, CredentialsFile, NKeyFile")
	}
	var urls []string
	for _, u := range servers {
		urls = append(urls, u.String())
	}
	options := []nats.Option{
		func(o *nats.Options) error { o.Servers = urls; return nil },
		nats.NoEcho(),
		nats.ReconnectBufSize(-1), // Send returns an error instead
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // credentials are mended while programs run
		nats.CustomReconnectDelay(retryAfter),
		nats.Timeout(dialTimeout),
		nats.FlusherTimeout(writeTimeout),
		nats.PingInterval(pingInterval),
		nats.SkipHostLookup(),   // the dialer does it, and stops when it is told to
		nats.WriteBufferSize(1), // who sends writes: a frame is a batch, and to wake the goroutine that flushes takes longer
	}
	switch {
	case c.User != "" || c.Password != "":
		options = append(options, nats.UserInfo(c.User, c.Password))
	case c.Token != "":
		options = append(options, nats.Token(c.Token))
	case c.CredentialsFile != "":
		options = append(options, nats.UserCredentials(c.CredentialsFile))
	case c.NKeyFile != "":
		nkey, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, provider.WrongSetting("nats", "NKeyFile", "cannot be used: %w; it holds the seed of a user, beginning with SU", err)
		}
		options = append(options, nkey)
	}
	if c.TLS != nil {
		options = append(options, nats.Secure(c.TLS.Clone()))
	}
	return options, nil
}

// retryAfter returns how long to wait before all servers are tried again, for the n-th time in a row: twice as long
// each time, and never twice the same, so that instances which lost a server together do not come back together.
func retryAfter(n int) time.Duration {
	d := lastRetry
	if n < 8 {
		d = min(firstRetry<<max(n-1, 0), lastRetry)
	}
	return d/2 + rand.N(d)
}
