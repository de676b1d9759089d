package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/cmd/internal/transports"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// siteFlags say which site a command is about. What they leave open comes from
// the configuration.
type siteFlags struct {
	Config   string        `placeholder:"PATH" help:"Settings file (default: appsettings.json in this folder, if there is one)."`
	Database string        `placeholder:"DRIVER:DSN" help:"Site database, as in sqlite:site.db, pgx:postgres://host/db, mysql:user@tcp(host)/db. A password given here is visible to others on this machine."`
	Site     string        `placeholder:"NAME" help:"Name of the site in its database (default: Carillon:Site, Carillon:Application, or the only one there is)."`
	Timeout  time.Duration `default:"10s" help:"How long to wait for the database and the other instances."`
}

// refuseSite returns an error if a site is named to a command that is about all
// sites of the database.
func (f *siteFlags) refuseSite(command string) error {
	if f.Site == "" {
		return nil
	}
	return &problem{exitUsage, fmt.Errorf("--site %s: %s changes all sites of the database", f.Site, command), "leave --site out"}
}

// providerFlag says what carries the events.
type providerFlag struct {
	Provider []string `placeholder:"NAME" help:"What carries the events, unless the site was moved: ${transports} (default: that of the configuration, or tcp). A site that was moved uses what it was moved to."`
}

// drivers are the names that people give to the drivers linked here.
var drivers = map[string]string{
	"sqlite": "sqlite", "sqlite3": "sqlite",
	"pgx": "pgx", "postgres": "pgx", "postgresql": "pgx",
	"mysql": "mysql", "mariadb": "mysql",
}

const driverChoices = "sqlite, pgx, mysql"

// application is what other instances know this program by, unless the
// configuration says otherwise.
const application = "carillon"

// settings reads the configuration and lets the flags have the last word. The site
// is empty if none is named.
func (f *siteFlags) settings(std streams, providers []string) (*appsettings.Settings, error) {
	s, err := appsettings.Load(appsettings.Options{Path: f.Config, Providers: transports.Factories()})
	if err != nil {
		return nil, &problem{exitUsage, err, remedy(err, "correct it, or name another file with --config")}
	}
	for _, n := range s.Notices {
		fmt.Fprintf(std.err, "carillon: %s\n", n)
	}
	if f.Database != "" {
		driver, dsn, ok := strings.Cut(f.Database, ":")
		if !ok || dsn == "" {
			return nil, &problem{exitUsage, errors.New("--database does not say driver and address"),
				"write it like --database sqlite:site.db; drivers: " + driverChoices}
		}
		s.Database.Driver, s.Database.DSN = driver, appsettings.NewDSN(dsn)
	}
	if s.Database.Driver == "" || s.Database.DSN.IsZero() {
		return nil, &problem{exitUsage, errors.New("no site database is configured"),
			"name it with --database DRIVER:DSN, or set Carillon:Database:Driver and Dsn in " + f.path()}
	}
	name, ok := drivers[strings.ToLower(s.Database.Driver)]
	if !ok {
		return nil, &problem{exitUsage, fmt.Errorf("there is no database driver %q in this program", s.Database.Driver), "drivers: " + driverChoices}
	}
	s.Database.Driver = name
	if f.Site != "" {
		s.Site = f.Site
	}
	if s.Site == "" {
		s.Site = s.Application
	}
	if s.Application == "" {
		s.Application = application
	}
	if len(providers) > 0 {
		s.Providers = providers
	}
	return s, nil
}

// remedy returns what to do about a configuration that is wrong: other, unless all that is written and wrong is in environment
// variables. Then there may be no file, and what is missing is most likely there under a misspelt name.
func remedy(err error, other string) string {
	wrong, ok := errors.AsType[*appsettings.Error](err)
	if !ok {
		return other
	}
	variables := map[string]bool{}
	for _, p := range wrong.Problems {
		switch name := p.Variable(); {
		case name != "":
			variables[name] = true
		case p.Source != "":
			return other
		}
	}
	switch len(variables) {
	case 0:
		return other
	case 1:
		return "correct the variable"
	}
	return "correct the variables"
}

func (f *siteFlags) path() string {
	if f.Config != "" {
		return f.Config
	}
	return "appsettings.json"
}

