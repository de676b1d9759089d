package appsettings

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/carillon-go/carillon/provider"
)

// What a file could do to its reader.
func TestLoad_RefusesFilesOfTheWrongKind(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, tt := range []struct {
		name, file, text, want string
	}{
		{"too large", "appsettings.json", "{" + strings.Repeat(" ", maxFileBytes) + "}", "appsettings.json: is larger than 1048576 bytes"},
		{"as large as allowed", "appsettings.json", "{" + strings.Repeat(" ", maxFileBytes-2) + "}", ""},
		{"too deep", "appsettings.json", "{\n\"a\":" + nested(maxDepth) + "}", "appsettings.json:2: values nest deeper than 64 levels"},
		{"as deep as allowed", "appsettings.json", `{"a":` + nested(maxDepth-1) + `}`, ""},
		{"brackets in texts and comments", "appsettings.json", `{"a":"\"` + nested(200) + `" /*` + nested(200) + "*/ //" + nested(200) + "\n}", ""},
		{"too many keys", "appsettings.json", `{"Carillon": {"AcceptSites": [` + strings.Repeat(`"a",`, 200_000) + `]}}`, "appsettings.json: has more than 1000 keys of Carillon; the others were not read"},
		{"many keys of others", "appsettings.json", `{"Others": {"AcceptSites": [` + strings.Repeat(`"a",`, 200_000) + `]}}`, ""},
		{"UTF-16", "appsettings.json", "\xff\xfe{\x00}\x00", "appsettings.json: is UTF-16; save it as UTF-8"},
		{"byte order mark", "appsettings.json", "\xef\xbb\xbf{}", ""},
		{"byte order mark in XML", "web.config", "\xef\xbb\xbf<?xml version=\"1.0\"?><configuration/>", ""},
		{"XML too deep", "web.config", strings.Repeat("<a>\n", maxDepth+1), "web.config:65: elements nest deeper than 64 levels"},
		{"old encoding", "web.config", "<?xml version=\"1.0\" encoding=\"windows-1252\"?>\n<configuration><!-- \xe4 --></configuration>", ""},
		{"unknown encoding", "web.config", "<?xml version=\"1.0\" encoding=\"x-klingon\"?><configuration/>", `encoding "x-klingon" is not known; save the file as UTF-8`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, tt.file, tt.text)
			_, err := Load(Options{Environ: []string{}})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if err := os.Mkdir("appsettings.json", 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(Options{Environ: []string{}}); err == nil || !strings.Contains(err.Error(), "is not a file") {
			t.Errorf("got %v, want an error that says so", err)
		}
	})
}

func TestError_IsBounded(t *testing.T) {
	var ps problems
	for i := range 5 * maxShown {
		ps.add(origin{"a.json", i + 1}, "Carillon:X", "wrong")
	}
	err := ps.err()
	if lines := strings.Count(err.Error(), "\n"); lines != maxShown+1 {
		t.Errorf("the error has %d lines after its first, want %d", lines, maxShown+1)
	}
	if !strings.HasSuffix(err.Error(), "and 400 more") {
		t.Errorf("the error ends in %q", err.Error()[len(err.Error())-20:])
	}
	var all *Error
	if !errors.As(err, &all) || len(all.Problems) != 5*maxShown {
		t.Error("the error does not hold all problems")
	}
}

