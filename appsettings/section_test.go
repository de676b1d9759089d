package appsettings

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site/memsite"
)

// pigeon is what the factory in these tests reads from its section.
type pigeon struct {
	Loft   string
	Routes []string
	Birds  int
	Load   int
	Rest   time.Duration
	Night  bool
	Ring   string // in a section of its own
}

func readPigeon(s Section) (pigeon, error) {
	p := pigeon{
		Loft: s.Get("Loft"), Routes: s.List("Routes"), Birds: s.Int("Birds"), Load: s.Bytes("Load"),
		Rest: s.Duration("Rest"), Night: s.Bool("Night"), Ring: s.Get("Ring:Number"),
	}
	return p, s.Err()
}

// pigeonFactory makes a provider if the section is right.
func pigeonFactory(s Section) (provider.Provider, error) {
	if _, err := readPigeon(s); err != nil {
		return nil, err
	}
	return membus.New().Provider(), nil
}

func TestSection_ReadsTheFormsOfTheWholeConfiguration(t *testing.T) {
	for _, tt := range []struct {
		text    string
		environ []string
		want    pigeon
	}{
		{text: `{}`},
		{text: `{"Loft": null, "Birds": null, "Routes": null}`},
		{
			text: `{"loft": "roof", "ROUTES": ["a", "b"], "Birds": 7, "Load": "32KiB", "Rest": "00:10:00", "Night": true, "Ring": {"Number": "1,2"}}`,
			want: pigeon{"roof", []string{"a", "b"}, 7, 32 << 10, 10 * time.Minute, true, "1,2"},
		},
		{
			text: `{"Birds": "7", "Load": 1200, "Rest": "1m30s", "Night": "False", "Routes": "a, b"}`,
			want: pigeon{Routes: []string{"a", "b"}, Birds: 7, Load: 1200, Rest: 90 * time.Second},
		},
		{text: `{"Load": "1 mib", "Routes": []}`, want: pigeon{Load: 1 << 20}},
		{text: `{"Birds": 7, "Load": "1GiB"}`, environ: []string{"Birds=8", "Ring__Number=9", "Routes__0=c"}, want: pigeon{Birds: 8, Load: 1 << 30, Ring: "9", Routes: []string{"c"}}},
		{text: `{}`, environ: []string{"Birds=", "Load=", "Rest=", "Night=", "Loft=", "Routes="}},
	} {
		got, err := readPigeon(loadPigeon(t, tt.text, tt.environ...).Section("pigeon"))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s %q: %+v, %v; want %+v", tt.text, tt.environ, got, err, tt.want)
		}
	}
}

