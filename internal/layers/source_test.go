package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/carillon-go/carillon"

// A source is one Go file of the repository, whatever its build constraints.
type source struct {
	name   string // slash-separated, from the root of the repository
	dir    string // of name; "." for the root
	mod    string // folder of the go.mod above it; "." for the core module
	isTest bool   // its name ends in _test.go
	ast    *ast.File
}

// imports returns the paths that s imports.
func (s *source) imports() []string {
	paths := make([]string, 0, len(s.ast.Imports))
	for _, spec := range s.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// ours turns the import path of one of our packages into its folder, and says
// false for everybody else's.
func ours(importPath string) (dir string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// forTests reports whether a package exists for the sake of tests, which its
// name says.
func forTests(dir string) bool { return strings.HasSuffix(dir, "test") }

type repository struct {
	fset    *token.FileSet
	sources []*source
	modules []string // folders with a go.mod
}

// parsed reads the whole repository once. Parsing instead of asking go list
// sees the files of every platform, and needs no dependency to be there.
var parsed = sync.OnceValues(func() (*repository, error) {
	const root = "../.."
	repo := &repository{fset: token.NewFileSet()}
	isModule := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || name == "bin") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil {
				isModule[name] = true
				repo.modules = append(repo.modules, name)
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		f, err := parser.ParseFile(repo.fset, file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s := &source{name: name, dir: path.Dir(name), isTest: strings.HasSuffix(base, "_test.go"), ast: f}
		for s.mod = s.dir; !isModule[s.mod]; s.mod = path.Dir(s.mod) {
		}
		repo.sources = append(repo.sources, s)
		return nil
	})
	return repo, err
})

func read(t *testing.T) *repository {
	t.Helper()
	repo, err := parsed()
	if err != nil {
		t.Fatalf("read the repository: %v", err)
	}
	if len(repo.modules) == 0 || repo.modules[0] != "." {
		t.Fatalf("modules found: %q, want the core module first", repo.modules)
	}
	return repo
}
