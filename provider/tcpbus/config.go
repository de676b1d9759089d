package tcpbus

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// Config says how instances reach each other. The zero Config is a good one for
// instances that share a network.
type Config struct {
	// Listen is the host:port at which connections are accepted. The port
	// may be 0: the system chooses one, and the member row tells it to the others.
	//
	// Empty means any port at the address of the route to the site database, and no
	// other address: with an embedded database that is the loopback
	// interface, so nothing is open to the network. Where that address is unknown or
	// not one of this machine (a proxy before the database), all
	// addresses, with a warning in the log.
	Listen string

	// Advertise is the host or host:port that others are told to connect to, for
	// machines behind address translation. The port defaults to the one
	// listened at. Empty means the address listened at, or, when that is all
	// addresses, the one of the route to the site database, or, when that is unknown,
	// those of this machine's interfaces that lie in AllowNetworks.
	Advertise string

	// AllowNetworks says who may connect and which advertised addresses are dialled; what
	// Endpoints lists is dialled in any case. Nil means the private, loopback and
	// link-local ranges, and the network of this instance's own route to the site
	// database. An empty list that is not nil allows nobody.
	AllowNetworks []netip.Prefix

	// Endpoints lists the host:port of all instances, where the member rows cannot
	// tell how to reach them; then no advertised address is dialled.
	// An entry may be this instance itself, which notices. Nil means the
	// member rows.
	Endpoints []string

	// TLS, if set, wraps every connection, dialled or accepted, in TLS 1.3. It needs a
	// certificate, and, to know that of the other end, RootCAs or
	// InsecureSkipVerify; ServerName defaults to the host dialled. For mutual TLS
	// set ClientAuth and ClientCAs. Whatever certificates say, both ends prove
	// that they hold a key of the site, bound to this very TLS connection, so
	// that nobody can sit between them. Config is cloned.
	TLS *tls.Config

	// MaxFrameBytes bounds a frame that is sent. 0 means 64 KiB,
	// which the runtime allocates fastest; at most 1 MiB, which every receiver takes.
	MaxFrameBytes int

	// QueueBytes bounds what waits for one peer. The frames are the Broker's own, so
	// that peers which wait for the same ones share their memory. More bridges a longer
	// absence, less bounds memory. 0 means 32 MiB; at least MaxFrameBytes and the 64 bytes
	// that each frame counts for beside its own.
	QueueBytes int

	// DialTimeout bounds one attempt to connect to one address. 0 means 2 s.
	DialTimeout time.Duration

	// HandshakeTimeout bounds the time from a connection to its proof, TLS
	// included. 0 means 5 s.
	HandshakeTimeout time.Duration

	// PeerTimeout is how long a peer may take nothing, or, on an idle connection, answer no
	// probe, before the connection is given up. Shorter notices a dead machine
	// sooner, longer spares one that is only held up. 0 means 10 s.
	PeerTimeout time.Duration
}

const (
	// maxFrameBytes is what every receiver takes, whatever its MaxFrameBytes, so
	// that instances whose settings differ understand each other.
	maxFrameBytes = 1 << 20

	defaultFrameBytes = 64 << 10
	defaultQueueBytes = 32 << 20

	defaultDialTimeout      = 2 * time.Second
	defaultHandshakeTimeout = 5 * time.Second
	defaultPeerTimeout      = 10 * time.Second
)

// limits are bounds that nobody needs to choose. Tests do.
type limits struct {
	unproven           int           // connections without a proof, at once
	unprovenPerAddress int           // of these, from one address
	unlisted           int           // peers that connected and have no member row yet
	drain              time.Duration // for the other end to take what was written, and for us to take what it wrote
	flush              time.Duration // of Close
	grace              time.Duration // for which a peer without member row and connection, or its queue, is kept
	linger             time.Duration // for which a connected peer is kept after its member row went away
	headStart          time.Duration // for a newcomer to connect to us, before we dial it
	backoffMin         time.Duration // before the second attempt to reach a peer
	backoffMax         time.Duration
	stable             time.Duration // a connection that lived this long was a success
	silence            time.Duration // for which nothing is logged of a peer that cannot be reached: most have stopped, and the member rows will tell
}

