package transports

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
)

// A reader reads the section of one transport, and remembers which keys were asked for and what is wrong with them. No
// error shows a value, as it may be a password.
type reader struct {
	section appsettings.Section
	known   []string
	errs    []error
}

func (r *reader) text(key string) string {
	r.known = append(r.known, key)
	return r.section.Get(key)
}

func (r *reader) list(key string) []string {
	r.known = append(r.known, key)
	return r.section.List(key)
}

func (r *reader) number(key string) int {
	return parsed(r, key, "a whole number", strconv.Atoi)
}

func (r *reader) boolean(key string) bool {
	return parsed(r, key, "true or false", strconv.ParseBool)
}

func (r *reader) duration(key string) time.Duration {
	return parsed(r, key, "a duration, such as 10m", time.ParseDuration)
}

// parsed returns what the text of a key means; the zero value if there is none.
func parsed[T any](r *reader, key, want string, parse func(string) (T, error)) (v T) {
	text := r.text(key)
	if text == "" {
		return v
	}
	v, err := parse(text)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: want %s", key, want))
	}
	return v
}

// build makes a transport of what was read, unless something is wrong with it. A key that nobody asked for is, since one with a mistake in it would be one that is not set.
func build[C any, P provider.Provider](r *reader, cfg C, make func(C) (P, error)) (provider.Provider, error) {
	errs := r.errs
	for _, key := range r.section.Keys() {
		name, _, _ := strings.Cut(key, ":")
		if !slices.ContainsFunc(r.known, func(k string) bool { return strings.EqualFold(k, name) }) {
			errs = append(errs, fmt.Errorf("unknown key %q; keys here: %s", key, strings.Join(r.known, ", ")))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p, err := make(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w; keys here: %s", err, strings.Join(r.known, ", "))
	}
	return p, nil
}
