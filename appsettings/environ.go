package appsettings

import (
	"slices"
	"strings"
)

// environment returns the name of the environment, as .NET finds it, with a
// variable of our own before it.
func environment(environ []string) (name, variable string) {
	for _, variable := range []string{"CARILLON_ENVIRONMENT", "DOTNET_ENVIRONMENT", "ASPNETCORE_ENVIRONMENT"} {
		for _, kv := range environ {
			if name, value, ok := strings.Cut(kv, "="); ok && name == variable && value != "" {
				return value, variable
			}
		}
	}
	return "Production", ""
}

// readEnviron returns what environment variables say: "__" stands for the colon
// between the parts of a key, which a shell does not allow in a name.
func readEnviron(environ []string, ps *problems) (own, legacy entries) {
	own, legacy = entries{}, entries{}
	// The order of the environment means nothing, so that of messages must not
	// depend on it.
	for _, kv := range slices.Sorted(slices.Values(environ)) {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}
		path := strings.ReplaceAll(name, "__", ":")
		e := entry{path: path, kind: scalar, text: value, at: origin{source: variableSource + name}}
		switch folded := fold(path); {
		case folded == ownSection: // some program's, for a purpose of its own
		case isOwn(folded):
			ps.source(e.at.source)
			insert(own, e, ps)
		case folded == legacyProvider:
			insert(legacy, e, ps)
		}
	}
	return own, legacy
}