// loadPigeon loads settings with this section in line 3 of the file, and variables of it.
func loadPigeon(t *testing.T, text string, environ ...string) *Settings {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, "appsettings.json", "{\"Carillon\": {\n\"Application\": \"shop\", \"Provider\": \"pigeon\",\n\"Pigeon\": "+text+"}}")
	for i := range environ {
		environ[i] = "Carillon__Pigeon__" + environ[i]
	}
	s, err := Load(Options{Environ: append([]string{}, environ...), Providers: map[string]Factory{"Pigeon": pigeonFactory}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSection_Err(t *testing.T) {
	const (
		number = "its value (not shown): want a whole number, zero or more"
		bytes  = `its value (not shown): want a number of bytes, such as 65536, "64KiB" or "1MiB"`
		rest   = `its value (not shown): want a time above zero with its unit, such as "5s", "500ms" or "00:00:05"`
		truth  = "its value (not shown): want true or false"
		keys   = "keys here: Loft, Routes, Birds, Load, Rest, Night, Ring"
		list   = "want a text or a list of texts"
		single = "want a single value"
	)
	for _, tt := range []struct {
		name    string
		text    string
		environ []string
		want    []string // below "Carillon:Pigeon:", in order
	}{
		{"numbers", `{"Birds": "tiger"}`, nil, []string{"appsettings.json:3: Birds: " + number}},
		{"below zero", `{"Birds": -1,` + "\n" + `"Load": -1}`, nil, []string{"appsettings.json:3: Birds: " + number, "appsettings.json:4: Load: " + bytes}},
		{"more than an int", `{"Birds": 9223372036854775808, "Load": "8589934592GiB"}`, nil, []string{"appsettings.json:3: Birds: " + number, "appsettings.json:3: Load: " + bytes}},
		{"units", `{"Load": "32tigers", "Rest": 5}`, nil, []string{"appsettings.json:3: Load: " + bytes, "appsettings.json:3: Rest: " + rest}},
		{"no time at all", `{"Rest": "0s"}`, nil, []string{"appsettings.json:3: Rest: " + rest}},
		{"neither true nor false", `{"Night": "tiger"}`, nil, []string{"appsettings.json:3: Night: " + truth}},
		{"a variable", `{"Night": true}`, []string{"Night=tiger"}, []string{"environment variable Carillon__Pigeon__Night: Night: " + truth}},

		{"a near miss", `{"Loft": "a", "Nigth": "tiger"}`, nil, []string{`appsettings.json:3: Nigth: unknown key; did you mean "Night"? ` + keys}},
		{"nothing like it", `{"Nothing-of-the-kind": {"a": "tiger", "b": ["tiger"]}}`, nil, []string{"appsettings.json:3: Nothing-of-the-kind: unknown key; " + keys}},
		{"within a key", `{"Ring": {"Nummer": "tiger"}}`, nil, []string{`appsettings.json:3: Ring:Nummer: unknown key; did you mean "Number"? keys here: Number`}},
		{"elsewhere", `{"Number": "tiger"}`, nil, []string{`appsettings.json:3: Number: unknown key; did you mean "Carillon:Pigeon:Ring:Number"? ` + keys}},

		{"an object for a list", `{"Routes": {"a": "tiger"}}`, nil, []string{"appsettings.json:3: Routes: " + list}},
		{"an empty object for a list", `{"Routes": {}}`, nil, []string{"appsettings.json:3: Routes: " + list}},
		{"lists in a list", `{"Routes": [["tiger"], "tiger"]}`, nil, []string{"appsettings.json:3: Routes: " + list}},
		{"a list for a text", `{"Loft": ["tiger"]}`, nil, []string{"appsettings.json:3: Loft: " + single}},
		{"an object for a text", `{"Loft": {"tiger": "tiger"}}`, nil, []string{"appsettings.json:3: Loft: " + single}},
		{"an empty list for a number", `{"Birds": []}`, nil, []string{"appsettings.json:3: Birds: " + single}},
		{"a text for a section", `{"Ring": "tiger"}`, nil, []string{"appsettings.json:3: Ring: want a section { … } with keys: Number"}},

		{"all at once, as they are read", `{"Rest": "tiger",` + "\n" + `"Nigth": "tiger",` + "\n" + `"Night": "tiger"}`, []string{"Birds=tiger", "Loft__a=tiger"}, []string{
			"appsettings.json:3: Rest: " + rest, `appsettings.json:4: Nigth: unknown key; did you mean "Night"? ` + keys, "appsettings.json:5: Night: " + truth,
			"environment variable Carillon__Pigeon__Birds: Birds: " + number, "environment variable Carillon__Pigeon__Loft__a: Loft: " + single,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readPigeon(loadPigeon(t, tt.text, tt.environ...).Section("pigeon"))
			problems, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("%v; want an *Error", err)
			}
			var lines []string
			for _, p := range problems.Problems {
				key, ok := strings.CutPrefix(p.Key, "Carillon:Pigeon:")
				if !ok {
					t.Errorf("the key %q is not the full one", p.Key)
				}
				p.Key = key
				lines = append(lines, p.String())
			}
			if !slices.Equal(lines, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(tt.want, "\n"))
			}
			if got.Birds != 0 || got.Load != 0 || got.Rest != 0 || got.Night {
				t.Errorf("values that are wrong are not zero: %+v", got)
			}
			if strings.Contains(err.Error(), "tiger") {
				t.Errorf("a value is shown: %v", err)
			}
		})
	}
}

