package redisbus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/redis/rueidis"
)

const secret = "s3cr3t" // the password of every URL here

func TestConfig_RefusesWhatCannotWork(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; empty: none
	}{
		{"nothing says where the server is", Config{}, "URL is missing"},
		{"two things say it", Config{URL: "redis://h", Client: struct{ rueidis.Client }{}}, "one of them"},
		{"another scheme", Config{URL: "http://u:" + secret + "@h"}, "does not begin with redis://"},
		{"no scheme", Config{URL: "u:" + secret + "@h:6379"}, "does not begin with redis://"},
		{"a password that is not encoded", Config{URL: "redis://u:" + secret + "/x@h:6379"}, "percent-encoded"},
		{"a password that looks like a path", Config{URL: "redis://h/" + secret}, "percent-encoded"},
		{"a control character", Config{URL: "redis://u:" + secret + "\x7f@h"}, "percent-encoded"},
		{"a time limit that is none", Config{URL: "redis://h?dial_timeout=" + secret}, "percent-encoded"},
		{"a wildcard in the prefix", Config{URL: "redis://h", Prefix: "a*"}, "Prefix"},
		{"a long prefix", Config{URL: "redis://h", Prefix: strings.Repeat("a", maxPrefix+1)}, "Prefix"},
		{"the longest prefix", Config{URL: "redis://h", Prefix: strings.Repeat("a", maxPrefix)}, ""},
		{"a negative frame", Config{URL: "redis://h", MaxFrameBytes: -1}, "MaxFrameBytes"},
		{"a frame that is too small", Config{URL: "redis://h", MaxFrameBytes: minFrameBytes - 1}, "MaxFrameBytes"},
		{"the smallest frame", Config{URL: "redis://h", MaxFrameBytes: minFrameBytes}, ""},
		{"the largest frame", Config{URL: "redis://h", MaxFrameBytes: maxFrameBytes}, ""},
		{"a frame that not every receiver takes", Config{URL: "redis://h", MaxFrameBytes: maxFrameBytes + 1}, "MaxFrameBytes"},
		{"a user, a password and a database", Config{URL: "rediss://u:" + secret + "@h:1/2"}, ""},
		{"a socket", Config{URL: "unix:///run/redis.sock"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.cfg)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			case err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n")):
				t.Errorf("the error shows the password, or is several lines: %v", err)
			}
		})
	}
}

func TestConfig_ShowsNoSecret(t *testing.T) {
	cfg := Config{URL: "redis://u:" + secret + "@127.0.0.1:1"}
	p := newTest(t, cfg)
	var shown bytes.Buffer
	for _, v := range []any{cfg, &cfg, struct{ C Config }{cfg}, []Config{cfg}, p} {
		fmt.Fprintf(&shown, "%v %+v %#v %s\n", v, v, v, v)
		slog.New(slog.NewTextHandler(&shown, nil)).Info("text", "value", v)
		slog.New(slog.NewJSONHandler(&shown, nil)).Info("json", "value", v)
		if b, err := json.Marshal(v); err == nil {
			shown.Write(b)
		}
	}
	err := p.Start(t.Context(), envOf(t))
	fmt.Fprintf(&shown, "%v %+v %#v", err, err, err)
	if err == nil || strings.Contains(shown.String(), secret) {
		t.Errorf("started: %v; the password is shown:\n%s", err == nil, &shown)
	}
}

func TestConfig_AddressesOfAURLAreTriedInTurn(t *testing.T) {
	for _, tt := range []struct {
		name string
		url  string
		want [][]string
	}{
		{"one", "redis://a", [][]string{{"a:6379"}}},
		{"several", "redis://a:1?addr=b:2&addr=c:3", [][]string{{"a:1"}, {"b:2"}, {"c:3"}}},
		{"Sentinels know one primary", "redis://a:1?addr=b:2&master_set=m", [][]string{{"a:1", "b:2"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			options, err := parseURL(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			var got [][]string
			for _, o := range options {
				got = append(got, o.InitAddress)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("addresses %v, want %v", got, tt.want)
			}
		})
	}
}