var defaultLimits = limits{
	unproven:           64,
	unprovenPerAddress: 32,
	unlisted:           1024,
	drain:              time.Second,
	flush:              time.Second,
	grace:              5 * time.Second,
	linger:             time.Minute, // as long as a Broker takes frames of an instance that was reaped and may be alive
	headStart:          250 * time.Millisecond,
	backoffMin:         50 * time.Millisecond,
	backoffMax:         5 * time.Second,
	stable:             time.Second,
	silence:            5 * time.Second,
}

// withDefaults returns a copy of c with every zero field replaced, or an error
// that names the field and what it may be.
func (c Config) withDefaults() (Config, error) {
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return c, provider.WrongSetting("tcp", "Listen", "%q: %w; write host:port, for example %q", c.Listen, err, ":7070")
		}
	}
	c.Endpoints = slices.Clone(c.Endpoints)
	for _, e := range c.Endpoints {
		host, port, err := net.SplitHostPort(e)
		if err != nil {
			return c, provider.WrongSetting("tcp", "Endpoints", "%q: %w; write host:port", e, err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
			return c, provider.WrongSetting("tcp", "Endpoints", "%q: write host:port with a port from 1 to 65535", e)
		}
	}
	if c.AllowNetworks != nil {
		networks := make([]netip.Prefix, 0, len(c.AllowNetworks))
		for _, n := range c.AllowNetworks {
			if !n.IsValid() {
				return c, provider.WrongSetting("tcp", "AllowNetworks", "%v is not a network; use netip.ParsePrefix", n)
			}
			networks = append(networks, unmapped(n))
		}
		c.AllowNetworks = networks
	}
	if c.TLS != nil {
		c.TLS = c.TLS.Clone()
		if len(c.TLS.Certificates) == 0 && c.TLS.GetCertificate == nil && c.TLS.GetConfigForClient == nil {
			return c, provider.WrongSetting("tcp", "TLS", "has no certificate, and every instance accepts connections; set Certificates or GetCertificate")
		}
		if c.TLS.MaxVersion != 0 && c.TLS.MaxVersion < tls.VersionTLS13 {
			return c, provider.WrongSetting("tcp", "TLS", "allows versions up to %s; at least TLS 1.3 is used", tls.VersionName(c.TLS.MaxVersion))
		}
		c.TLS.MinVersion = max(c.TLS.MinVersion, tls.VersionTLS13)
	}
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = defaultFrameBytes
	}
	if c.MaxFrameBytes < 0 || c.MaxFrameBytes > maxFrameBytes {
		return c, provider.WrongSetting("tcp", "MaxFrameBytes", "%d: choose from 1 to %d, or 0 for %d", c.MaxFrameBytes, maxFrameBytes, defaultFrameBytes)
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = defaultQueueBytes
	}
	if least := c.MaxFrameBytes + frameOverhead; c.QueueBytes < least {
		return c, provider.WrongSetting("tcp", "QueueBytes", "%d: a frame of MaxFrameBytes does not fit; choose %d or more, or 0 for %d", c.QueueBytes, least, defaultQueueBytes)
	}
	for _, d := range []struct {
		field string
		value *time.Duration
		zero  time.Duration
	}{
		{"DialTimeout", &c.DialTimeout, defaultDialTimeout},
		{"HandshakeTimeout", &c.HandshakeTimeout, defaultHandshakeTimeout},
		{"PeerTimeout", &c.PeerTimeout, defaultPeerTimeout},
	} {
		if *d.value == 0 {
			*d.value = d.zero
		}
		if *d.value < 0 {
			return c, provider.WrongSetting("tcp", d.field, "%v is negative; 0 means %v", *d.value, d.zero)
		}
	}
	return c, nil
}
