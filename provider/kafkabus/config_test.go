package kafkabus

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/carillon-go/carillon/provider/providertest"
)

const password = "open-sesame"

func TestNew_NamesTheFieldThatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; empty: none
	}{
		{"nothing is set", Config{}, ""},
		{"a URL", Config{Brokers: []string{"kafka://app:" + password + "@host:9092"}}, "Brokers number 1"},
		{"credentials before the host", Config{Brokers: []string{"a:9092", "app:" + password + "@host"}}, "Brokers number 2"},
		{"a port that is none", Config{Brokers: []string{"host:" + password}}, "Brokers number 1"},
		{"no host", Config{Brokers: []string{":9092"}}, "Brokers number 1"},
		{"too many", Config{Brokers: slices.Repeat([]string{"host"}, maxBrokers+1)}, "at most 64"},
		{"several in one", Config{Brokers: []string{"a, b:1,[::1]:2"}}, ""},
		{"a password alone", Config{Password: password}, "User and Password"},
		{"a user alone", Config{User: "app"}, "User and Password"},
		{"a mechanism alone", Config{Mechanism: Plain}, "Mechanism is set"},
		{"the password as the mechanism", Config{User: "app", Password: password, Mechanism: password}, "Mechanism is none of"},
		{"PLAIN", Config{User: "app", Password: password, Mechanism: Plain}, ""},
		{"SCRAM-SHA-256", Config{User: "app", Password: password, Mechanism: ScramSHA256}, ""},
		{"a slash in the prefix", Config{Prefix: "a/b"}, "Prefix"},
		{"the longest prefix", Config{Prefix: strings.Repeat("a", maxPrefixBytes)}, ""},
		{"a longer one", Config{Prefix: strings.Repeat("a", maxPrefixBytes+1)}, "Prefix"},
		{"negative partitions", Config{Partitions: -1}, "Partitions"},
		{"too many partitions", Config{Partitions: maxPartitions + 1}, "Partitions"},
		{"negative replicas", Config{Replicas: -1}, "Replicas"},
		{"a short retention", Config{Retention: minRetention - time.Second}, "Retention"},
		{"the shortest retention", Config{Retention: minRetention}, ""},
		{"a small frame", Config{MaxFrameBytes: minFrameBytes - 1}, "MaxFrameBytes"},
		{"the smallest frame", Config{MaxFrameBytes: minFrameBytes}, ""},
		{"the largest frame", Config{MaxFrameBytes: maxFrameBytes}, ""},
		{"a larger frame", Config{MaxFrameBytes: maxFrameBytes + 1}, "MaxFrameBytes"},
		{"TLS twice", Config{TLS: &tls.Config{}, Options: []kgo.Opt{kgo.Dialer((&tls.Dialer{}).DialContext)}}, "Options"},
		{"a group", Config{Options: []kgo.Opt{kgo.TransactionalID("x")}}, "Options"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.cfg)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			providertest.CheckNoSecret(t, password, tt.cfg, p, err)
		})
	}
}

// A topic's name has room for 249 bytes.
func TestTopic_LongestNameFits(t *testing.T) {
	p := newTest(t, Config{Prefix: strings.Repeat("a", maxPrefixBytes)})
	if n := len(p.topic([16]byte{})); n > 249 {
		t.Errorf("the name has %d bytes", n)
	}
}

func TestConfig_ShowsTheBrokersAlone(t *testing.T) {
	cfg := Config{Brokers: []string{"10.0.0.7:9093", "other"}, User: "app", Password: password}
	if got, want := cfg.String(), "kafka: 10.0.0.7:9093, other:9092"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	providertest.CheckNoSecret(t, password, cfg, &cfg, newTest(t, cfg))
}

// Whatever is written as a broker: what may be a password is in no error, and what is taken for an address has a host and a port.
func FuzzBrokers(f *testing.F) {
	f.Add("host:9092")
	f.Add("kafka://app:open-sesame@host:9092")
	f.Add("[::1]")
	f.Add("a,b:1, ,c:")
	f.Fuzz(func(t *testing.T, text string) {
		const secret = "Gh7-secret-q"
		for _, s := range []string{text, text + ":" + secret + "@host", "kafka://app:" + secret + "@" + text} {
			all, err := Config{Brokers: []string{s}}.brokers()
			if err != nil {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("brokers of %q: %v", s, err)
				}
				continue
			}
			for _, address := range all {
				if again, ok := withPort(address); !ok || again != address {
					t.Errorf("brokers of %q: %q, which is read as %q, %v", s, address, again, ok)
				}
				if strings.Contains(address, "@") {
					t.Errorf("brokers of %q: %q", s, address)
				}
			}
		}
	})
}
