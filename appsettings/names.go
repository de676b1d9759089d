package appsettings

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Names of the providers that are always there.
const (
	tcpName = "tcp"
	udpName = "udp"
)

func builtIn() []string { return []string{tcpName, udpName} }

// elsewhere says which providers Carillon knows by name though this package
// does not link them, because their SDKs are large: the application passes them
// in.
func elsewhere() []string {
	return []string{"aws", "azure", "jetstream", "kafka", "mqtt", "nats", "postgres", "rabbit", "redis", "redisstreams"}
}

// A typeName is what one of the .NET types that carried events is called here.
type typeName struct {
	provider string
	udpMode  string // what the type did, where we have one provider for several
	notice   string // what its operator has to know
}

// typeNames returns our names for the full names of .NET types, folded, without
// their assembly.
func typeNames() map[string]typeName {
	const members = "members are found through the site database"
	return map[string]typeName{
		"episerver.events.providers.udpeventprovider": {provider: udpName},
		"episerver.events.providers.tcpeventprovider": {provider: tcpName},
		"episerver.events.providers.wcfeventprovider": {provider: tcpName, notice: "service-model endpoints are not used; " + members + `, and Carillon:Provider chooses "tcp" or "udp"`},

		"episerver.events.sockets.udpmulticasteventprovider": {provider: udpName, udpMode: "multicast",
			notice: "its own section is not used; set Carillon:Udp:Group and Carillon:Udp:Port"},
		"episerver.events.sockets.udpunicasteventprovider": {provider: udpName, udpMode: "unicast",
			notice: "its own section is not used; set Carillon:Udp:Port and Carillon:Udp:Peers"},

		"episerver.azure.events.azureeventprovider":              {provider: "azure"},
		"episerver.events.azure.azureeventprovider":              {provider: "azure"},
		"episerver.amazon.events.amazoneventprovider":            {provider: "aws"},
		"episerver.redis.events.rediseventprovider":              {provider: "redis"},
		"stefanolsen.events.redis.rediseventprovider":            {provider: "redis"},
		"stefanolsen.optimizely.events.redis.rediseventprovider": {provider: "redis"},
	}
}

// A resolver turns the names that people write into the names of providers.
type resolver struct {
	custom map[string]string // folded → as the application spelled it
	types  map[string]typeName
}

// newResolver checks the names that the application brings.
func newResolver(factories map[string]Factory) (resolver, error) {
	r := resolver{custom: map[string]string{}, types: typeNames()}
	var taken []string
	for _, k := range known() {
		first, _, _ := strings.Cut(k.path, ":")
		taken = append(taken, fold(first))
	}
	for _, name := range slices.Sorted(maps.Keys(factories)) {
		switch {
		case name == "" || strings.ContainsAny(name, ": ,=") || strings.Contains(name, "__"):
			return r, fmt.Errorf("appsettings: provider name %q: want a name without colon, comma, space, \"=\" and \"__\"", name)
		case slices.Contains(taken, fold(name)):
			return r, fmt.Errorf("appsettings: provider name %q is taken by a key of Carillon; choose another", name)
		case factories[name] == nil:
			return r, fmt.Errorf("appsettings: provider %q has no factory", name)
		}
		if other, ok := r.custom[fold(name)]; ok {
			return r, fmt.Errorf("appsettings: provider names %q and %q differ only in case", other, name)
		}
		r.custom[fold(name)] = name
	}
	return r, nil
}

// spelled returns the names that the application brings, as it spells them.
func (r resolver) spelled() []string { return slices.Sorted(maps.Values(r.custom)) }

// choices returns the names of all providers of this build.
func (r resolver) choices() []string {
	return append(builtIn(), r.spelled()...)
}

// resolve returns the provider's name, folded, for a name, a full .NET type name,
// or one with its assembly. An error says what is wrong with it; known is then
// whether it is at least the name of a provider.
func (r resolver) resolve(word string) (name string, as typeName, known bool, err error) {
	full, _, _ := strings.Cut(word, ",") // "Type, Assembly, Version=…"
	full = strings.TrimSpace(full)
	name = fold(full)
	if _, ok := r.custom[name]; ok {
		return name, as, true, nil
	}
	if t, ok := r.types[name]; ok {
		name, as = t.provider, t
	}
	_, isCustom := r.custom[name]
	switch {
	case isCustom || slices.Contains(builtIn(), name):
		return name, as, true, nil
	case slices.Contains(elsewhere(), name):
		return name, as, true, fmt.Errorf("%q is the provider %q, which is not in this build: the program has to pass it to appsettings.Load; in this build: %s",
			clip(word), name, strings.Join(r.choices(), ", "))
	}
	return name, as, false, fmt.Errorf("unknown provider %q; %s", clip(word), choose(full, r.choices()))
}
