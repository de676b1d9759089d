package pgbus

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// plain is a password that needs no encoding.
const plain = "s3cr3tw0rd"

func TestConfig_RefusesWhatCannotWork(t *testing.T) {
	const somewhere = "postgres://u:" + plain + "@h/d"
	parsed, err := pgx.ParseConfig(somewhere)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; empty: none
	}{
		{"nothing says where the server is", Config{}, "URL is missing"},
		{"two things say it", Config{URL: somewhere, ConnConfig: parsed}, "one of them"},
		{"a configuration of the application's", Config{ConnConfig: parsed}, ""},
		{"another scheme", Config{URL: "http://u:" + plain + "@h"}, "percent-encoded"},
		{"a password that is not encoded", Config{URL: "postgres://u:" + plain + "/x@h:5432/d"}, "percent-encoded"},
		{"a port that is none", Config{URL: "postgres://u:p@h:" + plain + "/d"}, "percent-encoded"},
		{"a sslmode that is none", Config{URL: "postgres://u:p@h/d?sslmode=" + plain}, "percent-encoded"},
		{"keywords", Config{URL: "host=h user=u password=" + plain + " dbname=d"}, ""},
		{"several hosts", Config{URL: "postgres://u:" + plain + "@h:1,i:2/d"}, ""},
		{"a quote in the prefix", Config{URL: somewhere, Prefix: `a"b`}, "Prefix"},
		{"the sign of hashed names in the prefix", Config{URL: somewhere, Prefix: "a#"}, "Prefix"},
		{"a long prefix", Config{URL: somewhere, Prefix: strings.Repeat("a", maxPrefixBytes+1)}, "Prefix"},
		{"the longest prefix", Config{URL: somewhere, Prefix: strings.Repeat("a", maxPrefixBytes)}, ""},
		{"a table in a schema", Config{URL: somewhere, Table: "app.frames"}, ""},
		{"a table in a schema in a database", Config{URL: somewhere, Table: "d.app.frames"}, "Table"},
		{"a table without a name", Config{URL: somewhere, Table: "app."}, "Table"},
		{"a table with a quote", Config{URL: somewhere, Table: `f"; DROP TABLE x`}, "Table"},
		{"a table with a long name", Config{URL: somewhere, Table: strings.Repeat("f", maxNameBytes+1)}, "Table"},
		{"a negative frame", Config{URL: somewhere, MaxFrameBytes: -1}, "MaxFrameBytes"},
		{"a frame that is too small", Config{URL: somewhere, MaxFrameBytes: minFrameBytes - 1}, "MaxFrameBytes"},
		{"the smallest frame", Config{URL: somewhere, MaxFrameBytes: minFrameBytes}, ""},
		{"the largest frame", Config{URL: somewhere, MaxFrameBytes: maxFrameBytes}, ""},
		{"a frame that not every receiver takes", Config{URL: somewhere, MaxFrameBytes: maxFrameBytes + 1}, "MaxFrameBytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.cfg)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			providertest.CheckNoSecret(t, plain, tt.cfg, &tt.cfg, p, err)
		})
	}
}

func TestConfig_ShowsNoSecret(t *testing.T) {
	cfg := Config{URL: "postgres://u:" + plain + "@127.0.0.1:1/d"}
	p := newTest(t, cfg)
	err := p.Start(t.Context(), providertest.NewEndpoint(t, p, provider.Env{}).Env())
	if err == nil {
		t.Fatal("it started")
	}
	providertest.CheckNoSecret(t, plain, cfg, p, err)
}
