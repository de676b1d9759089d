package rabbitbus

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider/providertest"
)

func TestNew_NamesTheFieldThatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{URLs: []string{"amqp://a", "http://app:" + secret + "@b"}}, "URLs number 2"},
		{Config{URLs: []string{"app:" + secret + "@b"}}, "amqp://"},
		{Config{URLs: []string{"amqp://app:" + secret + "%zz@b"}}, "percent-encoded"},
		{Config{URLs: []string{"amqp://app:" + secret + "/@b"}}, "percent-encoded"},
		{Config{URLs: []string{"amqp://app:" + secret + "?@b"}}, "%3F"},
		{Config{URLs: []string{"amqp://app:" + secret + "@b?heartbeat=1"}}, "the other fields"},
		{Config{URLs: []string{"amqp://app:" + secret + "@b:70000"}}, "host:port"},
		{Config{URLs: []string{strings.Repeat("amqp://b,", 65)}}, "at most 64"},
		{Config{Prefix: "a/b"}, "Prefix"},
		{Config{Prefix: "a*"}, "Prefix"},
		{Config{Prefix: strings.Repeat("a", 129)}, "Prefix"},
		{Config{MaxFrameBytes: 511}, "MaxFrameBytes"},
		{Config{MaxFrameBytes: 1<<20 + 1}, "MaxFrameBytes"},
		{Config{QueueBytes: 1<<20 - 1}, "QueueBytes"},
		{Config{QueueBytes: 8<<20 - 1, MaxFrameBytes: 1 << 20}, "QueueBytes"},
		{Config{QueueExpiry: time.Second - 1}, "QueueExpiry"},
		{Config{QueueExpiry: -1}, "QueueExpiry"},
	} {
		_, err := New(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New for %q: %v; want an error about it", tt.want, err)
		}
		providertest.CheckNoSecret(t, secret, err)
	}
}

func TestConfig_ShowsServersAndNoSecret(t *testing.T) {
	cfg := Config{URLs: []string{"amqp://app:" + secret + "@10.0.0.7, amqps://app:" + secret + "@rabbit.example:5999/a%2Fb"}, TLS: &tls.Config{}}
	p := newTest(t, cfg)
	providertest.CheckNoSecret(t, secret, cfg, &cfg, p)
	if got, want := cfg.String(), "rabbit: amqp://10.0.0.7:5672, amqps://rabbit.example:5999/a/b"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	providertest.CheckNoSecret(t, secret, Config{URLs: []string{"amqp:// app:" + secret + "@b"}})
	if got, want := (Config{}).String(), "rabbit: amqp://127.0.0.1:5672"; got != want {
		t.Errorf("String() of the zero Config = %q, want %q", got, want)
	}
}

// Whatever the prefix, a name has room in what AMQP allows.
func TestPrefix_LeavesRoomForNames(t *testing.T) {
	p := newTest(t, Config{Prefix: strings.Repeat("a", maxPrefixBytes)})
	if n := len(p.newQueue(p.keeper.Env().Site)); n > 255 {
		t.Errorf("a queue's name has %d bytes", n)
	}
}