// openDatabase opens what the settings name. Closing gives everything back.
func openDatabase(s *appsettings.Settings) (db *sqlsite.Database, closeAll func(), err error) {
	dsn := s.Database.DSN.Reveal()
	if s.Database.Driver == "sqlite" {
		if err := missingFile(dsn); err != nil {
			return nil, nil, err
		}
	}
	if s.Database.Driver == "sqlite" && !strings.Contains(dsn, "mode=") {
		// A misspelt path must not become a new, empty database.
		dsn = existing(dsn)
	}
	pool, err := sql.Open(s.Database.Driver, dsn)
	if err != nil {
		// The driver's own words may repeat the DSN and the password in it.
		return nil, nil, &problem{exitUsage, fmt.Errorf("the address of the site database is not one that the driver %q understands", s.Database.Driver), ""}
	}
	db, err = sqlsite.New(pool, s.Database.Options()...)
	if err != nil {
		pool.Close()
		return nil, nil, &problem{exitUsage, err, "correct it in Carillon:Database"}
	}
	return db, func() { db.Close(); pool.Close() }, nil
}

// missingFile returns the problem with a SQLite DSN whose file is not there; nil if it
// is, or if the DSN does not tell.
func missingFile(dsn string) error {
	path, uri := strings.CutPrefix(dsn, "file:")
	if uri {
		path, _, _ = strings.Cut(path, "?")
		if p, ok := strings.CutPrefix(path, "//"); ok {
			if i := strings.Index(p, "/"); i >= 0 {
				path = p[i:] // behind the host
			}
		}
		var err error
		if path, err = url.PathUnescape(path); err != nil {
			return nil
		}
		if strings.Contains(dsn, "mode=memory") {
			return nil
		}
	}
	if path == "" || path == ":memory:" {
		return nil
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	hint := "correct the path in --database, or in Carillon:Database:Dsn"
	if wd, err := os.Getwd(); err == nil && !filepath.IsAbs(path) {
		hint = "the path counts from the working directory, which is " + wd
	}
	return &problem{exitDatabase, fmt.Errorf("the site database (sqlite) cannot be used: there is no file %s", path), hint}
}

// existing makes a SQLite DSN that fails where there is no file.
func existing(dsn string) string {
	if !strings.HasPrefix(dsn, "file:") {
		dsn = "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(dsn)
	}
	if strings.Contains(dsn, "?") {
		return dsn + "&mode=rw"
	}
	return dsn + "?mode=rw"
}

// databaseProblem says what to do about a database that cannot be used.
func databaseProblem(s *appsettings.Settings, err error) error {
	if strings.Contains(err.Error(), "the tables are not there") {
		return noSites(s)
	}
	switch {
	case errors.Is(err, site.ErrSecret):
		return &problem{exitDatabase, fmt.Errorf("the site database (%s) cannot be used: %w", s.Database.Driver, err), "where the keys are configured: Carillon:Database:KeyEncryptionKeys"}
	case errors.Is(err, site.ErrRestored):
		return &problem{exitDatabase, fmt.Errorf("the site database (%s) cannot be used: %w", s.Database.Driver, err), "where the lowest generation is configured: Carillon:Database:LowestGeneration"}
	}
	hint := "is it running, and may this user log in? another database: --database DRIVER:DSN"
	if s.Database.Driver == "sqlite" {
		hint = "is that the path of the file, and may this user read and write it and its folder?"
	}
	return &problem{exitDatabase, fmt.Errorf("the site database (%s) cannot be used: %w", s.Database.Driver, err), hint}
}

// noSites is the problem with a database in which there is nothing.
func noSites(s *appsettings.Settings) error {
	return &problem{exitDatabase, fmt.Errorf("the site database (%s) has no sites", s.Database.Driver),
		"no instance has opened a site here yet; is this the right database?"}
}

// known makes sure that the site is in the database: opening a Broker would
// create it, and a misspelt name would be a new site where nobody is.
// If none is named and there is only one, that is it.
func known(ctx context.Context, db site.Database, s *appsettings.Settings) (site.Site, error) {
	sites, err := db.Sites(ctx)
	if err != nil {
		return site.Site{}, databaseProblem(s, err)
	}
	var names []string
	for _, st := range sites {
		if st.Name == s.Site {
			return st, nil
		}
		names = append(names, st.Name)
	}
	if len(names) == 0 {
		return site.Site{}, noSites(s)
	}
	if s.Site == "" && len(sites) == 1 {
		s.Site = sites[0].Name
		return sites[0], nil
	}
	slices.Sort(names)
	hint := "it has: " + strings.Join(names, ", ")
	if s.Site == "" {
		return site.Site{}, &problem{exitUsage, errors.New("no site is configured, and the database has several"),
			"name it with --site, Carillon:Site or Carillon:Application; " + hint}
	}
	return site.Site{}, &problem{exitUsage, fmt.Errorf("there is no site %q in the database", s.Site), hint}
}

// open joins the site that the flags and the configuration name. Leaving says
// goodbye to the other instances; its error says what was left undone.
func open(ctx context.Context, std streams, f *siteFlags, p *providerFlag, role carillon.Role) (b *carillon.Broker, leave func() error, err error) {
	s, err := f.settings(std, p.Provider)
	if err != nil {
		return nil, nil, err
	}
	if err := f.switchedOff(s); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	db, closeDatabase, err := openDatabase(s)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			closeDatabase()
		}
	}()
	st, err := known(ctx, db, s)
	if err != nil {
		return nil, nil, err
	}
	if err := standBy(s, db, st); err != nil {
		return nil, nil, &problem{exitUsage, err, remedy(err, "correct it in "+f.path())}
	}
	cfg, err := s.Config(db)
	if err != nil {
		return nil, nil, &problem{exitUsage, err, remedy(err, "correct it in "+f.path())}
	}
	cfg.Role, cfg.Logger = role, warnings(std.err)
	b, err = carillon.Open(ctx, cfg)
	if err != nil {
		return nil, nil, f.joinProblem(err)
	}
	return b, func() error {
		defer closeDatabase()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		return b.Shutdown(ctx)
	}, nil
}

