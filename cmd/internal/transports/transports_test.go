package transports

import (
	"strings"
	"testing"

	"github.com/carillon-go/carillon/appsettings"
)

// load returns settings with these variables, and every transport of this package.
func load(t *testing.T, environ ...string) *appsettings.Settings {
	t.Helper()
	t.Chdir(t.TempDir())
	s, err := appsettings.Load(appsettings.Options{Environ: append([]string{"Carillon__Application=app"}, environ...), Providers: Factories()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFactories_MakeWhatTheyAreNamedFor(t *testing.T) {
	s := load(t, "Carillon__Nats__Urls=nats://127.0.0.1:1,nats://127.0.0.1:2", "Carillon__Nats__MaxFrameBytes=1000", "Carillon__Redis__Url=redis://127.0.0.1:1", "Carillon__Redis__MaxFrameBytes=1001",
		"Carillon__Postgres__Url=postgres://127.0.0.1:1/x", "Carillon__Postgres__MaxFrameBytes=1002",
		"Carillon__Mqtt__Urls=mqtt://127.0.0.1:1", "Carillon__Mqtt__MaxFrameBytes=1003", "Carillon__Mqtt__Durable=true",
		"Carillon__Rabbit__Urls=amqp://127.0.0.1:1", "Carillon__Rabbit__MaxFrameBytes=1005",
		"Carillon__Azure__ConnectionString=Endpoint=sb://127.0.0.1;SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0;UseDevelopmentEmulator=true", "Carillon__Azure__MaxFrameBytes=1004")
	limits := map[string]int{"nats": 1000, "redis": 1001, "postgres": 1002, "mqtt": 1003, "azure": 1004, "rabbit": 1005}
	for name, factory := range Factories() {
		p, err := factory(s.Section(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.Name() != name {
			t.Errorf("%s makes a provider with the name %q: the site's transports would not find it", name, p.Name())
		}
		if want, ok := limits[name]; ok && p.Capabilities().MaxFrameBytes != want {
			t.Errorf("%s: frames of at most %d bytes, configured are %d", name, p.Capabilities().MaxFrameBytes, want)
		}
		if err := p.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFactories_RefuseKeysThatTheyDoNotKnow(t *testing.T) {
	for name, factory := range Factories() {
		s := load(t, "Carillon__"+name+"__Pasword=tiger")
		if _, err := factory(s.Section(name)); err == nil || !strings.Contains(err.Error(), "Pasword") || strings.Contains(err.Error(), "tiger") {
			t.Errorf("%s: %v; want an error that names the key and not its value", name, err)
		}
		if name == "mqtt" {
			s = load(t, "Carillon__Mqtt__Durable=tiger")
			if _, err := factory(s.Section(name)); err == nil || !strings.Contains(err.Error(), "Durable") || strings.Contains(err.Error(), "tiger") {
				t.Errorf("%s: %v; want an error that names the key and not its value", name, err)
			}
		}
		s = load(t, "Carillon__"+name+"__MaxFrameBytes=tiger")
		if _, err := factory(s.Section(name)); err == nil || !strings.Contains(err.Error(), "MaxFrameBytes") || strings.Contains(err.Error(), "tiger") {
			t.Errorf("%s: %v; want an error that names the key and not its value", name, err)
		}
	}
}
