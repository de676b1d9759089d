//go:build unix

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
)

// What a hint says can be copied: it is about the same site.
func TestHints_SayTheFlagsAgain(t *testing.T) {
	b := newBench(t, "shop", "other")
	db := b.open()
	epoch, err := db.NextEpoch(t.Context())
	if err == nil {
		err = db.Join(t.Context(), site.Member{
			Site: b.site("shop").ID, Stream: site.NewStreamID(epoch, 1), Server: "web", Role: site.RolePublish, Providers: []string{"tcp"}, Uses: []string{"tcp"},
		}, time.Minute)
	}
	if err != nil {
		t.Fatal(err)
	}
	flags := "--database sqlite:" + b.file + " --site shop"
	for _, tt := range []struct{ args, before, command string }{
		{"provider migrate nats", "who has what: ", "provider list"},
		{"provider migrate", "its state: ", "provider list"},
		{"secret revoke 77", "the keys: ", "secret list"},
	} {
		r := carillonCmd(t, nil, words(tt.args+" "+flags)...)
		_, hint, _ := strings.Cut(r.err, tt.before)
		if !strings.HasSuffix(hint, " "+tt.command+" "+flags+"\n") {
			t.Errorf("carillon %s says: %s", tt.args, r.err)
			continue
		}
		_, copied, _ := strings.Cut(hint, " "+tt.command) // before it is how this program was called
		if r := carillonCmd(t, nil, words(tt.command+copied)...); r.code != exitOK {
			t.Errorf("copied, %q ends with %d: %s", hint, r.code, r.err)
		}
	}
}

func TestHints_RepeatNoPassword(t *testing.T) {
	for database, want := range map[string]string{
		"sqlite:site.db":                           "sqlite:site.db",
		"sqlite3:/home/passer by/it's.db":          `'sqlite3:/home/passer by/it'\''s.db'`,
		"sqlite:file:site.db?key=hush":             "…",
		"pgx:postgres://u@host:5432/db":            "pgx:postgres://u@host:5432/db",
		"postgres:postgres://host/db?sslmode=off":  "'postgres:postgres://host/db?sslmode=off'",
		"pgx:postgres://u:hush@host/db":            "…",
		"pgx:postgres://:hush@host/db":             "…",
		"pgx:postgres://u@host/db?password=hush":   "…",
		"pgx:postgres://u@host/db?%70assword=hush": "…",
		"pgx:postgres://u:hu%zzsh@host/db":         "…",
		"pgx:host=a user=u":                        "'pgx:host=a user=u'",
		"pgx:host=a PassWord = hush":               "…",
		"mysql:u@tcp(host)/db":                     "'mysql:u@tcp(host)/db'",
		"mysql:u:hush@tcp(host)/db":                "…",
		"mysql:u:hush@tcp(host":                    "…",
		"oracle:u/hush@host":                       "…",
		"hush":                                     "…",
	} {
		f := siteFlags{Config: "a.json", Database: database, Site: "my shop"}
		if got := f.command("members"); !strings.HasSuffix(got, " members --config a.json --database "+want+" --site 'my shop'") || strings.Contains(got, "hush") {
			t.Errorf("with --database %s: %s", database, got)
		}
	}
	if got := new(siteFlags).command("members"); got != invocation()+" members" {
		t.Errorf("without flags: %s", got)
	}
}
