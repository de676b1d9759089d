//go:build unix

package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// A leftover is a database with a site, and a service at which its instances have subscriptions.
type leftover struct {
	*bench
	service *providertest.Service
	site    site.Site
}

func newLeftover(t *testing.T, clock func() time.Time) *leftover {
	b := newBench(t, "shop")
	return &leftover{b, providertest.NewService(clock), b.site("shop")}
}

// add makes a subscription that nobody will close. Unless it is unnamed, an instance has it, which has ended or not.
func (l *leftover) add(name string, named, ended bool) {
	l.t.Helper()
	p := l.service.Subscriber(membus.New().Provider(), name)
	p.Abandon()
	e := providertest.NewEndpoint(l.t, p, provider.Env{Site: l.site.ID})
	if err := errors.Join(e.Start(l.t.Context()), e.Close()); err != nil {
		l.t.Fatal(err)
	}
	if !named {
		return
	}
	db := l.open()
	epoch, err := db.NextEpoch(l.t.Context())
	stream := site.NewStreamID(epoch, 1)
	if err == nil {
		err = db.Join(l.t.Context(), site.Member{
			Site: l.site.ID, Stream: stream, Server: "web-" + name, Role: site.RolePublish, Addresses: map[string][]string{"mem": {name}},
		}, time.Minute)
	}
	if err == nil && ended {
		err = db.Leave(l.t.Context(), stream, site.Mark{})
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// transports gives commands a provider at the service, beside one that leaves nothing behind.
func (l *leftover) transports(*appsettings.Settings, site.Database) ([]provider.Provider, error) {
	return []provider.Provider{membus.New().Provider(), l.service.Subscriber(membus.New().Provider(), "")}, nil
}

func (l *leftover) flags() subscriptionFlags {
	return subscriptionFlags{siteFlags: siteFlags{Database: "sqlite:" + l.file, Timeout: time.Minute}, Grace: new(2 * time.Minute)}
}

type runner interface {
	Run(context.Context, streams, transportMaker) error
}

func (l *leftover) do(c runner) (out string, err error) {
	var std, log bytes.Buffer
	err = c.Run(l.t.Context(), streams{strings.NewReader(""), &std, &log}, l.transports)
	return std.String(), err
}

func TestSubscriptions_TheDryRunListsWhatCleanRemoves(t *testing.T) {
	l := newLeftover(t, time.Now)
	l.add("live", true, false)
	l.add("live1", true, true) // a name that begins like that of the live one
	l.add("dead", true, true)
	l.add("starting", false, false)

	out, err := l.do(&subscriptionsListCmd{l.flags()})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"in use ", "ended ", "unnamed "} {
		if !strings.Contains(out, line) {
			t.Errorf("the list has no line %q:\n%s", line, out)
		}
	}
	clean := &subscriptionsCleanCmd{subscriptionFlags: l.flags(), DryRun: true}
	out, err = l.do(clean)
	if err != nil || !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "web-dead") {
		t.Errorf("the dry run says: %v\n%s", err, out)
	}
	if n := len(l.service.Names()); n != 4 {
		t.Errorf("the dry run left %d of 4", n)
	}

	clean.JSON = true
	dry := removed(t, l, clean)
	clean.DryRun = false
	if did := removed(t, l, clean); !slices.Equal(did, dry) || !slices.Equal(did, []string{"dead", "live1"}) {
		t.Errorf("removed %q, and the dry run had %q", did, dry)
	}
	if left := l.service.Names(); !slices.Equal(left, []string{"live", "starting"}) {
		t.Errorf("left are %q", left)
	}
	if again := removed(t, l, clean); len(again) > 0 {
		t.Errorf("the second time %q went", again)
	}
}

// removed runs the command and returns the names that it says it has removed, or would.
func removed(t *testing.T, l *leftover, c *subscriptionsCleanCmd) []string {
	t.Helper()
	out, err := l.do(c)
	var said struct {
		DryRun  bool
		Removed []subscriptionInfo
	}
	if err := errors.Join(err, json.Unmarshal([]byte(out), &said)); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if said.DryRun != c.DryRun {
		t.Errorf("dryRun is %t", said.DryRun)
	}
	var names []string
	for _, s := range said.Removed {
		names = append(names, s.Name)
	}
	return names
}

