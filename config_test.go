package carillon_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
)

// named is a Provider with another name.
type named struct {
	*wrap
	name string
}

func (n named) Name() string { return n.name }

func TestConfig_ErrorsNameTheField(t *testing.T) {
	for _, tt := range []struct {
		field  string
		change func(*carillon.Config)
	}{
		{"Application", func(c *carillon.Config) { c.Application = "" }},
		{"Site", func(c *carillon.Config) { c.Site = " x" }},
		{"Site", func(c *carillon.Config) { c.Application = strings.Repeat("x", 101) }},
		{"Role", func(c *carillon.Config) { c.Role = 4 }},
		{"Database", func(c *carillon.Config) { c.Database = nil }},
		{"Providers", func(c *carillon.Config) { c.Providers = append(c.Providers, nil) }},
		{"Providers", func(c *carillon.Config) { c.Providers = append(c.Providers, c.Providers[0]) }},
		{"Providers", func(c *carillon.Config) { c.Providers = []provider.Provider{named{wrap: c.Providers[0].(*wrap)}} }},
		{"Providers", func(c *carillon.Config) {
			c.Providers = []provider.Provider{&wrap{Provider: c.Providers[0].(*wrap).Provider, caps: &provider.Capabilities{MaxFrameBytes: 511}}}
		}},
		{"MissedAfter", func(c *carillon.Config) { c.MissedAfter = -1 }},
		{"MaxStall", func(c *carillon.Config) { c.MaxStall = -1 }},
		{"Lease", func(c *carillon.Config) { c.Lease = -1 }},
		{"Lease", func(c *carillon.Config) { c.Lease = 25 * time.Hour }},
		{"Poll", func(c *carillon.Config) { c.Poll = -1 }},
		{"Poll", func(c *carillon.Config) { c.Poll = 11 * time.Second }},
		{"HoldBytes", func(c *carillon.Config) { c.HoldBytes = -1 }},
		{"QueueBytes", func(c *carillon.Config) { c.QueueBytes = -1 }},
		{"UnsentBytes", func(c *carillon.Config) { c.UnsentBytes = -1 }},
		{"MaxEventBytes", func(c *carillon.Config) { c.MaxEventBytes = -1 }},
		{"MaxEventBytes", func(c *carillon.Config) { c.MaxEventBytes = 16<<20 + 1 }},
		{"RingBytes", func(c *carillon.Config) { c.RingBytes = -1 }},
		{"RingFrames", func(c *carillon.Config) { c.RingFrames = -1 }},
	} {
		db, bus := site2()
		closed := false
		p := &wrap{Provider: bus.Provider(), close: func() { closed = true }}
		cfg := config(db, p)
		tt.change(&cfg)
		_, err := carillon.Open(context.Background(), cfg)
		configErr, ok := errors.AsType[*carillon.ConfigError](err)
		if !ok || configErr.Field != tt.field || !strings.HasPrefix(err.Error(), "carillon: Config."+tt.field+": ") {
			t.Errorf("%s: Open returns %v", tt.field, err)
		}
		if !closed && len(cfg.Providers) > 0 && cfg.Providers[0] == p {
			t.Errorf("%s: %v: the provider is left open", tt.field, err)
		}
	}
}

func TestConfig_HasDefaults(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		b := mustOpen(t, carillon.Config{Application: "shop", Version: "1.2", Database: db, Providers: []provider.Provider{bus.Provider()}})
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		m := b.Members()
		if len(m) != 1 || m[0].SiteName != "shop" || m[0].Application != "shop" || m[0].Server != host || m[0].Version != "1.2" ||
			m[0].Role != carillon.Both || !m[0].Self {
			t.Errorf("members %+v", m)
		}
	})
}

func TestConfig_ShortLeaseShortensThePoll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		cfg := config(db, bus.Provider())
		cfg.Lease = time.Second
		mustOpen(t, cfg)
	})
}

func TestConfig_IsCopied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		cfg := config(db, bus.Provider())
		cfg.AcceptSites = []string{}
		b := mustOpen(t, cfg)
		cfg.Providers[0] = nil
		b.Enable()
		d := define()
		raise(t, d, b, 1, 1)
		if err := b.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestReasons_HaveStableNames(t *testing.T) {
	b := local(t)
	drops := b.Stats().Drops
	var names []string
	for r := carillon.DropReason(1); !strings.HasPrefix(r.String(), "DropReason("); r++ {
		names = append(names, r.String())
		if _, ok := drops[r]; !ok {
			t.Errorf("Stats has no counter for %v", r)
		}
	}
	if len(names) != len(drops) {
		t.Errorf("%d names, %d counters", len(names), len(drops))
	}
	const want = "malformed too-large version foreign-site unknown-key isolated retired-key floor unsupported-key bad-tag own duplicate late " +
		"before-baseline unknown-stream closed-stream held-overflow inconsistent undecodable role unasked not-enabled local-queue tap-queue closing window-full"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("drop reasons\n%s, want\n%s: names may be added at the end and never change", got, want)
	}
	var missed []string
	for r := carillon.MissedReason(1); !strings.HasPrefix(r.String(), "MissedReason("); r++ {
		missed = append(missed, r.String())
	}
	if got, want := strings.Join(missed, " "), "timeout evicted overflow peer-lost local-queue undecodable reset isolated"; got != want {
		t.Errorf("reasons of misses\n%s, want\n%s", got, want)
	}
	if s := carillon.DropReason(0).String() + carillon.MissedReason(0).String() + carillon.Role(0).String(); s != "DropReason(0)MissedReason(0)Role(0)" {
		t.Errorf("the zero values are called %s", s)
	}
	text, err := json.Marshal(b.Stats())
	if err != nil || !strings.Contains(string(text), `"bad-tag":0`) {
		t.Errorf("stats as JSON: %s, %v", text, err)
	}
}
