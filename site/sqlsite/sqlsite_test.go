package sqlsite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
)

// nowhere is a pool whose every connection fails.
type nowhere struct{ err error }

func (n nowhere) Connect(context.Context) (driver.Conn, error) { return nil, n.err }
func (n nowhere) Driver() driver.Driver                        { return nil }

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	pool := sql.OpenDB(nowhere{})
	defer pool.Close()
	for name, c := range map[string]struct {
		pool *sql.DB
		opts []Option
		want string
	}{
		"no pool":         {nil, nil, "nil"},
		"empty prefix":    {pool, []Option{WithTablePrefix("")}, `""`},
		"injected prefix": {pool, []Option{WithTablePrefix(`x"; DROP TABLE y; --`)}, "prefix"},
		"upper case":      {pool, []Option{WithTablePrefix("Carillon_")}, "Carillon_"},
		"digit first":     {pool, []Option{WithTablePrefix("1_")}, "1_"},
		"long prefix":     {pool, []Option{WithTablePrefix(strings.Repeat("x", 33))}, "32|31"},
		"no members":      {pool, []Option{WithMaxMembers(0)}, "nobody"},
		"unknown dialect": {pool, []Option{WithDialect(dialectEnd)}, "dialect"},
	} {
		_, err := New(c.pool, c.opts...)
		said := false
		for want := range strings.SplitSeq(c.want, "|") {
			said = said || err != nil && strings.Contains(err.Error(), want)
		}
		if !said {
			t.Errorf("New with %s: %v, want an error that says %q", name, err, c.want)
		}
	}
	for _, good := range []string{"c", "carillon_", strings.Repeat("x", 32)} {
		if _, err := New(pool, WithTablePrefix(good), WithDialect(MySQL)); err != nil {
			t.Errorf("New with the prefix %q: %v", good, err)
		}
	}
}

func TestDatabase_ReturnsWhatTheDriverSaysOfTheConnection(t *testing.T) {
	refused := errors.New("connection refused")
	pool := sql.OpenDB(nowhere{refused})
	defer pool.Close()
	d, err := New(pool)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Sites(t.Context())
	if !errors.Is(err, refused) || !strings.HasPrefix(err.Error(), "sqlsite: read the sites: connect: ") {
		t.Errorf("Sites without a server: %v; want what was tried, and the driver's error", err)
	}
}

func TestParseVersion(t *testing.T) {
	for version, want := range map[string]Dialect{
		"PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu": PostgreSQL,
		"PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu":            PostgreSQL,
		"8.0.36":                   MySQL,
		"10.11.19-MariaDB-0+deb12": MySQL,
		"8.0.11-TiDB-v7.5.0":       MySQL,
		"CockroachDB CCL v23.1.11": 0,
		"Microsoft SQL Server":     0,
		"":                         0,
		"Oracle 23.4":              0,
	} {
		if got, err := parseVersion(version); got != want || (err == nil) != (want != 0) {
			t.Errorf("parseVersion(%q) = %v, %v; want %v", version, got, err, want)
		}
	}
}

func TestIsStandby(t *testing.T) {
	for said, want := range map[string]bool{
		"": false, "false": false, "true": true, "f": false, "t": true,
		"0,0": false, "OFF,OFF": false, "1,0": true, "0,1": true, "ON,0": true, "NO_LOCK,0": true,
	} {
		if got := isStandby(said); got != want {
			t.Errorf("isStandby(%q) = %v, want %v", said, got, want)
		}
	}
}

func TestBind_NumbersPlaceholdersForPostgreSQL(t *testing.T) {
	const query = `SELECT a FROM b WHERE c = ? AND d IN (?, ?)`
	if got, want := PostgreSQL.bind(query), `SELECT a FROM b WHERE c = $1 AND d IN ($2, $3)`; got != want {
		t.Errorf("bind(%q) = %q, want %q", query, got, want)
	}
	for _, d := range []Dialect{SQLite, MySQL} {
		if got := d.bind(query); got != query {
			t.Errorf("%v: bind(%q) = %q, want no change", d, query, got)
		}
	}
}

