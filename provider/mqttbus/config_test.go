package mqttbus

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider/providertest"
)

const secret = "pa55-w0rd"

func TestNew_NamesTheFieldThatIsWrong(t *testing.T) {
	const url = "mqtt://h"
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; empty: it is fine
	}{
		{"no URL", Config{}, "URLs are missing"},
		{"an empty URL", Config{URLs: []string{url, ""}}, "URLs number 2"},
		{"another scheme", Config{URLs: []string{"http://h"}}, "mqtt:// or mqtts://"},
		{"no scheme", Config{URLs: []string{"h:1883"}}, "URLs number 1"},
		{"no host", Config{URLs: []string{"mqtt://user:" + secret + "@"}}, "URLs number 1"},
		{"a path", Config{URLs: []string{url + "/" + secret}}, "nothing after it"},
		{"options", Config{URLs: []string{url + "?" + secret}}, "nothing after it"},
		{"a password with a slash", Config{URLs: []string{"mqtt://user:" + secret + "/@h"}}, "percent-encoded"},
		{"a password that is badly encoded", Config{URLs: []string{"mqtt://user:%zz" + secret + "@h"}}, "percent-encoded"},
		{"the longest prefix", Config{URLs: []string{url}, Prefix: strings.Repeat("p", 128)}, ""},
		{"a prefix too long", Config{URLs: []string{url}, Prefix: strings.Repeat("p", 129)}, "Prefix"},
		{"a prefix of levels", Config{URLs: []string{url}, Prefix: "a/b-c.d_e:f"}, ""},
		{"a prefix that ends with a level", Config{URLs: []string{url}, Prefix: "a/"}, "Prefix"},
		{"a wildcard in the prefix", Config{URLs: []string{url}, Prefix: "a/+/b"}, "Prefix"},
		{"a pattern in the prefix", Config{URLs: []string{url}, Prefix: "a/%u/b"}, "Prefix"},
		{"a prefix of the server's own", Config{URLs: []string{url}, Prefix: "$SYS"}, "Prefix"},
		{"the shortest expiry", Config{URLs: []string{url}, SessionExpiry: time.Second}, ""},
		{"an expiry too short", Config{URLs: []string{url}, SessionExpiry: time.Second - 1}, "SessionExpiry"},
		{"an expiry that MQTT takes for ever", Config{URLs: []string{url}, SessionExpiry: 4294967295 * time.Second}, "SessionExpiry"},
		{"the smallest frame", Config{URLs: []string{url}, MaxFrameBytes: 512}, ""},
		{"a frame too small", Config{URLs: []string{url}, MaxFrameBytes: 511}, "MaxFrameBytes"},
		{"the largest frame", Config{URLs: []string{url}, MaxFrameBytes: 1 << 20}, ""},
		{"a frame too large", Config{URLs: []string{url}, MaxFrameBytes: 1<<20 + 1}, "MaxFrameBytes"},
		{"the smallest receive buffer", Config{URLs: []string{url}, ReceiveBytes: 64 << 10}, ""},
		{"a receive buffer too small", Config{URLs: []string{url}, ReceiveBytes: 64<<10 - 1}, "ReceiveBytes"},
		{"a receive buffer too large", Config{URLs: []string{url}, ReceiveBytes: 1<<30 + 1}, "ReceiveBytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.cfg)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				p.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			providertest.CheckNoSecret(t, secret, err, tt.cfg, &tt.cfg)
		})
	}
}

func TestURL_SaysWhere(t *testing.T) {
	for _, tt := range []struct {
		url                  string
		address, user, given string
		tls                  bool
	}{
		{"mqtt://h", "h:1883", "", "", false},
		{"mqtts://h", "h:8883", "", "", true},
		{"tcp://h:1", "h:1", "", "", false},
		{"ssl://[::1]", "[::1]:8883", "", "", true},
		{"mqtts://user:p%2Fw%40@h:9/", "h:9", "user", "p/w@", true},
		{"mqtt://user@h", "h:1883", "user", "", false},
	} {
		e, err := parseURL(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if e.address != tt.address || e.user != tt.user || e.password != tt.given || e.tls != tt.tls || e.named != (tt.user != "") {
			t.Errorf("%s: address %s, user %q, password %q, TLS %t", tt.url, e.address, e.user, e.password, e.tls)
		}
	}
}

func TestConfig_ShowsNoSecret(t *testing.T) {
	cfg := Config{
		URLs:        []string{"mqtts://user:" + secret + "@h", "mqtt://user:" + secret + "/@h"},
		Credentials: func(context.Context) (string, string, error) { return "user", secret, nil },
		TLS:         &tls.Config{ServerName: secret},
		Dial:        func(context.Context, string) (net.Conn, error) { return nil, nil },
	}
	providertest.CheckNoSecret(t, secret, cfg, &cfg)
	if s := cfg.String(); !strings.Contains(s, "mqtts://h:8883") {
		t.Errorf("%s does not show where the server is", s)
	}
	cfg.URLs = cfg.URLs[:1]
	p := newTest(t, cfg)
	providertest.CheckNoSecret(t, secret, p, p.cfg, p.cfg.endpoints)
}
