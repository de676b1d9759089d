// Package transports says what the programs here can carry events through, beside tcp and udp which
// package appsettings knows itself. One more takes a file with its function, and its line in Factories.
package transports

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/carillon-go/carillon/appsettings"
)

// Factories returns the transports by the names that select them in a configuration. The
// section of each, such as Carillon:Nats, is described in docs/configuration.md.
func Factories() map[string]appsettings.Factory {
	return map[string]appsettings.Factory{
		"azure":    azure,
		"mqtt":     mqtt,
		"nats":     nats,
		"postgres": postgres,
		"rabbit":   rabbit,
		"redis":    redis,
	}
}

// Names returns the names of all transports, tcp and udp included, ascending.
func Names() []string {
	names := []string{"tcp", "udp"}
	for name := range Factories() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// only returns an error if the section has a key that is none of keys, or a list under one of them: a key with a
// mistake in it would be one that is not set.
func only(s appsettings.Section, keys ...string) error {
	for _, key := range s.Keys() {
		name, _, _ := strings.Cut(key, ":")
		if !slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, name) }) {
			return fmt.Errorf("unknown key %q; keys here: %s", key, strings.Join(keys, ", "))
		}
	}
	return nil
}

// number returns the number of a key; 0 if there is none. Its error shows no value.
func number(s appsettings.Section, key string) (int, error) {
	text := s.Get(key)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s: want a whole number", key)
	}
	return n, nil
}

// boolean returns the value of a key; false if there is none. Its error shows no value.
func boolean(s appsettings.Section, key string) (bool, error) {
	text := s.Get(key)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s: want true or false", key)
	}
	return v, nil
}