// unseen makes it look as if the instance of the subscription was last seen so long ago. It had a lease of half a minute.
func (l *leftover) unseen(name string, ago time.Duration) {
	l.t.Helper()
	pool, err := sql.Open("sqlite", l.file)
	if err != nil {
		l.t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec("UPDATE carillon_members SET seen_ms = seen_ms - ?, lease_until_ms = seen_ms - ? + 30000 WHERE server = ?", ago.Milliseconds(), ago.Milliseconds(), "web-"+name); err != nil {
		l.t.Fatal(err)
	}
}

// All processes of a site were killed, so that none of them closes a row.
func TestSubscriptionsClean_ClosesTheRowsOfKilledInstances(t *testing.T) {
	l := newLeftover(t, time.Now)
	for name, ago := range map[string]time.Duration{"live": 0, "late": 45 * time.Second, "killed": 2 * time.Minute} {
		l.add(name, true, false)
		l.unseen(name, ago)
	}
	out, err := l.do(&subscriptionsListCmd{l.flags()})
	if err != nil || strings.Count(out, "its lease ran out at ") != 2 || strings.Count(out, "counts as gone from ") != 2 || strings.Count(out, "in use ") != 3 {
		t.Errorf("the list says: %v\n%s", err, out)
	}
	state := func() (n int) {
		snap, err := l.open().Changes(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range snap.Members {
			if m.State == site.MemberReaped {
				n++
			}
		}
		return n
	}
	clean := &subscriptionsCleanCmd{subscriptionFlags: l.flags(), DryRun: true}
	clean.JSON = true
	if names := removed(t, l, clean); !slices.Equal(names, []string{"killed"}) || state() != 0 {
		t.Errorf("the dry run would remove %q, and closed %d rows", names, state())
	}
	clean.DryRun = false
	if names := removed(t, l, clean); !slices.Equal(names, []string{"killed"}) || state() != 1 {
		t.Errorf("removed %q, and closed %d rows; want what was killed alone", names, state())
	}
	if left := l.service.Names(); !slices.Equal(left, []string{"late", "live"}) {
		t.Errorf("left are %q", left)
	}
}

func TestSubscriptionsClean_WaitsWhereNobodyKnowsTheAge(t *testing.T) {
	t.Setenv("Carillon__Limits__Lease", "1ms")
	l := newLeftover(t, nil)
	l.add("orphan", false, false)
	clean := &subscriptionsCleanCmd{subscriptionFlags: l.flags()}
	clean.JSON, clean.Grace = true, new(2*time.Millisecond)
	if names := removed(t, l, clean); len(names) > 0 {
		t.Errorf("seen for the first time, %q went", names)
	}
	clean.Wait = true
	if names := removed(t, l, clean); !slices.Equal(names, []string{"orphan"}) {
		t.Errorf("after the grace %q went", names)
	}
}

func TestSubscriptions_SaysWhatIsWrong(t *testing.T) {
	b := newBench(t, "shop")
	b.fails(exitUsage, []string{"subscriptions", "clean", "--grace", "0s"}, "--grace 1m0s")
	b.fails(exitUsage, []string{"subscriptions", "clean", "--grace", "59s"}, "--grace 59s", "the least is --grace 1m0s")
	b.must([]string{"subscriptions", "clean", "--grace", "60s"})
	b.env = []string{"Carillon__Limits__Lease=90s"}
	b.fails(exitUsage, []string{"subscriptions", "clean", "--grace", "2m"}, "the least is --grace 3m0s")
	b.must([]string{"subscriptions", "clean"})
	b.env = nil
	b.fails(exitUsage, []string{"subscriptions", "clean", "--site", "shpo"}, "shop")
	b.fails(exitUsage, []string{"subscriptions", "clean", "--provider", "awz"}, "awz")
	b.must([]string{"subscriptions", "--help"}, "list", "clean")
	if err := b.open().Close(); err != nil {
		t.Fatal(err)
	}

	l := newLeftover(t, time.Now)
	l.add("dead", true, true)
	for name, c := range map[string]runner{"list": &subscriptionsListCmd{l.flags()}, "clean": &subscriptionsCleanCmd{subscriptionFlags: l.flags()}} {
		var out bytes.Buffer
		err := c.Run(t.Context(), streams{nil, &out, &out}, func(*appsettings.Settings, site.Database) ([]provider.Provider, error) {
			return []provider.Provider{refused{l.service.Subscriber(membus.New().Provider(), "")}}, nil
		})
		if p, ok := errors.AsType[*problem](err); !ok || p.code != exitUnavailable || !strings.Contains(p.Error(), "access denied") {
			t.Errorf("%s, without the right to list: %v", name, err)
		}
	}
}

// What leaves nothing behind is an answer, and asks for no settings.
func TestSubscriptions_SaysWhatLeavesNothingBehind(t *testing.T) {
	b := newBench(t, "shop")
	for _, args := range []string{"list --provider redis", "clean --provider redis", "list --provider tcp"} {
		b.must(words("subscriptions "+args), words(args)[2]+" leaves nothing behind", "aws, azure")
	}
	if out := b.must(words("subscriptions list --json --provider rabbit")); strings.TrimSpace(out) != "[]" {
		t.Errorf("as JSON: %s", out)
	}
	b.must(words("subscriptions clean --json --provider rabbit,mqtt"), `"removed": []`)
	b.must(words("subscriptions list"), "no instance says what the site uses; by your configuration, tcp leaves nothing behind")
}

// uses writes the row of an instance that uses a transport, and has ended.
func (b *bench) uses(name string) {
	b.t.Helper()
	db := b.open()
	epoch, err := db.NextEpoch(b.t.Context())
	stream := site.NewStreamID(epoch, 1)
	if err == nil {
		err = db.Join(b.t.Context(), site.Member{Site: b.site("shop").ID, Stream: stream, Server: "web", Role: site.RolePublish, Providers: []string{name, "udp"}, Uses: []string{name}}, time.Minute)
	}
	if err == nil {
		err = db.Leave(b.t.Context(), stream, site.Mark{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// A site is not clean because whoever looks has other settings than its instances.
func TestSubscriptions_GoByWhatTheSiteUses(t *testing.T) {
	for _, cmd := range [][]string{words("subscriptions list"), words("subscriptions clean --dry-run")} {
		b := newBench(t, "shop", "other")
		b.uses("redis")
		for _, env := range [][]string{nil, {"Carillon__Provider=udp"}} {
			b.env = env
			b.must(append(cmd, "--site", "shop"), "the site uses redis, which leaves nothing behind; with these, instances do: aws, azure")
			b.must(append(cmd, "--site", "other"), "no instance says what the site uses; by your configuration, ")
		}
		b.env = nil
		b.uses("azure")
		b.fails(exitUsage, append(cmd, "--site", "shop"), "the site uses azure: ", "Carillon:Azure", "give its section, as its instances have it, in appsettings.json")
		b.env = []string{"Carillon__EnableRemoteEvents=false"}
		b.fails(exitUsage, append(cmd, "--site", "shop"), "switched off")

		b = newBench(t, "shop")
		b.uses("pigeon")
		b.fails(exitFailed, append(cmd, "--json"), "the site uses pigeon, which this program does not know")
		b.must(append(cmd, "--provider", "udp"), "udp leaves nothing behind")

		b = newBench(t, "shop")
		b.must(words("provider migrate azure"))
		b.fails(exitUsage, cmd, "the site uses azure: ")
	}
}

// What instances use is looked at beside what is configured, and with the section that the configuration has for it.
func TestSubscriptions_LookAtWhatTheSiteUses(t *testing.T) {
	l := newLeftover(t, time.Now)
	l.add("dead", true, true)
	l.uses("aws")
	l.uses("redis")
	var out, log bytes.Buffer
	err := (&subscriptionsListCmd{l.flags()}).Run(t.Context(), streams{nil, &out, &log}, func(s *appsettings.Settings, db site.Database) ([]provider.Provider, error) {
		if !slices.Equal(s.Providers, []string{"tcp"}) || !slices.Equal(s.Standby, []string{"aws"}) {
			t.Errorf("made are %q and %q; want what is configured, and aws", s.Providers, s.Standby)
		}
		return l.transports(s, db)
	})
	if err != nil || !strings.Contains(out.String(), "ended ") {
		t.Errorf("%v: %s", err, &out)
	}
	// The provider that was made is none of aws.
	if !strings.Contains(log.String(), "the site uses aws, which this program does not know") {
		t.Errorf("nobody is told that aws was not looked at: %q", &log)
	}
}

func TestSubscriptions_LooksOnlyAtWhatIsNamed(t *testing.T) {
	t.Setenv("Carillon__Standby__0", "nats")
	t.Setenv("Carillon__Standby__1", "azure")
	l := newLeftover(t, time.Now)
	flags := l.flags()
	flags.Provider = []string{"aws", "tcp"}
	var out bytes.Buffer
	err := (&subscriptionsListCmd{flags}).Run(t.Context(), streams{nil, &out, &out}, func(s *appsettings.Settings, db site.Database) ([]provider.Provider, error) {
		if !slices.Equal(s.Providers, []string{"aws"}) || len(s.Standby) > 0 {
			t.Errorf("made are %q, and %q that stand by; want aws alone", s.Providers, s.Standby)
		}
		return l.transports(s, db)
	})
	if err != nil {
		t.Error(err)
	}
}

// refused may not list.
type refused struct{ provider.Cleaner }

func (refused) Subscriptions(context.Context, site.ID) ([]provider.Subscription, error) {
	return nil, errors.New("access denied")
}
