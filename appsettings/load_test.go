package appsettings

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/carillon-go/carillon/provider"
)

var update = flag.Bool("update", false, "rewrite the answers in testdata/load; commit them only if you understand them")

// TestLoad_Scenarios runs the files in testdata/load. The text above the files
// says what is tested, and has a line for each variable ("env NAME=value"), for
// the path ("path FILE") and for the application's providers ("providers NAME
// …"). The last file, want, is the answer.
func TestLoad_Scenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/load/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d scenarios found, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			file, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if n := len(archive.Files); n > 0 && archive.Files[n-1].Name == "want" {
				want = string(archive.Files[n-1].Data)
				archive.Files = archive.Files[:n-1]
			}
			t.Chdir(t.TempDir()) // so that messages have short paths
			for _, f := range archive.Files {
				write(t, f.Name, string(f.Data))
			}
			got := answer(Load(options(string(archive.Comment))))
			if strings.Contains(got, "tiger") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			if *update {
				archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
				write(t, file, string(txtar.Format(archive)))
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// options reads what the text of a scenario says.
func options(comment string) Options {
	opts := Options{Environ: []string{}, Providers: map[string]Factory{}}
	for line := range strings.Lines(comment) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "env":
			opts.Environ = append(opts.Environ, rest)
		case "path":
			opts.Path = rest
		case "providers":
			for _, name := range strings.Fields(rest) {
				opts.Providers[name] = func(Section) (provider.Provider, error) { return nil, errors.New("not called by Load") }
			}
		}
	}
	return opts
}

// answer puts what Load returned into lines.
func answer(s *Settings, err error) string {
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var b strings.Builder
	for _, n := range s.Notices {
		fmt.Fprintf(&b, "notice: %s\n", n)
	}
	for _, name := range slices.Sorted(maps.Keys(s.sections)) {
		section := s.sections[name]
		for _, key := range section.Keys() {
			value := section.Get(key)
			if value == "tiger" {
				value = "the password"
			}
			fmt.Fprintf(&b, "section %s: %s = %s\n", section.data().name, key, value)
		}
	}
	shown := *s
	shown.Notices = nil
	data, err := json.Marshal(shown)
	if err != nil {
		return err.Error()
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		return err.Error()
	}
	data, err = json.MarshalIndent(written(tree), "", "  ")
	if err != nil {
		return err.Error()
	}
	return b.String() + string(data) + "\n"
}

// written returns tree without the fields that are zero. An empty list is not.
func written(tree map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range tree {
		if sub, ok := v.(map[string]any); ok {
			if sub = written(sub); len(sub) > 0 {
				out[k] = sub
			}
		} else if v != nil && v != "" && v != float64(0) {
			out[k] = v
		}
	}
	return out
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
