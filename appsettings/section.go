package appsettings

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/carillon-go/carillon/provider"
)

// A Factory makes a provider that the application brings along. section is what
// the configuration says under the provider's name: "Carillon:{Name}:…", or the
// attributes of its <add> in web.config. The provider is not started; the
// Broker does that, and closes it.
//
// An error should name the key and say what is wanted, without a value that may
// be secret.
type Factory func(section Section) (provider.Provider, error)

// A Section holds the configuration of one of the application's own providers.
// Keys are compared without regard to case, and a key within a key has a colon:
// "Tls:CertFile". The zero Section is empty. A Section does not print its
// values, as some are secrets.
type Section struct {
	// A function for the reason that [DSN] has a pointer; a pointer to a struct
	// would be followed. Nil means empty.
	data func() sectionData
}

type sectionData struct {
	name   string
	values map[string]sectionValue // by folded key
}

type sectionValue struct {
	key  string // as it was written
	text string
}

func (s Section) values() map[string]sectionValue {
	if s.data == nil {
		return nil
	}
	return s.data().values
}

// Lookup returns the value of a key and whether it is there.
func (s Section) Lookup(key string) (value string, ok bool) {
	v, ok := s.values()[fold(key)]
	return v.text, ok
}

// Get returns the value of a key, or "".
func (s Section) Get(key string) string {
	value, _ := s.Lookup(key)
	return value
}

// List returns the elements of a list, or those of a text with commas. It is
// nil when there are none.
func (s Section) List(key string) []string {
	es := entries{}
	for path, v := range s.values() {
		es[path] = entry{kind: scalar, text: v.text}
	}
	var list []string
	for _, e := range es.elements(fold(key)) {
		list = append(list, e.text)
	}
	return list
}

// Keys returns all keys as they were written, sorted. A list has a key for each
// of its elements, as in "Hosts:0".
func (s Section) Keys() []string {
	keys := make([]string, 0, len(s.values()))
	for _, v := range s.values() {
		keys = append(keys, v.key)
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
func newSection(name string, es entries) Section {
	values := map[string]sectionValue{}
	prefix := ownSection + ":" + fold(name) + ":"
	for path, e := range es {
		// Folding may change how many bytes a letter takes, so the key is cut out of
		// the path by its colons.
		if strings.HasPrefix(path, prefix) && e.kind == scalar {
			key := e.path
			for range strings.Count(prefix, ":") {
				_, key, _ = strings.Cut(key, ":")
			}
			values[path[len(prefix):]] = sectionValue{key: key, text: e.text}
		}
	}
	return Section{func() sectionData { return sectionData{name, values} }}
}
