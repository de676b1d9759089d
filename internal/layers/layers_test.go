package layers

import (
	"slices"
	"strings"
	"testing"
)

// allowed says which of our packages each package of the core module may
// import outside its tests, and so draws the architecture: arrows point down
// only. Adding an edge is a design change: say why in the commit that adds it.
// A package that is not listed fails the test.
var allowed = map[string][]string{
	// The contract of the site database and what implements it.
	"site":               {},
	"site/sitetest":      {"site"},
	"site/memsite":       {"site"},
	"site/internal/walk": {"site"},
	"site/keyring":       {"site", "site/internal/walk"}, // for programs of operators; package carillon has no part in it
	"site/transports":    {"site", "site/internal/walk"}, // like keyring
	"site/sqlsite":       {"site"},                       // never package carillon: an application may bring its own

	// The contract of a transport and what implements it. A transport knows
	// frames and members, not events, and no other transport.
	"provider":              {"site"},
	"provider/providertest": {"provider", "site"},
	"provider/uplink":       {"provider"},
	"provider/membus":       {"provider", "site"},
	"provider/udpbus":       {"provider", "site"},
	"provider/tcpbus":       {"provider", "site"},
	"provider/janitor":      {"provider", "site"}, // it holds what transports list against member rows; programs of operators use it too

	// The protocol.
	"internal/wire":   {"site"},
	"internal/seal":   {"internal/wire", "site"}, // seals the bytes that wire lays out
	"internal/engine": {"internal/wire", "internal/seal", "site"},
	"internal/layers": {},

	// The published vectors, and the second decoder that they are held against:
	// it must share nothing with ours.
	"internal/plain":   {},
	"internal/vectors": {},
	"internal/flood":   {},

	// The proof. What judges must share no code with what is judged.
	"internal/history":      {},
	"internal/sim":          {"internal/history", "internal/engine", "internal/wire", "internal/seal", "site", "site/keyring"},
	"internal/sim/simulate": {"internal/sim"},

	// What applications import.
	".": {"internal/engine", "internal/wire", "internal/seal", "provider", "provider/janitor", "site"},
	"carillontest": {
		".", "provider", "provider/membus", "provider/providertest", "site", "site/memsite",
	},
}

// nested says the same for the modules beside the core. A module is listed by
// its folder, or by the folder above it and a star. Whatever the table says,
// none imports a package under internal that is not in shared.
var nested = map[string][]string{
	"site/sqlsite/drivers": {"site", "site/sqlsite"},
	"provider/*":           {"provider", "provider/uplink", "site"},
	"cache":                {"."},
	"appsettings":          {".", "provider", "provider/udpbus", "provider/tcpbus", "provider/membus", "site", "site/sqlsite"},
	"examples":             {"*"},
	"cmd":                  {"*"},
	"bench":                {"*"},
	"chaos":                {"*"},
	"tools":                {},
}

// shared lists the packages under internal that a nested module may import.
var shared = map[string][]string{
	// Real processes are judged by the checker that judges the simulated ones.
	"chaos": {"internal/history"},
}

func TestImports_PointDownward(t *testing.T) {
	repo := read(t)
	for _, s := range repo.sources {
		if s.isTest {
			continue
		}
		may, ok := edges(s)
		if !ok {
			t.Errorf("%s: package %s has no place in the layer table", s.name, s.dir)
			continue
		}
		for _, path := range s.imports() {
			dir, ok := ours(path)
			if !ok || inModule(repo, dir) == s.mod && s.mod != "." {
				continue
			}
			if !slices.Contains(may, dir) && !slices.Contains(may, "*") {
				t.Errorf("%s: %s may not import %s", s.name, s.dir, dir)
			}
		}
	}
}

// Go's own rule for internal packages lets our nested modules in, because their
// paths begin with the path of the core.
func TestImports_NestedModulesStayOutOfInternal(t *testing.T) {
	repo := read(t)
	for _, s := range repo.sources {
		if s.mod == "." {
			continue
		}
		for _, path := range s.imports() {
			if dir, ok := ours(path); ok && strings.HasPrefix(dir, "internal/") && !slices.Contains(shared[s.mod], dir) {
				t.Errorf("%s: a nested module may not import %s", s.name, path)
			}
		}
	}
}

// Whoever links the core inherits its dependencies, so it has none: not even
// its tests have, because go.mod does not tell the two apart.
func TestImports_CoreHasNoDependencies(t *testing.T) {
	for _, s := range read(t).sources {
		if s.mod != "." {
			continue
		}
		for _, path := range s.imports() {
			if _, ok := ours(path); ok {
				continue
			}
			first, _, _ := strings.Cut(path, "/")
			if strings.Contains(first, ".") && !strings.HasPrefix(path, "golang.org/x/") {
				t.Errorf("%s imports %s; the core module links the standard library and golang.org/x only", s.name, path)
			}
		}
	}
}

// Package testing registers flags and costs start-up time in every program
// that links it, and the suites link it.
func TestImports_TestHelpersStayOutOfPrograms(t *testing.T) {
	for _, s := range read(t).sources {
		if s.isTest || forTests(s.dir) {
			continue
		}
		for _, path := range s.imports() {
			if path == "testing" || strings.HasPrefix(path, "testing/") {
				t.Errorf("%s links package %s into programs; only packages whose name ends in \"test\" may", s.name, path)
			}
			if dir, ok := ours(path); ok && forTests(dir) {
				t.Errorf("%s links %s into programs; only tests and packages whose name ends in \"test\" may", s.name, dir)
			}
		}
	}
}

// edges returns the row of the table that s falls under.
func edges(s *source) (may []string, ok bool) {
	if s.mod == "." {
		may, ok = allowed[s.dir]
		return may, ok
	}
	if may, ok = nested[s.mod]; ok {
		return may, true
	}
	parent, _, _ := cutLast(s.mod, "/")
	may, ok = nested[parent+"/*"]
	return may, ok
}

// inModule returns the folder of the module that the package in dir belongs to.
func inModule(repo *repository, dir string) string {
	for ; dir != ""; dir, _, _ = cutLast(dir, "/") {
		if slices.Contains(repo.modules, dir) {
			return dir
		}
	}
	return "."
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}