// switchedOff returns the problem with settings that let no transport be made; nil if they do.
func (f *siteFlags) switchedOff(s *appsettings.Settings) error {
	if !s.Local() {
		return nil
	}
	return &problem{exitUsage, errors.New("events are switched off in the configuration"),
		"set Carillon:EnableEvents and EnableRemoteEvents to true in " + f.path()}
}

// standBy adds what the site's events go through, and every transport that is configured, to those that stand by: this
// program follows a site that was moved, or is being moved, whatever it was told to use. What the site does not go through,
// and nobody named, is left out if its section is wrong: it has nothing to do with what this program was asked for.
func standBy(s *appsettings.Settings, db site.Database, st site.Site) error {
	for _, name := range transports.Names() {
		wanted := slices.Contains(st.Transports.Receive, name) || slices.Contains(st.Transports.To, name)
		named := slices.Contains(s.Providers, name) || slices.Contains(s.Standby, name)
		if named || !wanted && len(s.Section(name).Keys()) == 0 {
			continue
		}
		if err := usable(s, db, name); err != nil {
			if wanted {
				return fmt.Errorf("the site %s: %w", moved(st.Transports), err)
			}
			continue
		}
		s.Standby = append(s.Standby, name)
	}
	return nil
}

// moved says what was done with a site whose transports are not those that its instances are configured for.
func moved(t site.Transports) string {
	if t.Moving() {
		return fmt.Sprintf("is being moved from %s to %s", names(t.From), names(t.To))
	}
	return "was moved to " + names(t.Send)
}

// usable returns an error unless the settings have what it takes to make the transport.
func usable(s *appsettings.Settings, db site.Database, name string) error {
	only := *s
	only.Providers, only.Standby = []string{name}, nil
	cfg, err := only.Config(db)
	for _, p := range cfg.Providers {
		p.Close() // it was never started
	}
	return err
}

// joinProblem sorts out why a Broker did not open.
func (f *siteFlags) joinProblem(err error) error {
	if _, ok := errors.AsType[*carillon.ConfigError](err); ok {
		return &problem{exitUsage, err, ""}
	}
	// Then it is not for another instance's sake, and the transport's own error says what to do.
	connecting := strings.Contains(err.Error(), "start provider ")
	if errors.Is(err, context.DeadlineExceeded) {
		hint := "wait longer with --timeout, or see who does not answer: " + f.command("members")
		if connecting {
			hint = "wait longer with --timeout"
		}
		return &problem{exitTimeout, err, hint}
	}
	hint := "who is there: " + f.command("members")
	if connecting {
		hint = ""
	}
	if cannotBind(err) {
		hint = "choose an address of this machine that is free: Carillon:Tcp:Listen for tcp, Carillon:Udp:Port for udp"
	}
	return &problem{exitUnavailable, err, hint}
}

// cannotBind reports whether an address could not be listened on.
func cannotBind(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "listen" || errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// warnings logs what a person at a terminal should know.
func warnings(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