func TestLoad_ChecksTheNamesOfProviders(t *testing.T) {
	factory := func(Section) (provider.Provider, error) { return nil, nil }
	for _, tt := range []struct {
		name string
		give map[string]Factory
		want string
	}{
		{"fine", map[string]Factory{"pigeon-post": factory, "MSMQEventProvider.MSMQEventProvider": factory}, ""},
		{"built in", map[string]Factory{"TCP": factory}, "is taken"},
		{"a section", map[string]Factory{"limits": factory}, "is taken"},
		{"a key", map[string]Factory{"Site": factory}, "is taken"},
		{"empty", map[string]Factory{"": factory}, "want a name"},
		{"colon", map[string]Factory{"a:b": factory}, "want a name"},
		{"underscores", map[string]Factory{"a__b": factory}, "want a name"},
		{"comma", map[string]Factory{"a,b": factory}, "want a name"},
		{"no factory", map[string]Factory{"pigeon": nil}, "has no factory"},
		{"case", map[string]Factory{"pigeon": factory, "Pigeon": factory}, "differ only in case"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			_, err := Load(Options{Environ: []string{}, Providers: tt.give})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSettings_PrintNoSecret(t *testing.T) {
	t.Chdir(t.TempDir())
	s, err := Load(Options{
		Environ:   []string{"Carillon__Database__Dsn=tiger", "Carillon__Pigeon__Password=tiger", "Carillon__Provider=pigeon"},
		Providers: map[string]Factory{"Pigeon": func(Section) (provider.Provider, error) { return nil, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Database.DSN.Reveal() != "tiger" || s.Section("pigeon").Get("password") != "tiger" {
		t.Fatal("the secrets did not arrive")
	}
	wrapped := struct{ hidden Settings }{*s} // package fmt asks no methods in there
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "dsn", s.Database.DSN, "section", s.Section("pigeon"))
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "dsn", s.Database.DSN, "section", s.Section("pigeon"))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		for _, v := range []any{*s, s, wrapped, s.Database, s.Database.DSN, s.Section("pigeon"), struct{ s Section }{s.Section("pigeon")}} {
			fmt.Fprintf(&log, verb+"\n", v)
		}
	}
	for _, verb := range []string{"%v", "%#v", "%x", "%d"} {
		if got := fmt.Sprintf(verb, s.Database.DSN); got != redacted {
			t.Errorf("%s of a DSN is %q", verb, got)
		}
		if got := fmt.Sprintf(verb, s.Section("pigeon")); got != "Pigeon{Password}" {
			t.Errorf("%s of a Section is %q", verb, got)
		}
	}
	for _, secret := range []string{"tiger", fmt.Sprintf("%x", "tiger")} {
		if i := strings.Index(log.String(), secret); i >= 0 {
			t.Errorf("a secret is shown: …%s", log.String()[max(0, i-100):i+5])
		}
	}
}

func TestSection(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "appsettings.json", `{"Carillon": {"Pigeon": {"Speed": 7, "Hosts": ["a", "b"], "Tls": {"CertFile": "c"}, "None": null}}}`)
	s, err := Load(Options{
		Environ:   []string{"CARILLON__PIGEON__ROUTES=x, y"},
		Providers: map[string]Factory{"pigeon": func(Section) (provider.Provider, error) { return nil, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	section := s.Section("PIGEON")
	if got, want := section.Keys(), []string{"Hosts:0", "Hosts:1", "ROUTES", "Speed", "Tls:CertFile"}; !slices.Equal(got, want) {
		t.Errorf("Keys() = %q, want %q", got, want)
	}
	for key, want := range map[string]string{"speed": "7", "TLS:certfile": "c", "Hosts": "", "none": ""} {
		if got, ok := section.Lookup(key); got != want || ok != (want != "") {
			t.Errorf("Lookup(%q) = %q, %v; want %q", key, got, ok, want)
		}
	}
	for key, want := range map[string][]string{"hosts": {"a", "b"}, "routes": {"x", "y"}, "speed": {"7"}, "none": nil} {
		if got := section.List(key); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", key, got, want)
		}
	}
	var zero Section
	if zero.Get("x") != "" || zero.List("x") != nil || len(zero.Keys()) != 0 || zero.String() != "{}" {
		t.Errorf("the zero Section is not empty: %v", zero)
	}
	if s.Section("unheard-of").String() != "{}" {
		t.Error("a section of nobody is not empty")
	}
}

// The scenario with every key keeps its promise, and the guide lists each.
func TestKnown_IsTestedAndDocumented(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/load/every-key.txtar")
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var ps problems
	es, _ := readJSON("every-key", archive.Files[0].Data, &ps)
	if err := ps.err(); err != nil {
		t.Fatal(err)
	}
	for _, k := range known() {
		path := ownSection + ":" + fold(k.path)
		if _, ok := es[path]; !ok && len(es.elements(path)) == 0 {
			t.Errorf("testdata/load/every-key.txtar lacks %s", k.path)
		}
		if !strings.Contains(string(guide), "`"+k.path+"`") {
			t.Errorf("docs/configuration.md lacks `%s`", k.path)
		}
	}
	for name := range typeNames() {
		if !strings.Contains(fold(string(guide)), "`"+name+"`") {
			t.Errorf("docs/configuration.md lacks the .NET type `%s`", name)
		}
	}
}

func TestNearest(t *testing.T) {
	choices := []string{"Provider", "Port", "Udp", "Tcp", "MissedAfter"}
	for word, want := range map[string]string{
		"provider": "Provider", "Provdier": "Provider", "Prot": "Port", "ucp": "Udp", "tpc": "Tcp",
		"MisedAftr": "MissedAfter", "Whatever": "", "": "", strings.Repeat("x", 100000): "",
	} {
		if got := nearest(word, choices); got != want {
			t.Errorf("nearest(%.20q) = %q, want %q", word, got, want)
		}
	}
}

// addSeeds gives a fuzzer the files of the scenarios that have that extension.
func addSeeds(f *testing.F, ext string) {
	f.Helper()
	files, err := filepath.Glob("testdata/load/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if filepath.Ext(part.Name) == ext {
				f.Add(part.Data)
			}
		}
	}
}

// judge runs what follows reading, and checks what must hold for any input.
func judge(t *testing.T, data []byte, r reader, es entries) {
	t.Helper()
	s := r.settings(es, nil)
	lines := strings.Count(string(data), "\n") + 1
	for _, p := range r.ps.list {
		if p.Line < 0 || p.Line > lines {
			t.Errorf("line %d of %d: %v", p.Line, lines, p)
		}
		if strings.TrimSpace(p.Text) == "" {
			t.Errorf("a problem without words: %+v", p)
		}
	}
	if r.ps.err() == nil && len(s.Providers) == 0 {
		t.Error("no problem and no provider")
	}
	for _, name := range s.Providers {
		if r.ps.err() == nil && !s.Local() && !slices.Contains(r.names.choices(), name) {
			t.Errorf("accepted provider %q, which is none", name)
		}
	}
	section := newSection("msmq", es, r.ps.sources)
	section.Keys()
	section.Get("Queue")
	section.List("Hosts")
	section.Bytes("Tls:Bytes")
	if wrong, ok := errors.AsType[*Error](section.Err()); ok {
		for _, p := range wrong.Problems {
			if p.Line < 0 || p.Line > lines || !within(fold(p.Key), section.data().root()) {
				t.Errorf("line %d of %d: %v", p.Line, lines, p)
			}
		}
	}
}

func fuzzNames(f *testing.F) resolver {
	f.Helper()
	names, err := newResolver(map[string]Factory{"msmq": func(Section) (provider.Provider, error) { return nil, nil }})
	if err != nil {
		f.Fatal(err)
	}
	return names
}

func FuzzReadJSON(f *testing.F) {
	addSeeds(f, ".json")
	names := fuzzNames(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, es := reader{names: names}, entries{}
		own, legacy := readJSON("fuzz.json", data, &r.ps)
		r.olderKey(es, legacy)
		es.merge(own)
		judge(t, data, r, es)
	})
}

func FuzzReadWebConfig(f *testing.F) {
	addSeeds(f, ".config")
	names := fuzzNames(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := reader{names: names}
		found := readWebConfig("fuzz.config", data, func(string) ([]byte, error) { return data, nil }, &r.ps)
		judge(t, data, r, found.flatten(names, &r.notices, &r.ps))
	})
}

func FuzzReadEnviron(f *testing.F) {
	f.Add("Carillon__Udp__Port", "7", "carillon:udp__PORT", "8")
	f.Add("Carillon__Tcp__Endpoints__0", "a:1", "Carillon__Tcp__Endpoints", "b:1,c:2")
	f.Add("EPiServer__Cms__EventProvider__Provider", "udp", "Carillon__", "")
	names := fuzzNames(f)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		r, es := reader{names: names}, entries{}
		own, legacy := readEnviron([]string{name1 + "=" + value1, name2 + "=" + value2}, &r.ps)
		r.olderKey(es, legacy)
		es.merge(own)
		judge(t, nil, r, es)
	})
}
