package pgbus

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/carillon-go/carillon/provider"
)

const (
	defaultPrefix  = "carillon"
	defaultTable   = "carillon_frames"
	maxPrefixBytes = 128
	minFrameBytes  = 512
	maxFrameBytes  = 1 << 20 // every receiver takes it, so that instances whose settings differ understand each other

	dialTimeout = 5 * time.Second // of one address, unless the application set another
)

// Config says which database carries the frames. One of URL, ConnConfig and Pool is required. However it is printed or logged, a Config shows no
// password.
type Config struct {
	// URL is where the server is: postgres://user:password@host:port/database?sslmode=verify-full, or the same as
	// "host=… user=…". Special characters in user and password are percent-encoded. With host1:5432,host2:5432 the first one is used that answers and is
	// no standby. What is left out comes from the environment and files that libpq knows: PGPASSWORD, ~/.pgpass, and so on.
	URL string

	// ConnConfig is used instead of URL, for settings that no URL has. It is made by pgx.ParseConfig and copied.
	ConnConfig *pgx.ConnConfig

	// Pool, if set, is what notifies, and reads and writes the table. It remains the application's, and open. Alone it also says how the connection that listens is made: with the
	// pool's ConnConfig and BeforeConnect, beside the pool. With URL or ConnConfig those say it; so can a pool be used whose connections pass through a pooler in transaction mode. An
	// exhausted pool delays frames.
	Pool *pgxpool.Pool

	// Prefix begins the names of all channels. It keeps apart what shares a database. Empty means "carillon"; at most 128 bytes of letters, digits, and any of . _ - : /.
	Prefix string

	// Table is where frames go that no payload holds, "table" or "schema.table" in letters, digits and "_". All instances need to mean the same by it, whatever their
	// search_path. It is made when it is first needed, UNLOGGED: a crash of the server empties it. Empty means "carillon_frames".
	Table string

	// MaxFrameBytes bounds a frame that is sent. 0 means 5,985, the largest for which no table is needed. Up to 1 MiB, which every receiver
	// takes; instances with different ones understand each other, if all may read the table.
	MaxFrameBytes int
}

// settings is what a Provider keeps of a Config.
type settings struct {
	prefix        string
	table         string // quoted
	maxFrameBytes int

	server   string // for people
	user     string
	database string

	listen        *pgx.ConnConfig // how the connection that listens is made
	beforeConnect func(context.Context, *pgx.ConnConfig) error
	brought       *pgxpool.Pool   // of the application
	own           *pgxpool.Config // without brought
}

// Format implements [fmt.Formatter] for every verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String returns c without what leads to the server.
func (c Config) String() string {
	url := c.URL
	if url != "" {
		url = "[redacted]"
	}
	return fmt.Sprintf("{URL:%s ConnConfig:%t Pool:%t Prefix:%q Table:%q MaxFrameBytes:%d}", url, c.ConnConfig != nil, c.Pool != nil, c.Prefix, c.Table, c.MaxFrameBytes)
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText implements [encoding.TextMarshaler], as c is logged.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// check returns what is kept of c. An error names the field and what it may be; it shows nothing of the URL.
func (c Config) check() (settings, error) {
	s := settings{prefix: c.Prefix, maxFrameBytes: c.MaxFrameBytes, brought: c.Pool}
	if s.prefix == "" {
		s.prefix = defaultPrefix
	}
	if len(s.prefix) > maxPrefixBytes || strings.Trim(s.prefix, lettersAndDigits+"._-:/") != "" {
		return s, provider.WrongSetting("postgres", "Prefix", "%q: want at most %d letters, digits and . _ - : /", c.Prefix, maxPrefixBytes)
	}
	table, err := quoteTable(c.Table)
	if err != nil {
		return s, err
	}
	s.table = table
	if s.maxFrameBytes == 0 {
		s.maxFrameBytes = inlineBytes
	}
	if s.maxFrameBytes < minFrameBytes || s.maxFrameBytes > maxFrameBytes {
		return s, provider.WrongSetting("postgres", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes, inlineBytes)
	}
	if err := s.source(c); err != nil {
		return s, err
	}
	s.listen.OnNotification = nil // the library's own, which WaitForNotification reads
	s.server, s.user, s.database = serverOf(s.listen), s.listen.User, cmp.Or(s.listen.Database, s.listen.User)
	return s, nil
}

// source says how connections are made.
func (s *settings) source(c Config) error {
	switch {
	case c.URL != "" && c.ConnConfig != nil:
		return provider.WrongSetting("postgres", "URL", "is set, and in code ConnConfig too: want one of them")
	case c.URL != "":
		own, err := pgxpool.ParseConfig(c.URL)
		if err != nil { // neither the URL nor what the parser says of it: a password that is not encoded may be in either
			return provider.WrongSetting("postgres", "URL", "is not understood; want postgres://user:password@host:port/database, "+
				"with special characters of user and password percent-encoded, such as %%2F for /")
		}
		s.own = own
	case c.ConnConfig != nil:
		own, err := pgxpool.ParseConfig(c.ConnConfig.ConnString())
		if err != nil {
			return provider.WrongSetting("postgres", "ConnConfig", "has a connection string that is not understood any more; make it with pgx.ParseConfig")
		}
		own.ConnConfig = c.ConnConfig.Copy()
		s.own = own
	case c.Pool != nil:
		brought := c.Pool.Config()
		s.listen, s.beforeConnect = brought.ConnConfig, brought.BeforeConnect
		prepare(s.listen)
		return nil
	default:
		return provider.WrongSetting("postgres", "URL", "is missing: want postgres://user:password@host:port/database; in code, ConnConfig or Pool will do as well")
	}
	prepare(s.own.ConnConfig)
	s.listen = s.own.ConnConfig.Copy()
	s.own.MaxConns, s.own.MinConns, s.own.MinIdleConns = poolConns, 0, 0
	s.own.MaxConnIdleTime = poolIdle
	s.own.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // a round trip for nothing: the Broker sends again what failed
	if c.Pool != nil {
		s.own = nil
	}
	return nil
}

const (
	poolConns = 2 // one for Send, one for SendTo
	poolIdle  = time.Minute
)

// prepare fills in what c leaves open.
func prepare(c *pgx.ConnConfig) {
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = dialTimeout
	}
	if c.ValidateConnect == nil { // so that of several hosts the primary is found
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "carillon"
	}
}

const lettersAndDigits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// quoteTable returns the name of the table as SQL.
func quoteTable(table string) (string, error) {
	if table == "" {
		table = defaultTable
	}
	parts := strings.Split(table, ".")
	for _, part := range parts {
		if len(parts) > 2 || part == "" || len(part) > maxNameBytes || strings.Trim(part, lettersAndDigits+"_") != "" {
			return "", provider.WrongSetting("postgres", "Table", "%q: want a table, or schema.table, each of at most %d letters, digits and _", table, maxNameBytes)
		}
	}
	return pgx.Identifier(parts).Sanitize(), nil
}

// serverOf says where c leads, for people.
func serverOf(c *pgx.ConnConfig) string {
	var all []string
	add := func(host string, port uint16) {
		_, address := pgconn.NetworkAddress(host, port)
		if len(all) == 0 || all[len(all)-1] != address { // TLS and none are two entries
			all = append(all, address)
		}
	}
	add(c.Host, c.Port)
	for _, f := range c.Fallbacks {
		add(f.Host, f.Port)
	}
	return strings.Join(all, ", ")
}
