package carillon

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// Config is what a Broker needs. A field without a stated default is required.
// [Open] copies Config, so changing it later has no effect.
type Config struct {
	// Site is the name of the site in the database. Instances of one site hear
	// each other. Empty means Application.
	Site string

	// Application and Server name this instance to people: in Members, in
	// Source, in logs. Server empty means the host's name. Several instances
	// may have the same names.
	Application string
	Server      string

	// Version of the program, for people. It may be empty.
	Version string

	// Database is where the instances find the site's keys and each other. It may
	// be nil only if there are no Providers. The Broker does not close it.
	Database site.Database

	// Providers carry events to the other instances; every one carries every
	// event, and the first copy that arrives is raised. One that fails or hangs delays nothing that
	// another carries. With none, events stay in this process and the Database is not
	// used. Open starts them, and the Broker closes them, also when Open fails.
	Providers []provider.Provider

	// Standby are the transports that the site can be moved to while it runs, by the names of
	// the providers that the functions make. None of them is started until the site's transports, in the database,
	// name it; those of Providers are used until then. One that has the name of one of Providers
	// makes that again after the site has moved away from it, and back; and while another
	// of Providers works, one that cannot be started at first is made and tried again.
	//
	// Open calls each function once, except those with names of Providers, because frames are never
	// larger than any of the transports carries; what it makes is closed by the Broker. It is called again, from any
	// goroutine, never concurrently with itself, when the one before was started and has ended.
	Standby map[string]func() (provider.Provider, error)

	// Role says which events this instance takes part in. Zero means Both.
	Role Role

	// AcceptSites names the sites whose events are accepted beside the own one.
	// Nil means every site registered in the database, now or later; empty and
	// not nil means none. A name that is not registered yet is accepted as soon
	// as it is.
	AcceptSites []string

	// TrustSecureChannel leaves the tags of received event frames unchecked, if
	// every provider declares a secure channel and the floors of the site
	// permit. It saves a hash per frame and gives up the proof that a frame
	// comes from an instance of the site. Control frames are always checked.
	TrustSecureChannel bool

	// MissedAfter is how long an event that is known to exist may stay missing
	// before OnMissed hears of it. Meanwhile it is asked for again and again.
	// Longer repairs more, shorter reports loss sooner. Zero means 10 s.
	MissedAfter time.Duration

	// MaxStall is how long a live instance that is slow may hold up Raise. After
	// that it may miss events. Zero means 1 s.
	MaxStall time.Duration

	// Lease is how long the member row counts as live without a renewal, which
	// comes three times as often. Without the database for a Lease, the instance
	// is not ready. Zero means 30 s; at most 24 h.
	Lease time.Duration

	// Poll is how often the member table is read for changes, with jitter.
	// Zero means 1 s; at most a third of Lease.
	Poll time.Duration

	// HoldBytes bounds what is received before Enable, and what is received and
	// must wait for something else. Beyond it events are missed. Zero means 8 MiB.
	HoldBytes int

	// QueueBytes bounds what waits for each function registered with OnRaised or
	// OnReceived. Those who raise elsewhere are paced while more than half of one of OnRaised is
	// in use, as long as its function moves along; beyond it events are missed. Zero means 8 MiB.
	QueueBytes int

	// UnsentBytes bounds what was raised and not yet accepted by a provider.
	// Beyond it Raise waits. Zero means 8 MiB.
	UnsentBytes int

	// MaxEventBytes bounds the encoded parameter of an event. Zero means 1 MiB;
	// at most 16 MiB. All instances of a site should have the same.
	MaxEventBytes int

	// RingBytes and RingFrames bound what is kept of what was sent. A receiver
	// that is half of it behind slows Raise down. Zero means 32 MiB, 32,768.
	RingBytes  int
	RingFrames int

	// CacheBytes bounds what is kept, for a minute, of what others sent: if one
	// of them dies, the others repair from it what only some of them have heard.
	// Zero means 64 MiB, negative means that nothing is kept.
	CacheBytes int

	// Logger receives the Broker's records. Nil discards them.
	Logger *slog.Logger

	all []provider.Provider // Providers, then those of Standby that are not among them, by name
}

// Defaults of Config, and bounds that nobody needs to configure.
const (
	defaultMissedAfter   = 10 * time.Second
	defaultMaxStall      = time.Second
	defaultLease         = 30 * time.Second
	defaultPoll          = time.Second
	defaultBytes         = 8 << 20
	defaultMaxEventBytes = 1 << 20
	defaultRingBytes     = 32 << 20
	defaultRingFrames    = 1 << 15
	defaultCacheBytes    = 64 << 20
	largestEventBytes    = 16 << 20

	defaultFrameBytes = 32 << 10 // where providers have no limit
	smallestFrame     = 512      // below it, a frame is mostly header
)

