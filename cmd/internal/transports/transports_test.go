package transports

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site/memsite"
)

// load returns settings with this file and these variables, and every transport of this package.
func load(t *testing.T, file string, environ ...string) *appsettings.Settings {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("appsettings.json", []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
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
	s := load(t, "", environ...)
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

func TestFactories_TakeTheFormsOfTheWholeConfiguration(t *testing.T) {
	s := load(t, `{"Carillon": {
		"Kafka": {"Brokers": ["127.0.0.1:1"], "Retention": "00:10:00", "MaxFrameBytes": "32KiB"},
		"JetStream": {"Urls": "nats://127.0.0.1:1", "MaxAge": "00:05:00", "MaxBytes": "2MiB", "MaxFrameBytes": "32KiB"}
	}}`)
	for _, name := range []string{"kafka", "jetstream"} {
		p, err := Factories()[name](s.Section(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := p.Capabilities().MaxFrameBytes; got != 32<<10 {
			t.Errorf("%s: frames of at most %d bytes, configured are 32 KiB", name, got)
		}
		p.Close()
	}
}

func TestFactories_RefuseKeysThatTheyDoNotKnow(t *testing.T) {
	for name, factory := range Factories() {
		s := load(t, "{\n\"Carillon\": {\n\""+name+"\": {\"Prefixx\": \"tiger\"}}}")
		_, err := factory(s.Section(name))
		problems, ok := errors.AsType[*appsettings.Error](err)
		if !ok || len(problems.Problems) != 1 {
			t.Errorf("%s: %v; want one problem", name, err)
			continue
		}
		p := problems.Problems[0]
		if p.Source != "appsettings.json" || p.Line != 3 || p.Key != "Carillon:"+name+":Prefixx" || !strings.Contains(p.Text, `did you mean "Prefix"?`) || strings.Contains(p.Text, "tiger") {
			t.Errorf("%s: %v; want the place, the whole key and what was meant, and not its value", name, p)
		}
	}
}

// What is wrong in the sections of all transports in use is one error, and none of their values is in it.
func TestFactories_SayAllThatIsWrongAtOnce(t *testing.T) {
	s := load(t, `{"Carillon": {
		"Application": "app", "Provider": ["nats", "kafka", "rabbit"], "Standby": "mqtt",
		"Nats": {"MaxFrameBytes": "32tiger",
			"Pasword": "tiger"},
		"Kafka": {"Retention": "tiger", "Partitions": "tiger"},
		"Mqtt": {"Durable": "tiger"},
		"Rabbit": {"Urls": {"a": "amqp://tiger"}}
	}}`)
	_, err := s.Config(memsite.New(nil))
	problems, ok := errors.AsType[*appsettings.Error](err)
	if !ok {
		t.Fatalf("%v; want an *appsettings.Error", err)
	}
	want := []string{
		`appsettings.json:3: Carillon:Nats:MaxFrameBytes: its value (not shown): want a number of bytes`,
		`appsettings.json:4: Carillon:Nats:Pasword: unknown key; did you mean "Password"?`,
		`appsettings.json:5: Carillon:Kafka:Partitions: its value (not shown): want a whole number`,
		`appsettings.json:5: Carillon:Kafka:Retention: its value (not shown): want a time above zero`,
		`appsettings.json:6: Carillon:Mqtt:Durable: its value (not shown): want true or false`,
		`appsettings.json:7: Carillon:Rabbit:Urls: want a text or a list of texts`,
	}
	for i, p := range problems.Problems {
		if i >= len(want) || !strings.HasPrefix(p.String(), want[i]) {
			t.Errorf("problem %d is %v", i, p)
		}
	}
	if len(problems.Problems) < len(want) || strings.Contains(err.Error(), "tiger") {
		t.Errorf("got  %v\nwant %s", err, strings.Join(want, "\n\t"))
	}
}

// What only the transport knows to be wrong has its place like what can be seen from the text.
func TestFactories_SayWhereASettingStandsThatTheTransportRefuses(t *testing.T) {
	const connection = `"ConnectionString": "Endpoint=sb://127.0.0.1;SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0",`
	for _, tt := range []struct{ name, others, key, value, want string }{
		{"Aws", `"Region": "us-east-1",`, "Prefix", `"a.b"`, `"a.b": want at most`},
		{"Azure", connection, "MaxFrameBytes", "1", "1: want "},
		{"JetStream", "", "Replicas", "6", "6: want 1, 3 or 5"},
		{"JetStream", "", "MaxAge", `"1ms"`, "1ms: want at least 1s, or 0 for "},
		{"Kafka", "", "Retention", `"1s"`, "1s: want at least"},
		{"Kafka", "", "Brokers", `["a:b:c"]`, "number 1 cannot be read"},
		{"Kafka", "", "Mechanism", `"PLAIN"`, "is set, and User is not"},
		{"Mqtt", `"Urls": "mqtt://127.0.0.1",`, "ReceiveBytes", "1", "1: want "},
		{"Nats", "", "maxFrameBytes", "1", "1: want 512 to"},
		{"Nats", "", "NkeyFile", `"nowhere.nk"`, "cannot be used: "},
		{"Postgres", `"Url": "postgres://127.0.0.1/a",`, "Table", `"a.b.c"`, `"a.b.c": want a table`},
		{"Rabbit", "", "QueueBytes", "1", "1: want at least"},
		{"Rabbit", "", "Urls", `["http://127.0.0.1"]`, "number 1 "},
		{"Redis", "", "Url", `"http://127.0.0.1"`, "does not begin with redis://"},
		{"RedisStreams", `"Url": "redis://127.0.0.1",`, "Keep", "1", "1: want "},
	} {
		s := load(t, fmt.Sprintf("{\"Carillon\": {\"Application\": \"app\", \"Provider\": %q,\n%q: { %s\n%q: %s}}}", tt.name, tt.name, tt.others, tt.key, tt.value))
		want := fmt.Sprintf("configuration: appsettings.json:3: Carillon:%s:%s: %s", tt.name, tt.key, tt.want)
		_, err := Factories()[strings.ToLower(tt.name)](s.Section(tt.name))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if _, of := s.Config(memsite.New(nil)); of == nil || of.Error() != err.Error() {
			t.Errorf("Config says %v, the factory %v", of, err)
		}
	}
}

func TestFactories_AzureTakesAnIdentity(t *testing.T) {
	s := load(t, "", "Carillon__Azure__Namespace=example.servicebus.windows.net")
	p, err := Factories()["azure"](s.Section("azure"))
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}
