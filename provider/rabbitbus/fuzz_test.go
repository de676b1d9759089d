package rabbitbus

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Whatever stands around a password, an error repeats nothing of it, and a server does not show it.
func FuzzServers(f *testing.F) {
	for _, around := range [][2]string{
		{"amqp://app:", "@10.0.0.7:5672/v"}, {"amqps://app:", "@[::1]/%2F"}, {"amqp://a,amqp://b:", "@c"}, {"amqp://app:", "%zz@b"}, {"amqp://:", "@"},
		{"app:", "@b"}, {"http://app:", "@b"}, {"amqp://b?heartbeat=", ""}, {"amqp://app:", "/@b"}, {"amqp://app:", "#@b"}, {"amqp://b:5672:", ""},
	} {
		f.Add(around[0], around[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		_, servers, err := Config{URLs: []string{before + secret + after}}.withDefaults()
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the secret is in %q", err)
		}
		for _, s := range servers {
			if strings.Contains(s.password, secret) && strings.Contains(s.String(), secret) && strings.Count(before+secret+after, secret) == 1 {
				t.Errorf("the password is in %q", s)
			}
			if s.address == "" || s.vhost == "" {
				t.Errorf("%q is a server without address or virtual host: %v", before+secret+after, s)
			}
		}
	})
}

// Whatever a server says of an error, it becomes one line of bounded length.
func FuzzExplain(f *testing.F) {
	f.Add(403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'app'", true)
	f.Add(530, "NOT_ALLOWED - vhost other not found", true)
	f.Add(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange", true)
	f.Add(501, "read tcp: i/o timeout", false)
	f.Fuzz(func(t *testing.T, code int, reason string, byServer bool) {
		s := &server{address: "10.0.0.7:5672", vhost: "/", user: "app", password: secret}
		for _, doing := range []string{connecting, subscribing, publishing, staying} {
			line := explain(doing, s, defaultPrefix, &amqp.Error{Code: code, Reason: reason, Server: byServer}).Error()
			if len(line) > 800 || strings.Contains(line, "\n") || !strings.Contains(line, "; ") {
				t.Errorf("%q", line)
			}
		}
	})
}

// Whatever a stranger says of who he is, the log gets a tag or a word of ours.
func FuzzShown(f *testing.F) {
	f.Add("0123456789abcdef")
	f.Add("0123456789abcdeF\n")
	f.Fuzz(func(t *testing.T, tag string) {
		if got := shown(tag); got != "a stranger" && (got != tag || len(tag) != 2*tagBytes || strings.Trim(tag, "0123456789abcdefABCDEF") != "") {
			t.Errorf("shown(%q) = %q", tag, got)
		}
	})
}
