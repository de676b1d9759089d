package appsettings

import (
	"os"
	"path/filepath"
)

// Options say where to look. The zero Options look for appsettings.json in the
// working directory.
type Options struct {
	// Path is the settings file. Its variant for the environment and web.config
	// are looked for beside it. A file named here must exist. Empty means
	// appsettings.json in the working directory, which need not exist.
	Path string

	// Environ are the environment variables, as "name=value". Nil means those of
	// the process; empty and not nil means none.
	Environ []string

	// Providers are the application's own providers by the name that selects
	// them. "tcp" and "udp" are built in; "azure", "aws" and "redis" are the names
	// to which the .NET types for these services are translated. The full name of
	// a .NET type may serve as a name as well.
	Providers map[string]Factory
}

// Load reads, merges and checks the configuration. What is wrong in it is one
// [*Error]; another error means that opts is wrong. Load reads files and nothing
// else: it opens no connection and changes nothing.
func Load(opts Options) (*Settings, error) {
	names, err := newResolver(opts.Providers)
	if err != nil {
		return nil, err
	}
	environ := opts.Environ
	if environ == nil {
		environ = os.Environ()
	}
	path := opts.Path
	if path == "" {
		path = "appsettings.json"
	}
	r := reader{dir: filepath.Dir(path), names: names}
	es, overridden := r.all(path, opts.Path != "", environ)

	s := r.settings(es, overridden)
	for _, file := range []*string{&s.TCP.TLS.CertFile, &s.TCP.TLS.KeyFile, &s.TCP.TLS.CAFile} {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(r.dir, *file)
		}
	}
	s.sections, s.factories = map[string]Section{}, map[string]Factory{}
	for folded, spelled := range names.custom {
		s.sections[folded] = newSection(spelled, es, r.ps.sources)
		s.factories[folded] = opts.Providers[spelled]
	}
	s.at, s.sources = map[string]origin{}, r.ps.sources
	for path, e := range es {
		s.at[path] = e.at
	}
	if err := r.ps.err(); err != nil {
		return nil, err
	}
	s.Notices = r.notices
	return s, nil
}

// settings turns what was read into Settings and notes everything that is wrong
// with it.
func (r *reader) settings(es entries, overridden []entry) *Settings {
	s := defaults()
	apply(s, known(), ownSection, es, r.names.spelled(), &r.ps)
	r.settle(s, es, overridden)
	check(s, es, &r.ps)
	return s
}

// defaults returns what holds when nobody says anything.
func defaults() *Settings {
	return &Settings{
		EnableEvents:       true,
		EnableRemoteEvents: true,
		Role:               "both",
		Providers:          []string{tcpName},
		UDP:                UDP{Mode: multicast},
	}
}