func TestMS_RoundsUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000, 1<<63 - 1: 9223372036855,
	} {
		if got := ms(d); got != want {
			t.Errorf("ms(%d) = %d, want %d", d, got, want)
		}
	}
}

func TestParseHost(t *testing.T) {
	lookup := func(_ context.Context, _, host string) ([]netip.Addr, error) {
		switch host {
		case "app-1.example":
			return []netip.Addr{netip.MustParseAddr("::ffff:10.1.2.3")}, nil
		case "empty.example":
			return nil, nil
		}
		return nil, errors.New("no such host")
	}
	for host, want := range map[string]string{
		"":                "127.0.0.1", // a Unix socket of PostgreSQL
		"localhost":       "127.0.0.1", // one of MySQL, or the loopback address by its name
		"10.0.0.7":        "10.0.0.7",
		"::1":             "::1",
		"::ffff:10.0.0.7": "10.0.0.7",
		"fe80::1%eth0":    "fe80::1%eth0",
		"app-1.example":   "10.1.2.3",
		"app-2.example":   "",
		"empty.example":   "",
	} {
		got, err := parseHost(t.Context(), host, lookup)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), host) {
				t.Errorf("parseHost(%q) = %v, %v; want an error that names the host", host, got, err)
			}
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("parseHost(%q) = %v, %v; want %s", host, got, err, want)
		}
	}
}

func FuzzDecodeAddresses(f *testing.F) {
	for _, s := range []string{`{}`, `{"tcp":["10.0.0.1:7070"]}`, `{"tcp":null}`, `null`, `[]`, `{"tcp":"x"}`, `{"tcp":["\u0000"]}`, ``} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		addresses := decodeAddresses(text)
		if err := (site.Renewal{Lease: 1, Addresses: addresses}).Check(); err != nil {
			t.Fatalf("decodeAddresses(%q) = %v, which is refused: %v", text, addresses, err)
		}
		again, err := encodeAddresses(addresses)
		if err != nil {
			t.Fatal(err)
		}
		if back := decodeAddresses(again); fmt.Sprint(back) != fmt.Sprint(addresses) {
			t.Errorf("%v was stored as %q and read back as %v", addresses, again, back)
		}
	})
}

func FuzzDecodeTransports(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"receive":["nats","udp"],"send":["udp"],"from":["udp"],"to":["nats"],"until_ms":17,"changed":5}`,
		`{"receive":["a"],"send":["b"]}`, `{"receive":["a","a"]}`, `{"until_ms":-1}`, `null`, `[]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := decodeTransports("app", &text)
		if err != nil {
			if !got.IsZero() {
				t.Errorf("decodeTransports(%q) = %+v with the error %v", text, got, err)
			}
			return
		}
		if err := got.Check(); err != nil {
			t.Fatalf("decodeTransports(%q) = %+v, which is refused: %v", text, got, err)
		}
		again, err := encodeTransports(got)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeTransports("app", &again); err != nil || !back.Equal(got) || back.Changed != got.Changed {
			t.Errorf("%+v was stored as %q and read back as %+v, %v", got, again, back, err)
		}
	})
}

func TestDecodeTransports_RefusesASpoiledRow(t *testing.T) {
	for _, text := range []string{``, `[]`, `{"receive":["a"],"send":["b"],"from":["a"],"to":["a"]}`, `{"receive":["a"]}`} {
		if got, err := decodeTransports("app", &text); err == nil || !strings.Contains(err.Error(), `"app"`) {
			t.Errorf("decodeTransports(%q) = %+v, %v; want an error that names the site", text, got, err)
		}
	}
}

func TestDecodeAddresses_IgnoresASpoiledRow(t *testing.T) {
	for _, text := range []string{``, `[]`, `{"tcp":["\u0000"]}`, `{"tcp":["` + strings.Repeat("x", site.MaxTextLen+1) + `"]}`} {
		if got := decodeAddresses(text); got != nil {
			t.Errorf("decodeAddresses(%.40q) = %v, want nothing", text, got)
		}
	}
	if got := decodeAddresses(`{"tcp":["a","b"]}`); len(got["tcp"]) != 2 {
		t.Errorf("two addresses became %v", got)
	}
}
