package rabbitbus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider"
)

const (
	defaultPrefix     = "carillon"
	maxPrefixBytes    = 128 // a queue's name with everything stays below the 255 that AMQP allows
	defaultFrameBytes = 32 << 10
	minFrameBytes     = 512
	maxFrameBytes     = 1 << 20 // what every receiver takes, whatever its MaxFrameBytes
	defaultQueueBytes = 32 << 20
	minQueueBytes     = 1 << 20
	maxQueueBytes     = 1 << 40
	defaultExpiry     = 5 * time.Minute
	minExpiry         = time.Second
	maxExpiry         = 7 * 24 * time.Hour
	maxURLs           = 64
)

// Config says which server carries the frames. The zero Config is a server on this machine, with the user and the virtual host that a new server
// has. All instances of a site use the same virtual host, with the same Prefix. However it is printed or logged, a Config shows no password.
type Config struct {
	// URLs lists the servers: amqp://user:password@host:port/vhost, or amqps:// for TLS. Special characters in user, password and
	// virtual host are percent-encoded; without them it is guest, guest and "/", without a port 5672, for TLS 5671. Several are nodes of
	// one cluster, or names of it, and are tried in turn. An entry may hold several, separated by commas. Empty means amqp://127.0.0.1.
	URLs []string

	// TLS is what a connection to a URL with amqps is made with, for certificates and authorities of one's own. Nil means
	// the system's authorities and no certificate. It is cloned.
	TLS *tls.Config

	// Prefix begins the names of exchanges and queues, and keeps apart what shares a virtual host. Empty means
	// "carillon"; at most 128 bytes of letters, digits, and any of . _ -
	Prefix string

	// MaxFrameBytes bounds a frame that is sent: 512 to 1 MiB. It must not exceed the server's max_message_size. 0 means 32 KiB.
	MaxFrameBytes int

	// QueueBytes is how much the server keeps for this instance when it takes nothing; beyond it the oldest goes. Senders are
	// paced to a quarter of it, since an instance's own frames pass through its queue too. At least 1 MiB, and 8 frames. 0 means 32 MiB.
	QueueBytes int

	// QueueExpiry is how long the server keeps the queue of an instance that is not connected. What was sent meanwhile is
	// delivered when it comes back in time. 1 s to 7 days; 0 means 5 minutes.
	QueueExpiry time.Duration

	// Persistent makes the server write frames to its disk before Send returns, so that they survive its restart. Without it the Broker's
	// repair has the same effect, as long as those who sent them run.
	Persistent bool
}

// Format implements [fmt.Formatter] for every verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String returns the servers, without what stands before an @.
func (c Config) String() string {
	servers, err := c.servers()
	if err != nil {
		return "rabbit: servers that cannot be read"
	}
	var all []string
	for _, s := range servers {
		all = append(all, s.String())
	}
	return "rabbit: " + strings.Join(all, ", ")
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText keeps encoders from writing passwords.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// withDefaults returns a copy of c with every zero field replaced and without URLs, and the servers that those name. An
// error names the field and what it may be.
func (c Config) withDefaults() (Config, []*server, error) {
	servers, err := c.servers()
	if err != nil {
		return c, nil, err
	}
	c.URLs = nil
	if c.TLS != nil {
		c.TLS = c.TLS.Clone()
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if len(c.Prefix) > maxPrefixBytes || strings.ContainsFunc(c.Prefix, strange) {
		return c, nil, provider.WrongSetting("rabbit", "Prefix", "%q: want at most %d letters, digits and . _ -", c.Prefix, maxPrefixBytes)
	}
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = defaultFrameBytes
	}
	if c.MaxFrameBytes < minFrameBytes || c.MaxFrameBytes > maxFrameBytes {
		return c, nil, provider.WrongSetting("rabbit", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes, defaultFrameBytes)
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = defaultQueueBytes
	}
	if least := max(minQueueBytes, 8*c.MaxFrameBytes); c.QueueBytes < least || c.QueueBytes > maxQueueBytes {
		return c, nil, provider.WrongSetting("rabbit", "QueueBytes", "%d: want at least %d, which is 8 frames or 1 MiB, or 0 for %d", c.QueueBytes, least, defaultQueueBytes)
	}
	if c.QueueExpiry == 0 {
		c.QueueExpiry = defaultExpiry
	}
	if c.QueueExpiry < minExpiry || c.QueueExpiry > maxExpiry {
		return c, nil, provider.WrongSetting("rabbit", "QueueExpiry", "%v: want %v to %v, or 0 for %v", c.QueueExpiry, minExpiry, maxExpiry, defaultExpiry)
	}
	return c, servers, nil
}

// receiveBytes is what may be on its way to this instance. Its queue has room for that, for as much that it sent itself, and for what is not paced.
func (c Config) receiveBytes() int { return c.QueueBytes / 4 }

// prefetch is how many frames the server sends ahead of their acknowledgement, whatever their length: as many as are paced, but
// enough for small ones to flow.
func (c Config) prefetch() int {
	return min(1024, max(64, c.receiveBytes()/(c.MaxFrameBytes+provider.FrameCharge)))
}

// strange reports whether r has no place in a prefix. Patterns of permissions take some of them for something else.
func strange(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
}

// A server is one entry of URLs.
type server struct {
	tls      bool
	host     string
	address  string // host:port
	vhost    string
	user     string
	password string
}

// String returns s for people.
func (s *server) String() string {
	scheme := "amqp"
	if s.tls {
		scheme = "amqps"
	}
	if s.vhost == "/" {
		return scheme + "://" + s.address
	}
	return scheme + "://" + s.address + "/" + s.vhost
}

// servers returns what URLs names. Its errors repeat nothing of a URL, nor of what the parser says: a password that is
// not encoded may be in either.
func (c Config) servers() ([]*server, error) {
	var all []*server
	for _, list := range c.URLs {
		for text := range strings.SplitSeq(list, ",") {
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			s, err := parseURL(text)
			if err != nil {
				return nil, provider.WrongSetting("rabbit", "URLs", "number %d %w", len(all)+1, err)
			}
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		s, err := parseURL("amqp://127.0.0.1")
		return []*server{s}, err
	}
	if len(all) > maxURLs {
		return nil, provider.WrongSetting("rabbit", "URLs", "%d servers; at most %d", len(all), maxURLs)
	}
	return all, nil
}

func parseURL(text string) (*server, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	if scheme != "amqp" && scheme != "amqps" {
		return nil, errors.New("is no URL that begins with amqp:// or amqps://")
	}
	if strings.ContainsAny(rest, "?#") {
		return nil, errors.New("has a ? or #: options belong into the other fields, such as TLS, and in user and password these are %3F and %23")
	}
	u, err := amqp.ParseURI(text)
	if err != nil || u.Host == "" || u.Port < 1 || u.Port > 65535 {
		return nil, errors.New("cannot be read (it is not shown, as it may hold a password); write amqp://user:password@host:port/vhost, with special characters " +
			"of user, password and vhost percent-encoded, such as %2F for /")
	}
	return &server{
		tls: scheme == "amqps", host: u.Host, address: net.JoinHostPort(u.Host, strconv.Itoa(u.Port)),
		vhost: u.Vhost, user: u.Username, password: u.Password,
	}, nil
}
