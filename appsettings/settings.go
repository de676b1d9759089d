package appsettings

import (
	"net/netip"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// Settings is what the files and the environment say, checked and merged. A
// field that nobody set has the value documented as its default, and where none
// is documented, zero, which leaves the choice to the Broker or the provider.
//
// A program may change Settings before it uses them, for example to let its
// flags have the last word.
type Settings struct {
	// EnableEvents false switches the event system off: this instance neither
	// sends nor receives, and takes no part in the site. Subscribers of this
	// process still hear what this process raises. Default true.
	EnableEvents bool

	// EnableRemoteEvents false keeps events in this process as well. The two
	// switches have the same effect here, because every event that leaves the
	// process is remote; both are read for the sake of older files. Default true.
	EnableRemoteEvents bool

	// Application names the program, the same on all instances. Required unless
	// events stay in the process.
	Application string

	// Site is the site's name in the site database. Empty means Application.
	Site string

	// Server names the machine to people. Empty means the host name.
	Server string

	// Version is the program's own, for people.
	Version string

	// Role says which events the instance takes part in: "both", "publish" or
	// "subscribe". Default "both".
	Role string

	// Providers are the names of the transports to use, lower case, each once and
	// each either built in or in [Options.Providers]. Default: "tcp" alone.
	Providers []string

	// Standby are the names of the transports that the site can be moved to while its instances run. None is
	// started before. Default: none.
	Standby []string

	// AcceptSites are the names of the sites whose events are accepted besides
	// the own ones. Nil means every site of the database, empty means none.
	AcceptSites []string

	// TrustSecureChannel lets events in unchecked if every provider declares a
	// secure channel and the site allows it. Default false.
	TrustSecureChannel bool

	// MissedAfter is how long an event may be missing before it is reported as
	// Missed.
	MissedAfter time.Duration

	Database Database
	Limits   Limits
	UDP      UDP
	TCP      TCP

	// Notices are remarks on what was read, none of which stops the instance:
	// what has no counterpart here, and what replaces it. Log them once.
	Notices []Notice

	sections  map[string]Section // of the application's providers, by folded name
	factories map[string]Factory // by folded name
	at        map[string]origin  // where a setting was written, by folded path, for messages
	sources   []string           // what was read, in the order of problems
}

// Local reports whether events stay in this process.
func (s *Settings) Local() bool { return !s.EnableEvents || !s.EnableRemoteEvents }

// Section returns what the configuration says for one of the application's own
// providers. It is empty when there is nothing.
func (s *Settings) Section(provider string) Section { return s.sections[fold(provider)].anew() }

// Database says where the site database is.
type Database struct {
	// Driver is the name under which the program registered a driver with
	// package database/sql: "sqlite", "pgx" or "mysql" in the carillon program.
	Driver string

	// DSN tells the driver where to connect and how to log in.
	DSN DSN

	// TablePrefix is what the names of the tables begin with, the same on all
	// instances. Empty means "carillon_".
	TablePrefix string

	// KeyEncryptionKeys open the secrets of sites in the database, and the first of them encrypts
	// what is written. None: it is written plain. See [sqlsite.KeyEncryption].
	KeyEncryptionKeys []site.Secret

	// Secrets is "encrypted" if plain secrets in the database are refused, else "any".
	// Default "any".
	Secrets string

	// LowestGeneration refuses a database whose last change to keys is an earlier
	// one: a restored backup. See [sqlsite.WithLowestGeneration].
	LowestGeneration int
}

const secretsEncrypted = "encrypted"

// Options returns what [sqlsite.New] is to be told besides the pool.
func (d *Database) Options() []sqlsite.Option {
	encryption := sqlsite.KeyEncryption{Required: d.Secrets == secretsEncrypted}
	if keys := d.KeyEncryptionKeys; len(keys) > 0 {
		encryption.Key, encryption.Former = keys[0], keys[1:]
	}
	opts := []sqlsite.Option{
		sqlsite.WithKeyEncryption(encryption), sqlsite.WithLowestGeneration(uint64(d.LowestGeneration)),
	}
	if d.TablePrefix != "" {
		opts = append(opts, sqlsite.WithTablePrefix(d.TablePrefix))
	}
	return opts
}

// Limits bound what the Broker keeps in memory and how long it waits. Zero
// leaves the choice to the Broker.
type Limits struct {
	HoldBytes     int           // received before Enable
	QueueBytes    int           // waiting for one subscriber
	UnsentBytes   int           // raised and not yet handed to a provider
	MaxEventBytes int           // of one event
	RingBytes     int           // sent and kept for repair
	RingFrames    int           // sent and kept for repair, counted in frames
	CacheBytes    int           // sent by others and kept for repair
	MaxStall      time.Duration // how long slow receivers may hold up Raise
	Lease         time.Duration // how long the member row counts as live without a renewal
	Poll          time.Duration // how often the member rows are read
}

// UDP configures the provider "udp".
type UDP struct {
	// Mode is "multicast", "broadcast" or "unicast". Default "multicast".
	Mode string

	// Group is the multicast group. The zero Addr means [udpbus.DefaultGroup].
	Group netip.Addr

	// Port is the port of the group, of the broadcast, or to listen on in unicast
	// mode. Zero means [udpbus.DefaultPort].
	Port int

	// Interface is the network interface to use, by its name or by one of its
	// addresses. Empty means that of the route to the site database.
	Interface string

	// TTL is how many routers a multicast may pass, plus one. Zero means 1: this
	// network only.
	TTL int

	// Peers are the addresses, host:port, of all instances in unicast mode.
	Peers []string

	// MaxFrameBytes bounds one datagram. Zero means 1,200, or 32,768 where Interface is
	// the loopback interface.
	MaxFrameBytes int
}

// TCP configures the provider "tcp".
type TCP struct {
	// Listen is the address, host:port, to accept connections on. Empty means a
	// port that the system chooses, at the address of the route to the site
	// database: enough, because members find one another there.
	Listen string

	// Advertise is the address, host or host:port, that is written into the
	// member row. Empty means the one listened at.
	Advertise string

	// Endpoints are the addresses, host:port, of all instances, where the member
	// rows cannot tell how to reach them. Empty means the member rows.
	Endpoints []string

	// AllowNetworks are the networks that may connect and be connected to. Nil
	// means the private ranges and this instance's own network; empty and not nil
	// means nobody.
	AllowNetworks []netip.Prefix

	TLS TLS

	// MaxFrameBytes bounds one frame, and QueueBytes what waits for one slow peer.
	MaxFrameBytes, QueueBytes int

	DialTimeout      time.Duration // of one attempt to connect
	HandshakeTimeout time.Duration // from a connection to its proof
	PeerTimeout      time.Duration // how long a peer may be silent
}

// TLS names the PEM files that encrypt the connections of the provider "tcp".
// Without CertFile there is no TLS. Both ends of a connection show a
// certificate that CAFile signed. Load makes relative paths start at the folder
// of the configuration.
type TLS struct {
	CertFile string // this instance's certificate, and those that lead to the authority
	KeyFile  string // the certificate's private key
	CAFile   string // the authority of all instances' certificates

	// ServerName is a name that the certificate of an instance must carry to be
	// connected to. Empty leaves names unchecked: instances come and go, and their
	// addresses are in no certificate. Whatever certificates say, both ends also
	// prove that they hold a key of the site.
	ServerName string
}
