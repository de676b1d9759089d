package redisbus

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/provider"
)

// Config says which server carries the frames. One of URL and Client is required. A Config does not
// print its URL, which may hold a password.
type Config struct {
	// URL is where the server is: redis://user:password@host:port, rediss:// for TLS, or
	// unix://user:password@/path/to/socket. Special characters in user and password are percent-encoded; without a port it is 6379.
	//
	// Further addresses follow as ?addr=host:port&addr=host:port: nodes of a Cluster, any of which does, since what is
	// published at one reaches all. They are tried in turn. With &master_set=NAME the addresses are those of Sentinels, which must
	// not want a password; they are asked where the primary is, each time a connection is made. Options that
	// rueidis.ParseURL knows besides: dial_timeout, write_timeout, client_name, protocol, skip_verify.
	URL string

	// Client, if set, is used instead of URL, for settings that no URL has. It remains the caller's, who closes it after the
	// Provider. Of its connections one is taken for the subscription. Its own time limits hold
	// for what connects: while it dials, neither Start's ctx nor Close interrupts it.
	Client rueidis.Client

	// Prefix begins the names of all channels. It keeps apart what shares a server, which channels do even in
	// different databases of it. Empty means "carillon"; at most 128 bytes of letters, digits, and any of . _ - : / { }.
	Prefix string

	// Keep, if not 0, sends through Redis Streams instead of pub/sub, and is how many frames, about, the server keeps
	// of each site for instances whose connection was away: 4,096 take 128 MiB at most with frames of 32 KiB. All instances of a site must
	// agree on whether it is 0. Not for a Cluster. 16 to 1,000,000.
	Keep int

	// MaxFrameBytes bounds a frame that is sent. At most 1 MiB, which every receiver takes. 0 means 32,760: with
	// what goes before it a message of 32 KiB.
	MaxFrameBytes int
}

const (
	defaultPrefix     = "carillon"
	maxPrefix         = 128
	defaultFrameBytes = 32<<10 - prefixBytes
	minFrameBytes     = 512
	minKeep           = 16
	maxKeep           = 1_000_000

	connectionBuffer = 64 << 10 // bytes, of each connection and direction
	dialTimeout      = 5 * time.Second
)

// Format implements [fmt.Formatter] for every verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String returns c without its URL.
func (c Config) String() string {
	return fmt.Sprintf("{URL:%s Client:%t Prefix:%q Keep:%d MaxFrameBytes:%d}", c.shownURL(), c.Client != nil, c.Prefix, c.Keep, c.MaxFrameBytes)
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText implements [encoding.TextMarshaler], as c is logged.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (c Config) shownURL() string {
	if c.URL == "" {
		return ""
	}
	return "[redacted]"
}

// A source makes clients.
type source struct {
	// options are tried in turn, since each knows one address, or all Sentinels. Nil where the
	// application has brought a client.
	options []rueidis.ClientOption
}

// others is how many addresses there are to try when the first does not serve.
func (s source) others() int { return max(0, len(s.options)-1) }

// withDefaults returns a copy of c with every zero field replaced and without URL, and what URL means. An error
// names the field and what it may be; it shows nothing of the URL.
func (c Config) withDefaults() (Config, source, error) {
	var src source
	switch {
	case c.URL == "" && c.Client == nil:
		return c, src, provider.WrongSetting("redis", "URL", "is missing: want redis://[user:password@]host[:port]; in code, Client will do as well")
	case c.URL != "" && c.Client != nil:
		return c, src, provider.WrongSetting("redis", "URL", "is set, and in code Client too: want one of them")
	case c.URL != "":
		var err error
		if src.options, err = parseURL(c.URL); err != nil {
			return c, src, err
		}
		c.URL = ""
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if len(c.Prefix) > maxPrefix || strings.ContainsFunc(c.Prefix, strange) {
		return c, src, provider.WrongSetting("redis", "Prefix", "%q: want at most %d letters, digits and . _ - : / { }", c.Prefix, maxPrefix)
	}
	if c.Keep != 0 && (c.Keep < minKeep || c.Keep > maxKeep) {
		return c, src, provider.WrongSetting("redis", "Keep", "%d: want %d to %d frames, or 0 for pub/sub", c.Keep, minKeep, maxKeep)
	}
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = defaultFrameBytes
	}
	if c.MaxFrameBytes < minFrameBytes || c.MaxFrameBytes > maxFrameBytes {
		return c, src, provider.WrongSetting("redis", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes, defaultFrameBytes)
	}
	return c, src, nil
}

// strange reports whether r has no place in a prefix. ACL patterns would take some of them for wildcards.
func strange(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-:/{}", r))
}

// parseURL returns the options that a URL stands for. Its errors repeat nothing of the URL, nor of what the
// parser says: a password that is not encoded may be in either.
func parseURL(s string) ([]rueidis.ClientOption, error) {
	scheme, _, ok := strings.Cut(s, "://")
	switch {
	case !ok || scheme != "redis" && scheme != "rediss" && scheme != "unix":
		return nil, provider.WrongSetting("redis", "URL", "does not begin with redis://, rediss:// (TLS) or unix://")
	}
	o, err := rueidis.ParseURL(s)
	if err != nil {
		return nil, provider.WrongSetting("redis", "URL", "is not understood; want redis://[user:password@]host[:port][/database][?addr=host:port], "+
			"with special characters of user and password percent-encoded, such as %%2F for /")
	}
	o.DisableCache, o.DisableRetry = true, true // nothing is read; what failed the Broker sends again
	o.PipelineMultiplex = -1                    // one connection, so that frames keep their order
	o.BlockingPipeline = math.MaxInt
	o.ReadBufferEachConn, o.WriteBufferEachConn = connectionBuffer, connectionBuffer
	if o.Dialer.Timeout == 0 {
		o.Dialer.Timeout = dialTimeout
	}
	if o.Sentinel.MasterSet != "" {
		o.Sentinel.TLSConfig = o.TLSConfig
		o.Sentinel.Dialer = o.Dialer
		return []rueidis.ClientOption{o}, nil
	}
	o.ForceSingleClient = true
	var all []rueidis.ClientOption
	for _, a := range o.InitAddress {
		one := o
		one.InitAddress = []string{a}
		all = append(all, one)
	}
	return all, nil
}

// hostOf returns the host of an address, for the certificate expected there.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
