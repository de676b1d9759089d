package mqttbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// Config says which server carries the frames. URLs is required. A Config does not print what may be secret.
type Config struct {
	// URLs are where the server is: mqtt://user:password@host:port, or mqtts:// for TLS. Special characters in user and
	// password are percent-encoded; without a port it is 1883, or 8883 for TLS. Several are nodes of one cluster, or of servers that
	// stand in for each other; they are tried in turn.
	URLs []string

	// Credentials, if set, is asked for user and password before each connection, instead of what the URLs say: for
	// tokens that expire.
	Credentials func(ctx context.Context) (user, password string, err error)

	// TLS is used for mqtts://. Nil means the roots that the system trusts. ServerName, if empty, is the host of the URL.
	TLS *tls.Config

	// Dial, if set, makes the connections, for a proxy or for WebSockets. address is host:port. TLS is added to what it returns where
	// the URL says so. Nil dials TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// Prefix begins the topics: PREFIX/SITE/all and PREFIX/SITE/to/STREAM. Empty means "carillon"; at most 128 bytes of letters,
	// digits, and any of . _ - : /, with a letter or a digit at both ends.
	Prefix string

	// SessionExpiry is how long the server keeps what arrives for this instance after its connection broke, and the session of an instance that
	// ended without Close. In seconds; 0 means 5 minutes. The server may keep it for less.
	SessionExpiry time.Duration

	// Durable says that the server keeps sessions on its disk, and so is a claim of the operator's: mosquitto does with persistence. It
	// is passed on as [provider.Capabilities.Durable] and changes nothing else.
	Durable bool

	// ReceiveBytes bounds what others have under way to this instance, each frame counted with [provider.FrameCharge] more. The server
	// must keep as much for a client that is slow: with 0, which means 1 MiB, 819 messages, where mosquitto keeps 1,000 by default. At least 64 KiB.
	ReceiveBytes int

	// MaxFrameBytes bounds a frame that is sent. At most 1 MiB, which every receiver takes. 0 means 32 KiB.
	MaxFrameBytes int
}

const (
	defaultPrefix        = "carillon"
	maxPrefix            = 128
	defaultExpiry        = 5 * time.Minute
	defaultReceiveBytes  = 1 << 20
	minReceiveBytes      = 64 << 10
	maxReceiveBytes      = 1 << 30
	defaultMaxFrameBytes = 32 << 10
	minFrameBytes        = 512

	// maxFrameBytes is what every receiver takes, whatever its MaxFrameBytes, so that instances whose settings differ understand each other.
	maxFrameBytes = 1 << 20
)

