package appsettings

import (
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/provider/udpbus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// Config turns s into what [carillon.Open] takes, with the providers made and not
// started: the Broker starts and closes them, and makes them anew when the site comes back to
// them. Set what only the program knows, such as the
// Logger, in the result.
//
// db is the site database. It is not used, and may be nil, when events stay in
// this process ([Settings.Local]); the Config has no providers then. The error
// is an [*Error] with all that is wrong, or that of a factory with its provider's
// name; both, joined, where there are both.
func (s *Settings) Config(db site.Database) (carillon.Config, error) {
	cfg := carillon.Config{
		Site:               s.Site,
		Application:        s.Application,
		Server:             s.Server,
		Version:            s.Version,
		AcceptSites:        slices.Clone(s.AcceptSites),
		TrustSecureChannel: s.TrustSecureChannel,
		MissedAfter:        s.MissedAfter,
		MaxStall:           s.Limits.MaxStall,
		Lease:              s.Limits.Lease,
		Poll:               s.Limits.Poll,
		HoldBytes:          s.Limits.HoldBytes,
		QueueBytes:         s.Limits.QueueBytes,
		UnsentBytes:        s.Limits.UnsentBytes,
		MaxEventBytes:      s.Limits.MaxEventBytes,
		RingBytes:          s.Limits.RingBytes,
		RingFrames:         s.Limits.RingFrames,
		CacheBytes:         s.Limits.CacheBytes,
	}
	if s.Application == "" {
		return cfg, s.wrong("Application", `is not set; name the application, the same on all instances`)
	}
	switch fold(s.Role) {
	case "", "both":
		cfg.Role = carillon.Both
	case "publish":
		cfg.Role = carillon.Publish
	case "subscribe":
		cfg.Role = carillon.Subscribe
	default:
		return cfg, s.wrong("Role", "%q: choices: both, publish, subscribe", clip(s.Role))
	}
	if s.Local() {
		return cfg, nil
	}
	if db == nil {
		return cfg, s.wrong("Database", "there is no site database; set Driver and Dsn, or let the program pass in the one that it has")
	}
	cfg.Database = db
	cfg.Standby = map[string]func() (provider.Provider, error){}
	again := func(called, name string) {
		cfg.Standby[called] = func() (provider.Provider, error) { return s.provider(name) }
	}
	var errs []error
	for _, name := range s.Providers {
		p, err := s.provider(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		cfg.Providers = append(cfg.Providers, p)
		again(p.Name(), name)
	}
	for _, name := range s.Standby {
		p, err := s.provider(name) // for what it calls itself, and to know that it can be made
		if err != nil {
			errs = append(errs, err)
			continue
		}
		again(p.Name(), name)
		_ = p.Close()
	}
	if err := s.joined(errs); err != nil {
		for _, made := range cfg.Providers {
			_ = made.Close() // was never started
		}
		cfg.Providers, cfg.Standby = nil, nil
		return cfg, err
	}
	return cfg, nil
}

// provider makes one provider.
func (s *Settings) provider(name string) (provider.Provider, error) {
	switch name = fold(name); name {
	case tcpName:
		cfg, err := s.tcpConfig()
		if err != nil {
			return nil, err
		}
		p, err := tcpbus.New(cfg)
		if err != nil {
			return nil, s.place("Tcp", err)
		}
		return p, nil
	case udpName:
		p, err := udpbus.New(s.udpConfig())
		if err != nil {
			return nil, s.place("Udp", err)
		}
		return p, nil
	}
	factory, ok := s.factories[name]
	if !ok {
		return nil, s.wrong("Provider", "unknown provider %q; %s", clip(name), choose(name, append(builtIn(), slices.Sorted(maps.Keys(s.factories))...)))
	}
	section := s.Section(name)
	p, err := factory(section)
	err = section.Place(err)
	switch {
	case isError(err):
		return nil, err // its keys name the provider
	case err != nil:
		return nil, fmt.Errorf("make provider %q: %w", name, err)
	case p == nil:
		return nil, fmt.Errorf("make provider %q: its factory returned neither a provider nor an error", name)
	}
	return p, nil
}

func (s *Settings) udpConfig() udpbus.Config {
	return udpbus.Config{
		Mode:          udpbus.Mode(s.UDP.Mode),
		Group:         s.UDP.Group,
		Port:          s.UDP.Port,
		Interface:     s.UDP.Interface,
		TTL:           s.UDP.TTL,
		Peers:         s.UDP.Peers,
		MaxFrameBytes: s.UDP.MaxFrameBytes,
	}
}

func (s *Settings) tcpConfig() (tcpbus.Config, error) {
	cfg := tcpbus.Config{
		Listen:           s.TCP.Listen,
		Advertise:        s.TCP.Advertise,
		Endpoints:        s.TCP.Endpoints,
		AllowNetworks:    s.TCP.AllowNetworks,
		MaxFrameBytes:    s.TCP.MaxFrameBytes,
		QueueBytes:       s.TCP.QueueBytes,
		DialTimeout:      s.TCP.DialTimeout,
		HandshakeTimeout: s.TCP.HandshakeTimeout,
		PeerTimeout:      s.TCP.PeerTimeout,
	}
	if s.TCP.TLS.CertFile != "" {
		var err error
		if cfg.TLS, err = s.tls(); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// tls reads the files that Carillon:Tcp:Tls names.
func (s *Settings) tls() (*tls.Config, error) {
	files := s.TCP.TLS
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, s.wrong("Tcp:Tls:CertFile", "load %q and %q: %v", files.CertFile, files.KeyFile, err)
	}
	pem, err := os.ReadFile(files.CAFile)
	if err != nil {
		return nil, s.wrong("Tcp:Tls:CaFile", "%v", err)
	}
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM(pem) {
		return nil, s.wrong("Tcp:Tls:CaFile", "%q holds no certificate in PEM form", files.CAFile)
	}
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    authority,
		RootCAs:      authority,
		ServerName:   files.ServerName,
	}
	if files.ServerName == "" {
		// What the standard library checks, without the name: it would have to be
		// that of a machine which did not exist when the certificate was made.
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			opts := x509.VerifyOptions{Roots: authority, Intermediates: x509.NewCertPool()}
			for _, c := range state.PeerCertificates[1:] {
				opts.Intermediates.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(opts)
			return err
		}
	}
	return cfg, nil
}

// A SiteDatabase is the site database of Carillon:Database with the pool that
// it is on.
type SiteDatabase struct {
	*sqlsite.Database
	Pool *sql.DB
}

// Close closes the database and the pool.
func (d *SiteDatabase) Close() error { return errors.Join(d.Database.Close(), d.Pool.Close()) }

// OpenDatabase opens the database of Carillon:Database. The program links the
// driver. It does not connect; the first use does. The caller closes the result
// after the Broker.
func (s *Settings) OpenDatabase() (*SiteDatabase, error) {
	switch driver, drivers := s.Database.Driver, sql.Drivers(); {
	case driver == "":
		return nil, s.wrong("Database:Driver", "is not set; drivers of this program: %s", strings.Join(drivers, ", "))
	case !slices.Contains(drivers, driver):
		return nil, s.wrong("Database:Driver", "%q is not in this program; %s", clip(driver), choose(driver, drivers))
	case s.Database.DSN.IsZero():
		return nil, s.wrong("Database:Dsn", "is not set; it tells the driver %q where to connect", driver)
	}
	if s.Database.Secrets == secretsEncrypted && len(s.Database.KeyEncryptionKeys) == 0 {
		return nil, s.wrong("Database:Secrets", "is %q, and Database:KeyEncryptionKeys is not set", secretsEncrypted)
	}
	pool, err := sql.Open(s.Database.Driver, s.Database.DSN.Reveal())
	if err != nil {
		// Not the driver's words: some repeat what they could not read, password and
		// all.
		return nil, s.wrong("Database:Dsn", "the driver %q cannot read it (its value is not shown)", s.Database.Driver)
	}
	db, err := sqlsite.New(pool, s.Database.Options()...)
	if err != nil {
		_ = pool.Close() // nothing was opened yet
		return nil, s.wrong("Database:TablePrefix", "%v", err)
	}
	return &SiteDatabase{db, pool}, nil
}

// wrong returns an error about one key, with the place where it is written.
func (s *Settings) wrong(path, format string, args ...any) error {
	folded := ownSection + ":" + fold(path)
	at, ok := s.at[folded]
	if !ok {
		at = s.at[folded+":0"] // of a list, each element has a place
	}
	var ps problems
	ps.add(at, "Carillon:"+path, format, args...)
	return ps.err()
}

// place says where the setting stands that a provider of this package has refused; section is its own.
func (s *Settings) place(section string, err error) error {
	wrong, ok := errors.AsType[*provider.SettingError](err)
	if !ok {
		return s.wrong(section, "%v", err)
	}
	path := section + ":" + wrong.Setting
	for _, k := range known() {
		if fold(k.path) == fold(path) {
			path = k.path // which has other capitals
		}
	}
	return s.wrong(path, "%v", wrong.Err)
}

// isError reports whether err is what is wrong in the configuration, and nothing
// that somebody made of it.
func isError(err error) bool {
	_, ok := err.(*Error)
	return ok
}

// joined returns errs as one: an [*Error] with the problems of all that are one,
// and then the others. Nil if there are none.
func (s *Settings) joined(errs []error) error {
	ps := problems{sources: slices.Clone(s.sources)}
	var all []error
	for _, err := range errs {
		e, ok := err.(*Error)
		if !ok {
			all = append(all, err)
			continue
		}
		for _, p := range e.Problems {
			ps.source(p.Source)
			ps.list = append(ps.list, p)
		}
	}
	if err := ps.err(); err != nil {
		all = slices.Insert(all, 0, err)
	}
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}
