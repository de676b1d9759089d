//go:build unix

package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
)

func TestOutages_TellWhenATransportIsBack(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	up := func(name string) carillon.ProviderStats { return carillon.ProviderStats{Name: name} }
	down := func(name string) carillon.ProviderStats {
		return carillon.ProviderStats{Name: name, FailingSince: start}
	}
	var o outages
	for _, tt := range []struct {
		name  string
		after time.Duration
		stats []carillon.ProviderStats
		want  []string
	}{
		{"all is well", 0, []carillon.ProviderStats{up("redis"), up("nats")}, nil},
		{"one is away", time.Second, []carillon.ProviderStats{down("redis"), up("nats")}, nil},
		{"so is the other", 2 * time.Second, []carillon.ProviderStats{down("redis"), down("nats")}, nil},
		{"one is back", 2340 * time.Millisecond, []carillon.ProviderStats{down("redis"), up("nats")}, []string{"nats is back after 2.3s"}},
		{"then the other", 28400 * time.Millisecond, []carillon.ProviderStats{up("redis"), up("nats")}, []string{"redis is back after 28s"}},
		{"it is told once", 29 * time.Second, []carillon.ProviderStats{up("redis"), down("nats")}, nil},
		{"the site was moved away from it", 30 * time.Second, []carillon.ProviderStats{up("redis")}, nil},
		{"and to it again", 31 * time.Second, []carillon.ProviderStats{up("redis"), up("nats")}, nil},
	} {
		if got := o.ended(start.Add(tt.after), tt.stats); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestListen_TellsThatTheTransportIsBack(t *testing.T) {
	redis := startRedis(t)
	b := newBench(t, "shop")
	listen := program(t, "carillon", words("listen --provider redis --site shop --database sqlite:"+b.file)...)
	listen.Env = append(listen.Env, "Carillon__Redis__Url="+redis.url)
	said := new(output)
	listen.Stderr = said
	if err := listen.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listen.Process.Signal(os.Interrupt) // it may have ended
		if err := listen.Wait(); err != nil {
			t.Errorf("listen ended with %v: %s", err, said)
		}
	})
	says := func(text string) {
		t.Helper()
		eventually(t, patience, "listen says "+text, func() bool { return strings.Contains(said.String(), text) })
	}
	says("listening to ")
	redis.kill()
	says("level=WARN")
	gone := time.Now()
	eventually(t, patience, "the outage is longer than a few looks", func() bool { return time.Since(gone) > 8*lookEvery })
	redis.start()
	says("redis is back after ")
}