// What is asked for in two ways, as by a factory that looks first whether a key is there, is what it was asked for by the getter of its form.
func TestSection_LookupBesideAnotherGetter(t *testing.T) {
	s := loadPigeon(t, `{"Routes": ["a"], "Birds": "many"}`).Section("pigeon")
	for range 2 {
		s.Lookup("routes")
		s.List("Routes")
		s.Int("birds")
		s.Get("Birds")
	}
	problems, ok := errors.AsType[*Error](s.Err())
	if !ok || len(problems.Problems) != 1 || problems.Problems[0].Key != "Carillon:Pigeon:Birds" {
		t.Errorf("%v; want Birds to be no number, and nothing else", s.Err())
	}
}

// The race detector judges.
func TestSection_IsReadConcurrently(t *testing.T) {
	s := loadPigeon(t, `{"Loft": "roof", "Birds": 7}`).Section("pigeon")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if got, err := readPigeon(s); err != nil || got.Birds != 7 {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	all.Wait()
}

// A provider may be made again and by several at a time; none knows what another has asked for.
func TestSection_AskedAnew(t *testing.T) {
	s := loadPigeon(t, `{"Loft": "roof"}`)
	if err := func() error { s := s.Section("pigeon"); s.Get("Loft"); return s.Err() }(); err != nil {
		t.Fatal(err)
	}
	if err := s.Section("pigeon").Err(); err == nil || !strings.Contains(err.Error(), "Carillon:Pigeon:Loft: unknown key") {
		t.Errorf("%v; want Loft to be unknown to a factory that does not ask for it", err)
	}
	var zero Section
	if got, err := readPigeon(zero); err != nil || !reflect.DeepEqual(got, pigeon{}) {
		t.Errorf("the zero Section: %+v, %v", got, err)
	}
}

func TestConfig_CollectsWhatIsWrongInSections(t *testing.T) {
	broken := errors.New("no pigeons left")
	t.Chdir(t.TempDir())
	write(t, "appsettings.json", "{\"Carillon\": {\"Application\": \"shop\", \"Provider\": [\"mem\", \"pigeon\", \"dove\"], \"Standby\": [\"tcp\", \"broken\"],\n"+
		"\"Dove\": {\"Nigth\": true},\n\"Pigeon\": {\"Loft\": \"tiger\"},\n\"Tcp\": {\"Tls\": {\"CertFile\": \"a.pem\", \"KeyFile\": \"a.key\", \"CaFile\": \"ca.pem\"}}}}")
	s, err := Load(Options{Environ: []string{"Carillon__Pigeon__Load=tiger"}, Providers: map[string]Factory{
		"pigeon": pigeonFactory, "dove": pigeonFactory,
		"mem":    func(Section) (provider.Provider, error) { return membus.New().Provider(), nil },
		"broken": func(Section) (provider.Provider, error) { return nil, broken },
	}})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s.Config(memsite.New(nil))
	problems, ok := errors.AsType[*Error](err)
	if !ok || !errors.Is(err, broken) {
		t.Fatalf("%v; want an *Error and that of the factory", err)
	}
	var at []string
	for _, p := range problems.Problems {
		at = append(at, place(p.Source, p.Line, p.Key, ""))
	}
	if want := []string{"appsettings.json:2: Carillon:Dove:Nigth: ", "appsettings.json:4: Carillon:Tcp:Tls:CertFile: ",
		"environment variable Carillon__Pigeon__Load: Carillon:Pigeon:Load: "}; !slices.Equal(at, want) {
		t.Errorf("problems at %q, want %q", at, want)
	}
	if strings.Contains(err.Error(), "tiger") || !strings.Contains(err.Error(), `make provider "broken": no pigeons left`) {
		t.Error(err)
	}
	if cfg.Providers != nil || cfg.Standby != nil {
		t.Error("providers are left over")
	}

	s.Providers, s.Standby = []string{"mem"}, []string{"dove"}
	if _, err := s.Config(memsite.New(nil)); !isError(err) {
		t.Errorf("%v; want an *Error when all that is wrong is in sections", err)
	}
}