// Format implements [fmt.Formatter] for every verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String returns c without user, password and what the functions hold.
func (c Config) String() string {
	return fmt.Sprintf("{URLs:%q Credentials:%t TLS:%t Dial:%t Prefix:%q SessionExpiry:%v Durable:%t ReceiveBytes:%d MaxFrameBytes:%d}",
		c.shownURLs(), c.Credentials != nil, c.TLS != nil, c.Dial != nil, c.Prefix, c.SessionExpiry, c.Durable, c.ReceiveBytes, c.MaxFrameBytes)
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText implements [encoding.TextMarshaler], as c is logged.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// shownURLs returns what can be shown of the URLs: a password that is not encoded may be in any part of one that is not understood.
func (c Config) shownURLs() []string {
	var shown []string
	for _, s := range c.URLs {
		if e, err := parseURL(s); err == nil {
			shown = append(shown, e.String())
		} else {
			shown = append(shown, "[not understood]")
		}
	}
	return shown
}

// An endpoint is what a URL says.
type endpoint struct {
	host     string
	address  string // host:port
	tls      bool
	user     string
	password string
	named    bool // there is a user or a password
}

// String returns e without user and password.
func (e endpoint) String() string {
	if e.tls {
		return "mqtts://" + e.address
	}
	return "mqtt://" + e.address
}

// Format implements [fmt.Formatter] for every verb.
func (e endpoint) Format(f fmt.State, _ rune) { fmt.Fprint(f, e.String()) }

// settings is a Config that was checked.
type settings struct {
	endpoints     []endpoint
	credentials   func(ctx context.Context) (user, password string, err error)
	tls           *tls.Config
	dial          func(ctx context.Context, address string) (net.Conn, error)
	prefix        string
	expirySeconds uint32
	receiveBytes  int
	capabilities  provider.Capabilities
}

// Format implements [fmt.Formatter] for every verb, since credentials are behind some fields.
func (s settings) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%v", s.endpoints) }

// check returns c with every zero field replaced. An error names the field and what it may be; it shows nothing of user and password.
func (c Config) check() (settings, error) {
	s := settings{
		credentials: c.Credentials, tls: c.TLS, dial: c.Dial,
		prefix: c.Prefix, receiveBytes: c.ReceiveBytes,
		capabilities: provider.Capabilities{MaxFrameBytes: c.MaxFrameBytes, Ordered: true, Redelivers: true, Durable: c.Durable},
	}
	if len(c.URLs) == 0 {
		return s, provider.WrongSetting("mqtt", "URLs", "are missing: want mqtt://[user:password@]host[:port] or mqtts://…")
	}
	for i, u := range c.URLs {
		e, err := parseURL(u)
		if err != nil {
			return s, provider.WrongSetting("mqtt", "URLs", "number %d: %w", i+1, err)
		}
		s.endpoints = append(s.endpoints, e)
	}
	if s.dial == nil {
		s.dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if s.prefix == "" {
		s.prefix = defaultPrefix
	}
	if !isPrefix(s.prefix) {
		return s, provider.WrongSetting("mqtt", "Prefix", "%q: want at most %d letters, digits and . _ - : /, with a letter or a digit at both ends", s.prefix, maxPrefix)
	}
	expiry := c.SessionExpiry
	if expiry == 0 {
		expiry = defaultExpiry
	}
	if expiry < time.Second || expiry >= math.MaxUint32*time.Second { // the largest number would mean for ever
		return s, provider.WrongSetting("mqtt", "SessionExpiry", "%v: want at least a second, or 0 for %v", expiry, defaultExpiry)
	}
	s.expirySeconds = uint32(expiry / time.Second)
	if s.receiveBytes == 0 {
		s.receiveBytes = defaultReceiveBytes
	}
	if s.receiveBytes < minReceiveBytes || s.receiveBytes > maxReceiveBytes {
		return s, provider.WrongSetting("mqtt", "ReceiveBytes", "%d: want %d to %d, or 0 for %d", s.receiveBytes, minReceiveBytes, maxReceiveBytes, defaultReceiveBytes)
	}
	limit := &s.capabilities.MaxFrameBytes
	if *limit == 0 {
		*limit = defaultMaxFrameBytes
	}
	if *limit < minFrameBytes || *limit > maxFrameBytes {
		return s, provider.WrongSetting("mqtt", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", *limit, minFrameBytes, maxFrameBytes, defaultMaxFrameBytes)
	}
	return s, nil
}

// isPrefix reports whether s may begin topics. What has a meaning of its own in filters and in ACL patterns, # + $ %, has no place in it.
func isPrefix(s string) bool {
	word := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	strange := func(r rune) bool { return !word(r) && !strings.ContainsRune("._-:/", r) }
	return len(s) <= maxPrefix && !strings.ContainsFunc(s, strange) && word(rune(s[0])) && word(rune(s[len(s)-1]))
}

// parseURL returns what a URL says. Its errors repeat nothing of it.
func parseURL(s string) (endpoint, error) {
	u, err := url.Parse(s)
	if err != nil {
		return endpoint{}, errors.New("not understood; want mqtt://[user:password@]host[:port], " +
			"with special characters of user and password percent-encoded, such as %2F for /")
	}
	var e endpoint
	port := "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
	case "mqtts", "ssl", "tls":
		e.tls, port = true, "8883"
	default:
		return endpoint{}, errors.New("want one that begins with mqtt:// or mqtts:// (TLS)")
	}
	if u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return endpoint{}, errors.New("want mqtt://[user:password@]host[:port] and nothing after it, " +
			"with special characters of user and password percent-encoded, such as %2F for /")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	e.host, e.address = u.Hostname(), net.JoinHostPort(u.Hostname(), port)
	if u.User != nil {
		e.user, e.named = u.User.Username(), true
		e.password, _ = u.User.Password()
	}
	return e, nil
}