// withDefaults returns cfg with every zero value replaced, or what is wrong.
func (cfg Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"MissedAfter", &cfg.MissedAfter, defaultMissedAfter}, {"MaxStall", &cfg.MaxStall, defaultMaxStall},
		{"Lease", &cfg.Lease, defaultLease}, {"Poll", &cfg.Poll, defaultPoll},
	} {
		if *f.value < 0 {
			return cfg, configErrorf(f.name, "%v is negative; leave it 0 for %v", *f.value, f.zero)
		}
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	for _, f := range []struct {
		name  string
		value *int
		zero  int
	}{
		{"HoldBytes", &cfg.HoldBytes, defaultBytes}, {"QueueBytes", &cfg.QueueBytes, defaultBytes},
		{"UnsentBytes", &cfg.UnsentBytes, defaultBytes}, {"MaxEventBytes", &cfg.MaxEventBytes, defaultMaxEventBytes},
		{"RingBytes", &cfg.RingBytes, defaultRingBytes}, {"RingFrames", &cfg.RingFrames, defaultRingFrames},
	} {
		if *f.value < 0 {
			return cfg, configErrorf(f.name, "%d is negative; leave it 0 for %d", *f.value, f.zero)
		}
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	switch {
	case cfg.CacheBytes == 0:
		cfg.CacheBytes = defaultCacheBytes
	case cfg.CacheBytes < 0:
		cfg.CacheBytes = 0
	}
	if cfg.MaxEventBytes > largestEventBytes {
		return cfg, configErrorf("MaxEventBytes", "%d is more than %d; send a reference to the data instead", cfg.MaxEventBytes, largestEventBytes)
	}
	if err := site.CheckLease(cfg.Lease); err != nil {
		return cfg, &ConfigError{Field: "Lease", Reason: "not possible", Err: err}
	}
	if cfg.Poll > cfg.Lease/3 {
		if cfg.Poll != defaultPoll {
			return cfg, configErrorf("Poll", "%v is more than a third of Lease, %v", cfg.Poll, cfg.Lease)
		}
		cfg.Poll = cfg.Lease / 3
	}
	switch cfg.Role {
	case 0:
		cfg.Role = Both
	case Publish, Subscribe, Both:
	default:
		return cfg, configErrorf("Role", "%d is not Publish, Subscribe or Both", cfg.Role)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Application == "" {
		return cfg, configErrorf("Application", "is empty; name the application")
	}
	if cfg.Site == "" {
		cfg.Site = cfg.Application
	}
	if err := site.CheckName(cfg.Site); err != nil {
		return cfg, &ConfigError{Field: "Site", Reason: "not a name", Err: err}
	}
	if cfg.Server == "" {
		name, err := os.Hostname()
		if err != nil {
			return cfg, &ConfigError{Field: "Server", Reason: "is empty and the host has no name; set it", Err: err}
		}
		cfg.Server = name
	}
	cfg.AcceptSites = slices.Clone(cfg.AcceptSites) // a nil slice stays nil
	cfg.Providers = slices.Clone(cfg.Providers)
	cfg.Standby = maps.Clone(cfg.Standby)
	cfg.all = slices.Clone(cfg.Providers)
	return cfg, cfg.checkProviders()
}

func (cfg *Config) checkProviders() error {
	if len(cfg.Providers) > 0 && cfg.Database == nil {
		return configErrorf("Database", "is nil, and there are Providers: they need the site's keys and members")
	}
	if len(cfg.Providers) == 0 && len(cfg.Standby) > 0 {
		return configErrorf("Standby", "has transports, and there are no Providers that are used before them")
	}
	seen := map[string]bool{}
	for i, p := range cfg.Providers {
		if p == nil {
			return configErrorf("Providers", "number %d is nil", i)
		}
		name := p.Name()
		if name == "" || seen[name] {
			return configErrorf("Providers", "number %d has the name %q, which is empty or taken; names are unique within a Broker", i, name)
		}
		seen[name] = true
		if err := checkLimit("Providers", p); err != nil {
			return err
		}
	}
	for name, make := range cfg.Standby {
		if make == nil {
			return configErrorf("Standby", "%q has no function", name)
		}
	}
	return nil
}

func checkLimit(field string, p provider.Provider) error {
	if limit := p.Capabilities().MaxFrameBytes; limit != 0 && limit < smallestFrame {
		return configErrorf(field, "%q carries frames of at most %d bytes; at least %d are needed", p.Name(), limit, smallestFrame)
	}
	return nil
}

// makeStandby makes those of Standby that are not among Providers. When it fails, it has closed them.
func (cfg *Config) makeStandby() (err error) {
	defer func() {
		if err != nil {
			for _, p := range cfg.all[len(cfg.Providers):] {
				p.Close()
			}
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(cfg.Standby)) {
		if slices.ContainsFunc(cfg.Providers, func(p provider.Provider) bool { return p.Name() == name }) {
			continue
		}
		p, err := cfg.Standby[name]()
		if err != nil {
			return &ConfigError{Field: "Standby", Reason: fmt.Sprintf("%q cannot be made", name), Err: err}
		}
		if p == nil {
			return configErrorf("Standby", "the function of %q made nothing", name)
		}
		cfg.all = append(cfg.all, p)
		if p.Name() != name {
			return configErrorf("Standby", "what the function of %q makes has the name %q", name, p.Name())
		}
		if err := checkLimit("Standby", p); err != nil {
			return err
		}
	}
	return nil
}

// frameBytes returns the largest frame that every provider carries, those standing by included: a stream's frames can be
// sent again on any of them.
func (cfg *Config) frameBytes() int {
	limit := 0
	for _, p := range cfg.all {
		if n := p.Capabilities().MaxFrameBytes; n > 0 && (limit == 0 || n < limit) {
			limit = n
		}
	}
	if limit == 0 {
		limit = defaultFrameBytes
	}
	return min(limit, wire.MaxFrameLen)
}

// secure reports whether every provider declares a secure channel, those standing by included.
func (cfg *Config) secure() bool {
	return !slices.ContainsFunc(cfg.all, func(p provider.Provider) bool {
		return !p.Capabilities().SecureChannel
	})
}
