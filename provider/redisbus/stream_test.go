package redisbus

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

const testKeep = 20_000

// What the others send while the connection is away waits in the stream.
func TestStreams_HearAfterwardsWhatWasSentMeanwhile(t *testing.T) {
	s := startServer(t)
	way := providertest.NewRelay(t, s.address)
	away, sender := pair(t, Config{URL: "redis://" + way.Addr(), Keep: testKeep}, Config{URL: s.url(), Keep: testKeep})
	hears(t, sender, away, "before", false)
	way.Cut()
	for n := range 100 {
		if err := sender.Provider.Send(t.Context(), [][]byte{[]byte(fmt.Sprint("meanwhile ", n))}); err != nil {
			t.Fatal(err)
		}
	}
	way.Heal()
	for n := range 100 {
		if !away.Heard([]byte(fmt.Sprint("meanwhile ", n)), patience) {
			t.Fatalf("number %d of what was sent meanwhile did not arrive", n)
		}
	}
	if !eventually(func() bool { return away.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
	for i, f := range away.Frames() {
		if i > 0 && string(f) == "before" {
			t.Errorf("%q came again", f)
		}
	}
	late := providertest.Start(t, newTest(t, Config{URL: s.url(), Keep: testKeep}))
	if late.Heard([]byte("meanwhile 99"), 100*time.Millisecond) {
		t.Error("who starts hears what was sent before")
	}
}

// What an instance sent may wait in the stream until it has another connection.
func TestStreams_KnowTheirOwnAfterwards(t *testing.T) {
	s := startServer(t)
	way := providertest.NewRelay(t, s.address)
	one, other := pair(t, Config{URL: "redis://" + way.Addr(), Keep: testKeep}, Config{URL: s.url(), Keep: testKeep})
	hears(t, one, other, "its own", false)
	hears(t, other, one, "another's", false)
	p := one.Provider.(*Provider)
	way.Cut()
	p.places.passed(p.toAll(one.Env().Site), "0-0") // as if nothing had been read
	way.Heal()
	hears(t, other, one, "the last", false)
	var heard []string
	for _, f := range one.Frames() {
		heard = append(heard, string(f))
	}
	if want := []string{"another's", "another's", "the last"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}

// The server is killed again and again, and keeps what it took.
func TestStreams_LoseNothingInSilenceWhenTheServerIsKilled(t *testing.T) {
	s := startWith(t, "", "--save", "", "--appendonly", "yes", "--appendfsync", "always")
	carillontest.Outages{
		Provider: func(int) provider.Provider { return newTest(t, Config{URL: s.url(), Keep: testKeep}) },
		Kill:     s.kill,
		Start:    s.start,
	}.Run(t)
}

// Somebody empties the server while instances run.
func TestStreams_GoOnInAnEmptyServer(t *testing.T) {
	s := startServer(t)
	a, b := pair(t, Config{URL: s.url(), Keep: testKeep}, Config{URL: s.url(), Keep: testKeep})
	hears(t, a, b, "at first", false)
	s.do("FLUSHALL")
	hears(t, a, b, "afterwards", false)
}

func TestStreams_KeepNoMoreThanTheyShould(t *testing.T) {
	const keep = 100
	s := startServer(t)
	a, b := pair(t, Config{URL: s.url(), Keep: keep}, Config{URL: s.url(), Keep: keep})
	for n := range 20 * keep {
		if err := a.Provider.Send(t.Context(), [][]byte{[]byte(strconv.Itoa(n))}); err != nil {
			t.Fatal(err)
		}
	}
	if !b.Heard([]byte(strconv.Itoa(20*keep-1)), patience) {
		t.Fatal("the last one did not arrive")
	}
	key := a.Provider.(*Provider).toAll(a.Env().Site)
	c := s.client()
	defer c.Close()
	held, err := c.Do(t.Context(), c.B().Xlen().Key(key).Build()).AsInt64()
	if err != nil || held < keep || held > 3*keep {
		t.Errorf("the server keeps %d entries (%v), want about %d", held, err, keep)
	}
	lives, err := c.Do(t.Context(), c.B().Ttl().Key(key).Build()).AsInt64()
	if err != nil || lives <= 0 {
		t.Errorf("the stream of a site that is given up lives for %d s (%v)", lives, err)
	}
}

func TestStreams_SayWhatToDo(t *testing.T) {
	s := startServer(t, "--requirepass", "operators")
	s.do("ACL", "SETUSER", "app", "on", ">"+secret, "&carillon:*", "~carillon:*", "-@all", "+publish", "+subscribe", "+ping", "+xadd", "+xread", "+xrevrange", "+expire")
	s.do("ACL", "SETUSER", "pubsub", "on", ">"+secret, "&carillon:*", "-@all", "+publish", "+subscribe", "+ping")
	cluster := startNode(t)
	for _, tt := range []struct{ name, url, want string }{
		{"the rights that the documentation names suffice", "redis://app:" + secret + "@" + s.address, ""},
		{"the rights of pub/sub do not", "redis://pubsub:" + secret + "@" + s.address, "+xadd +xread +xrevrange +expire ~carillon:*"},
		{"a Cluster", cluster.url(), "leave Keep at 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{URL: tt.url, Keep: testKeep}
			p := newTest(t, cfg)
			e := providertest.NewEndpoint(t, p, provider.Env{})
			err := e.Start(t.Context())
			defer e.Close()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start: %v; want %q", err, tt.want)
			}
			providertest.CheckNoSecret(t, secret, cfg, p, err)
		})
	}

	// A server without memory for more is the quota that this service has.
	full := startServer(t, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
	a, b := pair(t, Config{URL: full.url(), Keep: testKeep}, Config{URL: full.url(), Keep: testKeep})
	frame := make([]byte, 30_000)
	var err error
	if !eventually(func() bool { err = a.Provider.Send(t.Context(), [][]byte{frame}); return err != nil }) {
		t.Fatal("the server takes everything")
	}
	if !strings.Contains(err.Error(), "raise its maxmemory, or lower Keep") {
		t.Errorf("Send to a server that is full: %v", err)
	}
	full.do("CONFIG", "SET", "maxmemory", "0")
	hears(t, a, b, "with room again", true)
}

// Instances of a site that was registered later are heard, and answered.
func TestStreams_HearASiteThatComesLater(t *testing.T) {
	s := startServer(t)
	start := func(id site.ID) *providertest.Endpoint {
		e := providertest.NewEndpoint(t, newTest(t, Config{URL: s.url(), Keep: testKeep}), provider.Env{Site: id, Sites: []site.ID{id}})
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		return e
	}
	here, there := start(site.ID{15: 1}), start(site.ID{15: 2})
	providertest.Introduce(here, there)
	hears(t, there, here, "from the other site", true)
}
