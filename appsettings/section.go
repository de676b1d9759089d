package appsettings

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// A Factory makes a provider that the application brings along. section is what
// the configuration says under the provider's name: "Carillon:{Name}:…", or the
// attributes of its <add> in web.config. The provider is not started; the
// Broker does that, and closes it.
//
// A Factory reads all its keys, and then returns what [Section.Err] returns, if
// that is an error. Of a [provider.SettingError] is told where the setting stands, see [Section.Place]. Any other
// error should name the key and say what is wanted, without a value that may be secret.
type Factory func(section Section) (provider.Provider, error)

// A Section holds the configuration of one of the application's own providers.
// Keys are compared without regard to case, and a key within a key has a colon:
// "Tls:CertFile". The zero Section is empty. A Section does not print its
// values, as some are secrets.
//
// Its methods take values in the forms in which the rest of the configuration
// has them, and return zero for a key that is not there or is wrong; what is
// wrong is kept for [Section.Err]. They may be called concurrently.
type Section struct {
	// A function for the reason that [DSN] has a pointer; a pointer to a struct
	// would be followed. Nil means empty.
	data func() *sectionData
}

type sectionData struct {
	name    string   // as the application spells it
	es      entries  // all that is within the section, by the whole path
	sources []string // of the whole configuration, in the order of problems

	mu    sync.Mutex
	asked []setting // what the factory asked for
}

// root returns the folded path of the section, and path that of a key in it.
func (d *sectionData) root() string           { return join(ownSection, fold(d.name)) }
func (d *sectionData) path(key string) string { return join(d.root(), fold(key)) }

// ask notes that k is a key of this section. One that was asked for as a text as
// well is what it was asked for otherwise.
func (d *sectionData) ask(k setting) {
	k.path = join(d.name, k.path)
	k.secret = true // which of them are, only the factory knows
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.asked, func(a setting) bool { return fold(a.path) == fold(k.path) })
	switch {
	case i < 0:
		d.asked = append(d.asked, k)
	case !k.isText:
		d.asked[i] = k
	}
}

// Lookup returns the text of a key and whether it is there.
func (s Section) Lookup(key string) (value string, ok bool) {
	if s.data == nil {
		return "", false
	}
	d := s.data()
	d.ask(setting{path: key, isText: true, set: func(*Settings, string) error { return nil }})
	e := d.es[d.path(key)] // its kind is that of nothing if it is not there
	return e.text, e.kind == scalar
}

// Get returns the text of a key, or "".
func (s Section) Get(key string) string {
	value, _ := s.Lookup(key)
	return value
}

// List returns the elements of a list, or those of a text with commas. It is
// nil when there are none.
func (s Section) List(key string) []string {
	if s.data == nil {
		return nil
	}
	d := s.data()
	d.ask(setting{path: key, list: true, setList: func(*Settings, []string) (int, error) { return 0, nil }})
	var list []string
	for _, e := range d.es.elements(d.path(key)) {
		list = append(list, e.text)
	}
	return list
}

// Bool returns true or false.
func (s Section) Bool(key string) bool { return parsed(s, key, parseBool) }

// Int returns a whole number, zero or more.
func (s Section) Int(key string) int {
	return parsed(s, key, func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return 0, errors.New("want a whole number, zero or more")
		}
		return n, nil
	})
}

// Bytes returns a number of bytes, zero or more, which is written alone or with
// a unit, as in "64KiB".
func (s Section) Bytes(key string) int {
	return parsed(s, key, func(text string) (int, error) { return parseBytes(text, 0, math.MaxInt) })
}

// Duration returns a time, which is above zero if it is written, in Go's form or
// in .NET's: "1m30s", "00:01:30".
func (s Section) Duration(key string) time.Duration { return parsed(s, key, parseDuration) }

// parsed returns what the text of a key means. parse returns zero with an error,
// which says what is wanted and nothing of the text.
func parsed[T any](s Section, key string, parse func(string) (T, error)) (v T) {
	if s.data == nil {
		return v
	}
	d := s.data()
	d.ask(setting{path: key, set: func(_ *Settings, text string) error {
		_, err := parse(text)
		return err
	}})
	if e := d.es[d.path(key)]; e.kind == scalar {
		v, _ = parse(e.text) // Err says why it is zero
	}
	return v
}

// Err returns everything that is wrong in the section as an [*Error], or nil:
// values of another form than they were asked for in, and keys that nobody has
// asked for, as a misspelt one would otherwise be obeyed silently as its
// default. So it is called last. No value is part of the error.
func (s Section) Err() error {
	if s.data == nil {
		return nil
	}
	d := s.data()
	d.mu.Lock()
	defer d.mu.Unlock()
	ps := problems{sources: slices.Clone(d.sources)}
	apply(nil, d.asked, d.root(), d.es, nil, &ps)
	return ps.err()
}

// Place says where the setting stands that a provider has refused: it returns a [provider.SettingError] whose setting
// was asked for as an [*Error], with its key and, if it is written, with its file and line. Any other error, and nil, it returns as it
// is. [Settings.Config] does so with what a [Factory] returns.
func (s Section) Place(err error) error {
	wrong, ok := errors.AsType[*provider.SettingError](err)
	if !ok || isError(err) || s.data == nil {
		return err
	}
	d := s.data()
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.asked, func(k setting) bool { return fold(k.path) == fold(join(d.name, wrong.Setting)) })
	if i < 0 {
		return err
	}
	asked := d.asked[i].path // as the factory writes it, below the name of the provider in small letters
	key, at := "Carillon:"+strings.ToUpper(asked[:1])+asked[1:], origin{}
	if e, ok := d.es[d.path(wrong.Setting)]; ok {
		key, at = e.path, e.at
	} else if e, ok := d.es[d.path(wrong.Setting)+":0"]; ok {
		at = e.at
	}
	var ps problems
	ps.add(at, key, "%v", wrong.Err)
	return ps.err()
}

// Keys returns all keys as they were written, sorted. A list has a key for each
// of its elements, as in "Hosts:0".
func (s Section) Keys() []string {
	keys := []string{}
	if s.data == nil {
		return keys
	}
	for path, e := range s.data().es {
		// Folding may change how many bytes a letter takes, so the key is cut out of
		// the path by its colons.
		if parts := strings.SplitN(e.path, ":", 3); e.kind == scalar && path != s.data().root() {
			keys = append(keys, parts[2])
		}
	}
	slices.Sort(keys)
	return keys
}

// String returns the names of the keys.
func (s Section) String() string {
	if s.data == nil {
		return "{}"
	}
	return s.data().name + "{" + strings.Join(s.Keys(), " ") + "}"
}

// Format implements [fmt.Formatter] for every verb.
func (s Section) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s Section) LogValue() slog.Value { return slog.StringValue(s.String()) }

// newSection collects what stands below a provider's name.
func newSection(name string, all entries, sources []string) Section {
	d := &sectionData{name: name, es: entries{}, sources: sources}
	for path, e := range all {
		if within(path, d.root()) {
			d.es[path] = e
		}
	}
	return Section{func() *sectionData { return d }}
}

// anew returns the section as if nobody had asked it for anything.
func (s Section) anew() Section {
	if s.data == nil {
		return s
	}
	old := s.data()
	d := &sectionData{name: old.name, es: old.es, sources: old.sources}
	return Section{func() *sectionData { return d }}
}
