package transports

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
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
	limits := map[string]int{
		"nats": 1000, "redis": 1001, "postgres": 1002, "mqtt": 1003, "azure": 1004, "rabbit": 1005, "kafka": 1006, "aws": 1007, "jetstream": 1008, "redisstreams": 1009,
	}
	environ := []string{
		"Carillon__Nats__Urls=nats://127.0.0.1:1,nats://127.0.0.1:2",
		"Carillon__JetStream__Urls=nats://127.0.0.1:1", "Carillon__JetStream__MaxAge=5m", "Carillon__JetStream__MaxBytes=2000000", "Carillon__JetStream__Memory=true",
		"Carillon__Redis__Url=redis://127.0.0.1:1",
		"Carillon__RedisStreams__Url=redis://127.0.0.1:1",
		"Carillon__Postgres__Url=postgres://127.0.0.1:1/x",
		"Carillon__Mqtt__Urls=mqtt://127.0.0.1:1", "Carillon__Mqtt__Durable=true",
		"Carillon__Rabbit__Urls=amqp://127.0.0.1:1",
		"Carillon__Kafka__Brokers=127.0.0.1:1", "Carillon__Kafka__Tls=true", "Carillon__Kafka__Retention=5m",
		"Carillon__Azure__ConnectionString=Endpoint=sb://127.0.0.1;SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0;UseDevelopmentEmulator=true",
		"Carillon__Aws__Region=us-east-1",
	}
	for name, limit := range limits {
		environ = append(environ, fmt.Sprintf("Carillon__%s__MaxFrameBytes=%d", name, limit))
	}
	s := load(t, environ...)
	for name, factory := range Factories() {
		p, err := factory(s.Section(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.Name() != name {
			t.Errorf("%s makes a provider with the name %q: the site's transports would not find it", name, p.Name())
		}
		if _, leaves := p.(provider.Cleaner); leaves != slices.Contains(LeaveBehind(), name) {
			t.Errorf("instances with %s leave something behind: %t; LeaveBehind says otherwise", name, leaves)
		}
		if want := limits[name]; p.Capabilities().MaxFrameBytes != want {
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
	}
	for key, want := range map[string]string{
		"Nats:MaxFrameBytes": "a whole number", "Mqtt:Durable": "true or false", "JetStream:MaxAge": "a duration",
	} {
		section, name, _ := strings.Cut(key, ":")
		s := load(t, "Carillon__"+section+"__"+name+"=tiger")
		_, err := Factories()[strings.ToLower(section)](s.Section(section))
		if err == nil || !strings.Contains(err.Error(), name+": want "+want) || strings.Contains(err.Error(), "tiger") {
			t.Errorf("%s: %v; want an error that names the key and what it wants, and not its value", key, err)
		}
	}
}

func TestFactories_AzureTakesAnIdentity(t *testing.T) {
	s := load(t, "Carillon__Azure__Namespace=example.servicebus.windows.net")
	p, err := Factories()["azure"](s.Section("azure"))
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}
