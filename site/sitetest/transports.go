package sitetest

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
)

func changeSiteStoresTransports(t *testing.T, store Store) {
	f := newFixture(t, store)
	if !f.site.Transports.IsZero() || f.site.Transports.Changed != 0 {
		t.Errorf("a new site has the transports %+v, want none", f.site.Transports)
	}
	udp, nats, both := []string{"udp"}, []string{"nats"}, []string{"nats", "udp"}
	until := f.changes(0).Now.Add(90 * time.Second).Truncate(time.Millisecond)
	m := f.join(hour)
	for _, c := range []struct {
		name string
		next site.Transports
	}{
		{"subscribe", site.Transports{Receive: both, Send: udp, From: udp, To: nats}},
		{"send on both", site.Transports{Receive: both, Send: both, From: udp, To: nats}},
		{"send on the new one", site.Transports{Receive: both, Send: nats, From: udp, To: nats}},
		{"an end", site.Transports{Receive: both, Send: nats, From: udp, To: nats, Until: until}},
		{"back", site.Transports{Receive: both, Send: udp, From: nats, To: udp, Back: true}},
		{"and back", site.Transports{Receive: both, Send: nats, From: udp, To: nats}},
		{"close", site.Transports{Receive: nats, Send: nats, From: nats, To: nats}},
		{"awkward names", site.Transports{Receive: []string{"nats", `ö"\'`}, Send: nats, From: nats, To: []string{`ö"\'`}}},
	} {
		since := f.changes(0).Revision
		next := c.next.Clone()
		next.Changed = 1 << 40 // to be ignored
		got := f.change(func(s *site.Site) { s.Transports = next })
		if !got.Transports.Equal(c.next) || got.Transports.Changed != got.Generation {
			t.Errorf("%s: ChangeSite returned %+v in generation %d, want %+v", c.name, got.Transports, got.Generation, c.next)
		}
		if read := f.read(f.site.ID); !sameSite(read, got) {
			t.Errorf("%s: read back %+v, want %+v", c.name, read, got)
		}
		if snap := f.changes(since); len(snap.Sites) != 1 || !sameSite(snap.Sites[0], got) {
			t.Errorf("%s: the changes are %+v, want the site", c.name, snap)
		}
		if snap := f.snapshot(m.Stream, f.site.ID); len(snap.Sites) != 1 || !sameSite(snap.Sites[0], got) {
			t.Errorf("%s: a snapshot has the sites %+v, want %+v", c.name, snap.Sites, got)
		}
		// What a caller does to what it passed in, or got, must not show in the next answer.
		next.Receive[0], got.Transports.Send[0] = "changed", "changed"
		if read := f.read(f.site.ID); !read.Transports.Equal(c.next) {
			t.Errorf("%s: %+v is what it was not", c.name, read.Transports)
		}
		key := f.change(func(s *site.Site) { s.Floors.MACRequired = !s.Floors.MACRequired })
		if key.Transports.Changed >= key.Generation || !key.Transports.Equal(c.next) {
			t.Errorf("%s: a change of the floors in generation %d left %+v", c.name, key.Generation, key.Transports)
		}
	}
}

func changeSiteRefusesTransportsThatLose(t *testing.T, store Store) {
	f := newFixture(t, store)
	udp, nats, both := []string{"udp"}, []string{"nats"}, []string{"nats", "udp"}
	f.change(func(s *site.Site) { s.Transports = site.Transports{Receive: udp, Send: udp, From: udp, To: udp} })
	before := f.read(f.site.ID)
	var many []string
	for i := range site.MaxProviders + 1 {
		many = append(many, strings.Repeat("x", 1+i))
	}
	for name, next := range map[string]site.Transports{
		"none":                         {},
		"what nobody receives yet":     {Receive: both, Send: nats, From: udp, To: nats},
		"both where one is received":   {Receive: both, Send: both, From: udp, To: nats},
		"what others send still":       {Receive: nats, Send: nats, From: udp, To: nats},
		"sent on and not received":     {Receive: udp, Send: both, From: udp, To: both},
		"nothing sent on":              {Receive: udp, From: udp, To: udp},
		"no goal":                      {Receive: udp, Send: udp, From: udp},
		"no origin":                    {Receive: udp, Send: udp, To: udp},
		"names out of order":           {Receive: []string{"udp", "nats"}, Send: udp, From: udp, To: udp},
		"a name twice":                 {Receive: []string{"udp", "udp"}, Send: udp, From: udp, To: udp},
		"no name":                      {Receive: []string{"", "udp"}, Send: udp, From: udp, To: udp},
		"a name with a zero byte":      {Receive: []string{"\x00", "udp"}, Send: udp, From: udp, To: udp},
		"too many":                     {Receive: append(many, "udp"), Send: udp, From: udp, To: udp},
		"an end and nothing beside it": {Until: time.Unix(1, 0)},
	} {
		s := before
		s.Transports = next
		_, err := f.db.ChangeSite(t.Context(), s)
		f.wantError("ChangeSite to "+name, err, nil)
		if errors.Is(err, site.ErrConflict) {
			t.Errorf("ChangeSite to %s: error %q wraps ErrConflict, which it must not", name, err)
		}
	}
	if after := f.read(f.site.ID); !sameSite(after, before) {
		t.Errorf("refused changes made %+v of %+v", after, before)
	}
	f.change(func(s *site.Site) { s.Transports = site.Transports{Receive: both, Send: udp, From: udp, To: nats} })
	s := f.change(func(s *site.Site) { s.Transports = site.Transports{Receive: both, Send: both, From: udp, To: nats} })
	s.Transports = site.Transports{Receive: nats, Send: nats, From: udp, To: nats}
	_, err := f.db.ChangeSite(t.Context(), s)
	f.wantError("ChangeSite that closes what instances may still send on", err, nil)
}

func joinStoresWhatAnInstanceCarries(t *testing.T, store Store) {
	f := newFixture(t, store)
	m := f.member()
	m.Providers, m.Uses, m.Carries = []string{"nats", "udp"}, []string{"udp"}, 3
	f.joinAs(m, hour)
	m.Providers[0] = "changed"
	got := f.row(m.Stream)
	if !slices.Equal(got.Providers, []string{"nats", "udp"}) || !slices.Equal(got.Uses, []string{"udp"}) || got.Carries != 3 {
		t.Errorf("joined with providers, read back %q, %q, %d", got.Providers, got.Uses, got.Carries)
	}
	f.renew(m.Stream, site.Renewal{Lease: hour, Carries: 5})
	got = f.row(m.Stream)
	if !slices.Equal(got.Providers, []string{"nats", "udp"}) || !slices.Equal(got.Uses, []string{"udp"}) || got.Carries != 5 {
		t.Errorf("renewed with generation 5 and nil providers, read back %q, %q, %d", got.Providers, got.Uses, got.Carries)
	}
	f.renew(m.Stream, site.Renewal{Lease: hour, Carries: 4, Providers: []string{"nats"}})
	got = f.row(m.Stream)
	if !slices.Equal(got.Providers, []string{"nats"}) || !slices.Equal(got.Uses, []string{"udp"}) || got.Carries != 5 {
		t.Errorf("renewed with a lower generation and other providers, read back %q, %q, %d; want nats, udp, 5", got.Providers, got.Uses, got.Carries)
	}
	f.renew(m.Stream, site.Renewal{Lease: hour, Providers: []string{}})
	if got := f.row(m.Stream); len(got.Providers) != 0 {
		t.Errorf("renewed with no providers, read back %q", got.Providers)
	}

	many := f.member()
	for i := range site.MaxProviders {
		n := strconv.Itoa(100 + i)
		many.Providers = append(many.Providers, n+strings.Repeat("x", site.MaxTextLen-len(n)))
	}
	many.Uses = many.Providers
	f.joinAs(many, hour)
	if got := f.row(many.Stream); !slices.Equal(got.Providers, many.Providers) || !slices.Equal(got.Uses, many.Providers) {
		t.Error("joined with as many providers as allowed, and names as long, read back something else")
	}
	none := f.join(hour)
	if got := f.row(none.Stream); got.Providers != nil || got.Uses != nil || got.Carries != 0 {
		t.Errorf("joined without providers, read back %q, %q, %d", got.Providers, got.Uses, got.Carries)
	}
	for name, spoil := range map[string]func(*site.Member){
		"providers out of order":      func(m *site.Member) { m.Providers = []string{"b", "a"} },
		"a provider without a name":   func(m *site.Member) { m.Uses = []string{""} },
		"a generation beyond 63 bits": func(m *site.Member) { m.Carries = 1 << 63 },
	} {
		m := f.member()
		spoil(&m)
		f.wantError("Join with "+name, f.db.Join(t.Context(), m, hour), nil)
	}
	f.wantError("Renew with providers out of order", f.db.Renew(t.Context(), m.Stream, site.Renewal{Lease: hour, Providers: []string{"b", "a"}}), nil)
	f.wantError("Renew with a generation beyond 63 bits", f.db.Renew(t.Context(), m.Stream, site.Renewal{Lease: hour, Carries: 1 << 63}), nil)
}
