//go:build unix

package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/cmd/internal/transports"
	"github.com/carillon-go/carillon/examples/cms"
	"github.com/carillon-go/carillon/examples/cms/dashboard"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// providers are those that the demonstration can use.
var providers = []string{"tcp", "udp"}

// fresh is how long a change may take until another instance shows it.
const fresh = 2 * time.Second

// Published on 2, fresh on all others within two seconds, a hundred times out
// of a hundred.
func TestDemo_PublishedOnTwoIsFreshEverywhere(t *testing.T) {
	for _, provider := range providers {
		for _, n := range []int{2, 8} {
			t.Run(fmt.Sprintf("%s with %d instances", provider, n), func(t *testing.T) {
				d := startDemo(t, n, "--provider", provider)
				tries := 100
				if testing.Short() {
					tries = 10
				}
				var took []time.Duration
				for try := range tries {
					text := fmt.Sprintf("Text number %d.", try)
					d.post(2, "/edit/roles", "title", "Roles", "body", text)
					published := time.Now()
					for i := 1; i <= n; i++ {
						for {
							a := d.get(i, "/roles")
							if strings.Contains(a.body, text) {
								if i != 2 && a.cache == "hit" && try%10 == 0 {
									t.Errorf("try %d: the first request on instance %d is said to be a hit", try, i)
								}
								break
							}
							if time.Since(published) > fresh {
								t.Fatalf("try %d: instance %d is stale after %v: %s", try, i, time.Since(published), d.err)
							}
						}
						if i == 1 {
							took = append(took, time.Since(published))
						}
					}
				}
				if a := d.get(1, "/roles"); a.cache != "hit" {
					t.Errorf("the last request is a %s, want a hit", a.cache)
				}
				slices.Sort(took)
				t.Logf("fresh on instance 1 in %d of %d tries, median %v, slowest %v", len(took), tries, took[len(took)/2], took[len(took)-1])
			})
		}
	}
}

// The three caches, each with the event of its own.
func TestDemo_AllThreeCachesAreKeptInStep(t *testing.T) {
	for _, provider := range providers {
		t.Run(provider, func(t *testing.T) {
			d := startDemo(t, 2, "--provider", provider)
			entries := d.feed()

			// Permanent links.
			if a := d.get(1, "/link/11"); a.location != "/roles" || a.code != 302 {
				t.Fatalf("the link leads to %q with %d", a.location, a.code)
			}
			d.post(2, "/rename/roles", "slug", "parts")
			eventually(t, fresh, "the link on 1 leads to the new address", func() bool { return d.get(1, "/link/11").location == "/parts" })
			eventually(t, fresh, "the old address on 1 is gone", func() bool { return d.get(1, "/roles").code == 404 })
			if a := d.get(1, "/parts"); a.code != 200 {
				t.Errorf("the new address on 1: %d", a.code)
			}
			if a := d.get(1, "/link/11"); a.cache != "hit" {
				t.Errorf("the second look into the link map is a %s", a.cache)
			}

			// Workflow, with steps on both instances.
			state := func(instance int) string {
				a := d.get(instance, "/workflow/missed")
				for _, s := range []string{"draft", "review", "published"} {
					if strings.Contains(a.body, `<li aria-current="step">`+s+`</li>`) {
						return s
					}
				}
				t.Fatalf("no state in %s", a.body)
				return ""
			}
			for _, step := range []struct {
				on     int
				action string
				want   string
			}{
				{2, "save", "draft"}, {1, "submit", "review"}, {2, "return", "draft"}, {2, "submit", "review"}, {1, "publish", "published"},
			} {
				before := state(1) + state(2) // both have it in their caches
				pairs := []string{"action", step.action}
				if step.action == "save" {
					pairs = append(pairs, "title", "Missed anew", "body", "New text.")
				}
				d.post(step.on, "/workflow/missed", pairs...)
				for i := 1; i <= 2; i++ {
					eventually(t, fresh, fmt.Sprintf("%s on %d is seen on %d (before: %s)", step.action, step.on, i, before), func() bool { return state(i) == step.want })
				}
			}
			eventually(t, fresh, "the approved text is on 2", func() bool { return strings.Contains(d.get(2, "/missed").body, "New text.") })

			eventually(t, patience, "the feed shows each change raised on one and received on the other", func() bool {
				raised, received := map[string]int{}, map[string]int{}
				for _, e := range entries() {
					switch e.Kind {
					case "raised":
						raised[e.Key] = e.Instance
					case "received":
						received[e.Key] = e.Instance
					case "missed", "dropped":
						t.Fatalf("the feed shows %+v", e)
					}
				}
				for key, by := range raised {
					if received[key] != 3-by {
						return false
					}
				}
				return len(raised) == 2+6 // a rename tells of page and link; five steps, the last of which publishes
			})
		})
	}
}

// Without this test nobody would know that the others can fail.
func TestDemo_WithoutEventsShowsTheStaleCopy(t *testing.T) {
	d := startDemo(t, 2, "--events=off")
	for _, path := range []string{"/roles", "/link/11", "/workflow/roles"} {
		for i := 1; i <= 2; i++ {
			d.get(i, path)
		}
	}
	d.post(2, "/edit/roles", "title", "Roles", "body", "The new text.")
	d.post(2, "/workflow/roles", "action", "save", "title", "Draft", "body", "The draft.")
	d.post(2, "/rename/roles", "slug", "parts")
	if a := d.get(2, "/parts"); !strings.Contains(a.body, "The new text.") {
		t.Errorf("instance 2 does not show its own change: %s", a.body)
	}
	for until := time.Now().Add(fresh); time.Now().Before(until); {
		page, link, work := d.get(1, "/roles"), d.get(1, "/link/11"), d.get(1, "/workflow/roles")
		if page.code != 200 || page.cache != "hit" || strings.Contains(page.body, "The new text.") {
			t.Fatalf("the page on 1: %d %s, and it is fresh", page.code, page.cache)
		}
		if link.location != "/roles" || link.cache != "hit" {
			t.Fatalf("the link on 1 leads to %s, a %s", link.location, link.cache)
		}
		if work.cache != "hit" || strings.Contains(work.body, "The draft.") {
			t.Fatalf("the workflow on 1 is a %s, and it is fresh", work.cache)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// Frames that vanish are asked for again, and the caches are right after that.
func TestDemo_CutNetworkIsRepaired(t *testing.T) {
	for _, provider := range providers {
		t.Run(provider, func(t *testing.T) {
			d := startDemo(t, 3, "--provider", provider)
			entries := d.feed()
			for i := 1; i <= 3; i++ {
				d.get(i, "/roles")
			}
			d.post(0, "/instances/1/cut")
			eventually(t, patience, "the network of 1 is cut", func() bool { return d.instances()[0].Cut })
			const lost = 3
			for i := range lost {
				d.post(2, "/edit/roles", "title", "Roles", "body", fmt.Sprintf("Text number %d.", i))
			}
			last := fmt.Sprintf("Text number %d.", lost-1)
			eventually(t, fresh, "instance 3 is fresh", func() bool { return strings.Contains(d.get(3, "/roles").body, last) })
			if a := d.get(1, "/roles"); a.cache != "hit" || strings.Contains(a.body, last) {
				t.Errorf("instance 1 knows of the change though its network is cut: %s", a.cache)
			}
			// What is on its way when the network is connected again may arrive after
			// all. Heartbeats come later than the events.
			dropped := d.instances()[0].Counters.Dropped
			eventually(t, patience, "the events have vanished", func() bool { return d.instances()[0].Counters.Dropped >= dropped+8 })
			d.post(0, "/instances/1/heal")
			eventually(t, patience, "instance 1 is fresh", func() bool { return strings.Contains(d.get(1, "/roles").body, last) })
			d.post(2, "/edit/roles", "title", "Roles", "body", "After all that.")
			eventually(t, fresh, "instance 1 hears again", func() bool { return strings.Contains(d.get(1, "/roles").body, "After all that.") })
			for _, e := range entries() {
				if e.Kind == "missed" {
					t.Errorf("the feed shows %+v", e)
				}
			}
		})
	}
}

// Each instance says that the message broker is away, for as long as it is.
func TestDemo_TellsThatTheMessageBrokerIsAway(t *testing.T) {
	redis := startRedis(t)
	t.Setenv("Carillon__Redis__Url", redis.url)
	d := startDemo(t, 3, "--provider", "redis")
	entries := d.feed()
	all := func(ok func(in dashboard.Instance) bool) func() bool {
		return func() bool {
			return !slices.ContainsFunc(d.instances(), func(in dashboard.Instance) bool { return !ok(in) })
		}
	}
	told := func(kind, event string) func() bool {
		return func() bool {
			by := map[int]int{}
			for _, e := range entries() {
				if e.Kind == kind && e.Event == event {
					by[e.Instance]++
				}
			}
			return by[1] == 1 && by[2] == 1 && by[3] == 1
		}
	}
	d.get(1, "/roles")
	if in := d.instances()[0]; in.Counters.Outage != (cms.Outage{}) {
		t.Errorf("an outage where there is none: %+v", in)
	}

	before := time.Now()
	redis.kill()
	eventually(t, patience, "all say that it is away", all(func(in dashboard.Instance) bool {
		o := in.Counters.Outage
		return o.Provider == "redis" && o.Since > before.UnixMicro() && strings.Contains(o.Reason, "nobody listens there; start the server")
	}))
	eventually(t, patience, "the feed tells of each that it is away", told("away", "redis is away"))
	d.post(2, "/edit/roles", "title", "Roles", "body", "Written in the outage.")

	redis.start()
	eventually(t, patience, "all say that it is back", all(func(in dashboard.Instance) bool { return in.Counters.Outage == cms.Outage{} }))
	eventually(t, patience, "the feed tells of each that it is back", told("note", "redis is back"))
	eventually(t, patience, "what was written meanwhile is on 1", func() bool { return strings.Contains(d.get(1, "/roles").body, "Written in the outage.") })
}

// The demonstration can be moved as any site can, and what the dashboard cuts is cut on the new transport too.
func TestDemo_IsMovedToWhatStandsBy(t *testing.T) {
	t.Setenv("Carillon__Standby", "redis")
	t.Setenv("Carillon__Redis__Url", startRedis(t).url)
	d := startDemo(t, 2)
	entries := d.feed()
	site := []string{"--database", "sqlite:" + filepath.Join(d.folder, demoFile), "--site", cms.SiteName}
	carried := func(by string) func() bool {
		return func() bool {
			return !slices.ContainsFunc(d.instances(), func(in dashboard.Instance) bool { return in.Counters.Carrier != by })
		}
	}
	publish := func(text string) {
		t.Helper()
		d.get(1, "/roles")
		d.post(2, "/edit/roles", "title", "Roles", "body", text)
		eventually(t, fresh, text+" is on 1", func() bool { return strings.Contains(d.get(1, "/roles").body, text) })
	}
	if want := "provider migrate redis --overlap 5s " + strings.Join(site, " ") + "\n"; !strings.Contains(d.out.String(), want) {
		t.Errorf("it says %q, and not %q", d.out, want)
	}
	eventually(t, patience, "all send on tcp", carried("tcp"))
	publish("Before the move.")

	move := func(to string) {
		t.Helper()
		r := carillonCmd(t, nil, append([]string{"provider", "migrate", to, "--overlap", "1s"}, site...)...)
		if r.code != 0 || !strings.Contains(r.out, "done: "+to+" in use") {
			t.Fatalf("%+v", r)
		}
		eventually(t, patience, "all send on "+to, carried(to))
		eventually(t, patience, "the feed tells that all do", func() bool {
			told := map[int]bool{}
			for _, e := range entries() {
				if e.Kind == "note" && e.Event == "sends on "+to {
					told[e.Instance] = true
				}
			}
			return len(told) == 2
		})
	}
	move("redis")
	publish("After the move.")

	d.post(0, "/instances/1/cut")
	eventually(t, patience, "the network of 1 is cut", func() bool { return d.instances()[0].Cut })
	dropped := d.instances()[0].Counters.Dropped
	d.post(2, "/edit/roles", "title", "Roles", "body", "While 1 is cut off.")
	eventually(t, patience, "frames vanish", func() bool { return d.instances()[0].Counters.Dropped >= dropped+4 })
	if a := d.get(1, "/roles"); a.cache != "hit" || !strings.Contains(a.body, "After the move.") {
		t.Errorf("instance 1 knows of the change though its network is cut: a %s", a.cache)
	}
	d.post(0, "/instances/1/heal")
	eventually(t, patience, "instance 1 is fresh", func() bool { return strings.Contains(d.get(1, "/roles").body, "While 1 is cut off.") })

	move("tcp")
	publish("Back again.")
	move("redis")

	// One that starts again follows the site. The next move would wait for the lease of the one that was killed.
	d.post(0, "/instances/1/kill")
	d.post(0, "/instances/1/start")
	eventually(t, patience, "all send on redis", carried("redis"))
	publish("After a new start.")
	for _, e := range entries() {
		if e.Kind == "missed" {
			t.Errorf("the feed shows %+v", e)
		}
	}
}

func TestDemo_RefusesSettingsThatItDoesNotRead(t *testing.T) {
	const redis = "Carillon__Redis__Url=redis://127.0.0.1:1"
	for _, tt := range []struct {
		env, args string
		want      string // of the first line
	}{
		{env: "Carillon__Standby=bogus", want: `unknown provider "bogus"`},
		{env: "Carillon__Standby=redis", want: "Carillon:Redis:Url: is missing"},
		{env: "Carillon__Standby=tcp", want: `provider "tcp" is in use already`},
		{env: "Carillon__Tcp__MaxFrameBytes=2MiB", want: "Carillon__Tcp__MaxFrameBytes"},
		{env: "carillon__tcp__listen=127.0.0.1:1", want: "carillon__tcp__listen: the demonstration chooses where"},
		{env: "Carillon__Udp__Peers__0=127.0.0.1:1", args: "--provider udp", want: "Carillon__Udp__Peers__0: the demonstration chooses where"},
		{env: "Carillon__Provider=udp", want: "Carillon__Provider: the demonstration does not read it"},
		{env: "Carillon__Limits__Lease=9s", want: "Carillon__Limits__Lease: the demonstration does not read it"},
		{env: "Carillon__Limits__Lease=9s", args: "--events off", want: "Carillon__Limits__Lease: the demonstration does not read it"},
		{env: "Carillon__Sight=1", want: "unknown key"},
		{env: redis, want: "Carillon__Redis__Url: the demonstration does not use redis"},
		{env: redis, args: "--provider udp", want: "does not use redis"},
	} {
		r := carillonCmd(t, strings.Fields(tt.env), append([]string{"demo", "--port", "18090"}, strings.Fields(tt.args)...)...)
		first, hint, _ := strings.Cut(r.err, "\n")
		if r.code != exitUsage || !strings.HasPrefix(first, "carillon: ") || !strings.Contains(first, tt.want) || strings.Count(hint, "\n") != 1 || r.out != "" {
			t.Errorf("%s carillon demo %s: %+v, want %q and a hint", tt.env, tt.args, r, tt.want)
		}
	}
}

func TestDemo_TakesTheSettingsOfItsTransports(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	// The file is some other program's.
	file := `{"Carillon": {"Application": "shop", "Role": "publish", "EnableEvents": false, "Provider": "pigeon", "Tcp": {"Listen": "0.0.0.0:9000", "MaxFrameBytes": "8KiB"}, "Udp": {"Port": 9}}}`
	if err := os.WriteFile(filepath.Join(dir, "appsettings.json"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"Carillon__Standby=udp,redis", "Carillon__Redis__Url=redis://127.0.0.1:1", "Carillon__Udp__MaxFrameBytes=9KiB", "Carillon__Site=", "PATH=/"}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	s, err := (&demoCmd{Provider: "tcp", Events: "on"}).settings(env)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Providers, []string{"tcp"}) || !slices.Equal(s.Standby, []string{"udp", "redis"}) || s.TCP.MaxFrameBytes != 8<<10 || s.UDP.MaxFrameBytes != 9<<10 {
		t.Errorf("it does not heed its settings: %v, %v, %+v, %+v", s.Providers, s.Standby, s.TCP, s.UDP)
	}
	if s.Local() || s.Role != "" || s.TCP.Listen != "127.0.0.1:0" || s.UDP.Interface != "127.0.0.1" || s.UDP.Port != 0 {
		t.Errorf("it heeds what is another program's: %+v", s)
	}
}

// An event with a parameter that its hearers cannot decode has arrived, and nobody hears of it.
func TestDemo_ShowsAnUndecodableEventAsMissedAlone(t *testing.T) {
	d := startDemo(t, 2)
	entries := d.feed()
	r := carillonCmd(t, nil, "raise", "5b0f6a0e-0b1c-4f43-9a5f-6c2f1d1f8a01", "hi",
		"--database", "sqlite:"+filepath.Join(d.folder, demoFile), "--site", cms.SiteName)
	if r.code != 0 || !strings.HasSuffix(r.out, "acknowledged by 2 of 2 other instances\n") {
		t.Errorf("%+v", r)
	}
	d.post(2, "/edit/roles", "title", "Roles", "body", "After it.")
	eventually(t, patience, "the feed shows it", func() bool {
		missed, dropped, received := map[int]uint64{}, map[int]uint64{}, 0
		for _, e := range entries() {
			switch {
			case e.Kind == "missed" && e.Reason == "undecodable" && e.Event == "page changed":
				missed[e.Instance] += e.Count
			case e.Kind == "dropped" && e.Reason == "undecodable" && e.Unit == "event":
				dropped[e.Instance] += e.Count
			case e.Kind == "received" && e.From == "instance 2":
				received++
			case e.Kind == "received" || e.Kind == "missed" || e.Kind == "dropped":
				t.Fatalf("the feed shows %+v", e)
			}
		}
		return missed[1] == 1 && missed[2] == 1 && dropped[1] == 1 && dropped[2] == 1 && received == 1
	})
	if n := d.instances()[1].Counters.Received; n != 0 {
		t.Errorf("instance 2 counts %d events as received", n)
	}
}

func TestDemo_KilledInstanceComesBackInStep(t *testing.T) {
	d := startDemo(t, 2)
	d.get(1, "/roles")
	d.post(0, "/instances/1/kill")
	if _, err := d.tryGet(1, "/roles"); err == nil {
		t.Error("an instance that was killed answers")
	}
	d.post(2, "/edit/roles", "title", "Roles", "body", "While it was away.")
	d.post(0, "/instances/1/start")
	if a := d.get(1, "/roles"); !strings.Contains(a.body, "While it was away.") {
		t.Error("it came back with an old page")
	}
	d.post(2, "/edit/roles", "title", "Roles", "body", "When it was back.")
	eventually(t, fresh, "it hears again", func() bool { return strings.Contains(d.get(1, "/roles").body, "When it was back.") })
	for _, in := range d.instances() {
		if in.Counters.Missed != 0 || in.State != dashboard.Running {
			t.Errorf("instance %d: %+v", in.Index, in)
		}
	}
	if s := d.err.String(); s != "" {
		t.Errorf("a kill that was asked for is reported: %s", s)
	}
}

func TestDemo_SaysInOneLineThatAnInstanceCrashed(t *testing.T) {
	d := startDemo(t, 2)
	pid := d.instances()[0].PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "it is said", func() bool { return d.err.String() != "" })
	want := fmt.Sprintf("carillon: instance 1 (process %d) ended: signal: killed; start it again on the dashboard\n", pid)
	if got := d.err.String(); got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	if a := d.get(2, "/roles"); a.code != 200 {
		t.Errorf("instance 2 answers %d", a.code)
	}
}

func TestDemo_LeavesNothingWhenItIsKilled(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprintf("an instance is stopped %v", stopped), func(t *testing.T) {
			d := startDemo(t, 3)
			pids := d.pids()
			if stopped {
				if err := syscall.Kill(pids[1], syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-d.done
			d.nothingLeft(pids)
		})
	}
}

func TestDemo_SaysWhichPortIsTaken(t *testing.T) {
	port := freePorts(t, 3)
	for i, what := range []string{"the dashboard", "instance 1", "instance 2"} {
		ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port+i))
		if err != nil {
			t.Fatal(err)
		}
		tmp := t.TempDir()
		r := carillonCmd(t, []string{"TMPDIR=" + tmp}, "demo", "--port", fmt.Sprint(port))
		ln.Close()
		want := fmt.Sprintf("carillon: port %d, which %s needs, is taken\n", port+i, what)
		if r.code != exitUnavailable || !strings.HasPrefix(r.err, want) || strings.Count(r.err, "\n") != 2 || r.out != "" {
			t.Errorf("%+v, want code %d and %q", r, exitUnavailable, want)
		}
		var first, last int
		if _, err := fmt.Sscanf(r.err[strings.Index(r.err, "\n")+1:], "%d to %d are free:", &first, &last); err != nil || last != first+2 || !strings.HasSuffix(r.err, fmt.Sprintf(" demo --instances 2 --port %d\n", first)) || first <= port+2 && port <= last {
			t.Errorf("the hint in %q: %v", r.err, err)
		}
		if left, _ := os.ReadDir(tmp); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestDemo_SaysThatItMayNotWrite(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	r := carillonCmd(t, []string{"TMPDIR=" + missing}, "demo", "--port", fmt.Sprint(freePorts(t, 3)))
	if r.code != exitUnavailable || !strings.HasPrefix(r.err, "carillon: cannot make a temporary folder: ") || !strings.Contains(r.err, "TMPDIR") || strings.Count(r.err, "\n") != 2 {
		t.Errorf("%+v", r)
	}
}

func TestDemo_RefusesImpossibleNumbers(t *testing.T) {
	for _, args := range [][]string{
		{"--instances", "1"}, {"--instances", "17"}, {"--port", "0"}, {"--port", "65534"},
		{"--provider", "pigeon"}, {"--events", "maybe"}, {"--unknown"},
	} {
		r := carillonCmd(t, nil, append([]string{"demo"}, args...)...)
		if r.code != exitUsage || !strings.HasPrefix(r.err, "carillon: ") {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// The other commands work against any site; here is one.
func TestCommands_JoinARunningSite(t *testing.T) {
	d := startDemo(t, 2)
	site := []string{"--database", "sqlite:" + filepath.Join(d.folder, demoFile), "--site", "carillon-demo"}

	r := carillonCmd(t, nil, append([]string{"members", "--json"}, site...)...)
	var members struct {
		Site    string
		Members []memberInfo
	}
	if err := json.Unmarshal([]byte(r.out), &members); err != nil || r.code != 0 {
		t.Fatalf("%v: %+v", err, r)
	}
	if members.Site != "carillon-demo" || len(members.Members) != 2 {
		t.Errorf("members: %+v", members)
	}
	for i, m := range members.Members {
		if m.State != "live" || m.Role != "both" || len(m.Addresses["tcp"]) != 1 || m.Server == "" {
			t.Errorf("member %d: %+v", i, m)
		}
	}

	const id = "0b6ddc3c-19a5-4a4f-bd68-0f6e7c52c301"
	const typed = "0b6ddc3c-19a5-4a4f-bd68-0f6e7c52c302"
	listen := program(t, "carillon", append([]string{"listen", id, typed, "--json", "--count", "4", "--for", "60s"}, site...)...)
	out, err := listen.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := listen.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := listen.Start(); err != nil {
		t.Fatal(err)
	}
	defer listen.Process.Kill() // it has ended
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || line != "listening to 2 other instances; Ctrl-C ends\n" {
		t.Fatalf("listen says %q, %v", line, err)
	}
	for i, args := range [][]string{
		{id}, {id, "some text"}, {id, "AAEC", "--as", "base64"}, {typed, `{"a": [1]}`, "--as", "json"},
	} {
		// What stands by, and a section that nobody needs and that is wrong, change nothing.
		env := []string{"Carillon__Nats__Urls=nats://127.0.0.1:1", "Carillon__Redis__Ulr=redis://127.0.0.1"}
		r := carillonCmd(t, env, append(append([]string{"raise"}, args...), site...)...)
		n := 3
		if i == 3 && strings.Contains(r.out, "by 2 of 2") {
			n = 2 // listen had enough, and left first
		}
		said := fmt.Sprintf("raised %s: handed to tcp; acknowledged by %d of %d other instances\n", args[0], n, n)
		if r.code != 0 || r.out != said {
			t.Errorf("raise %v: %+v", args, r)
		}
	}
	var got []heard
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var h heard
		if err := json.Unmarshal(lines.Bytes(), &h); err != nil {
			t.Fatal(err)
		}
		got = append(got, h)
	}
	if err := listen.Wait(); err != nil {
		t.Errorf("listen: %v", err)
	}
	if len(got) != 4 {
		t.Fatalf("heard %d events", len(got))
	}
	for i, h := range got {
		if h.Kind != "raised" || h.Raiser == nil || h.Application != "carillon" || h.Time.IsZero() {
			t.Errorf("heard: %+v", h)
		}
		ok := []bool{
			h.Text == nil && h.Data == nil && h.Base64 == nil,
			h.Text != nil && *h.Text == "some text",
			h.Base64 != nil && *h.Base64 == "AAEC",
			string(h.Data) == `{"a":[1]}` && h.Event.String() == typed,
		}[i]
		if !ok {
			t.Errorf("event %d: %+v", i, h)
		}
	}

	if r := carillonCmd(t, nil, "members", "--database", site[1]); r.code != 0 || strings.Count(r.out, "\n") != 3 {
		t.Errorf("members of the only site: %+v", r)
	}
	pool, err := sql.Open("sqlite", cms.DSN(filepath.Join(d.folder, demoFile)))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	sites, err := sqlsite.New(pool)
	if err != nil {
		t.Fatal(err)
	}
	defer sites.Close()
	if _, err := sites.EnsureSite(t.Context(), "another"); err != nil {
		t.Fatal(err)
	}
	if r := carillonCmd(t, nil, "members", "--database", site[1]); r.code != exitUsage || !strings.Contains(r.err, "it has: another, carillon-demo\n") {
		t.Errorf("members of one of two sites: %+v", r)
	}
	// The port of an instance.
	taken := strings.TrimPrefix(members.Members[0].Addresses["tcp"][0], "tcp://")
	if r := carillonCmd(t, []string{"Carillon__Tcp__Listen=" + taken}, append([]string{"raise", id}, site...)...); r.code != exitUnavailable || !strings.Contains(r.err, "Carillon:Tcp:Listen") {
		t.Errorf("raise with a port that is taken: %+v", r)
	}

	for _, args := range [][]string{{"raise", id}, {"listen"}, {"members"}} {
		r := carillonCmd(t, nil, append(args, "--database", site[1], "--site", "misspelt")...)
		if r.code != exitUsage || !strings.Contains(r.err, `there is no site "misspelt" in the database`) || !strings.Contains(r.err, "it has: another, carillon-demo\n") {
			t.Errorf("%v of a site that is not there: %+v", args, r)
		}
	}

	// They have said goodbye: nobody waits for a lease, and nothing was missed.
	if r := carillonCmd(t, nil, append([]string{"members"}, site...)...); r.code != 0 || strings.Count(r.out, "\n") != 3 {
		t.Errorf("members afterwards: %+v", r)
	}
	if r := carillonCmd(t, nil, append([]string{"members", "--all"}, site...)...); strings.Count(r.out, "closed") != 5 {
		t.Errorf("members --all afterwards: %+v", r)
	}
	for i := range 2 {
		eventually(t, patience, "the instances have counted the events", func() bool { return d.instances()[i].Counters.Received >= 4 })
		if c := d.instances()[i].Counters; c.Missed != 0 || c.Received != 4 {
			t.Errorf("instance %d: %+v", i+1, c)
		}
	}
}

// An instance that stands still has its lease for a while, and acknowledges nothing.
func TestCommands_RaiseSaysHowManyAcknowledged(t *testing.T) {
	d := startDemo(t, 2)
	pid := d.instances()[0].PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT) // it may have ended
	r := carillonCmd(t, nil, "raise", "0b6ddc3c-19a5-4a4f-bd68-0f6e7c52c301", "--json",
		"--database", "sqlite:"+filepath.Join(d.folder, demoFile), "--site", "carillon-demo")
	var got raised
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if r.code != exitTimeout || got.Listeners != 2 || got.Acknowledged != 1 || !slices.Equal(got.Providers, []string{"tcp"}) ||
		!strings.Contains(r.err, "carillon: 1 of 2 other instances did not acknowledge the event") {
		t.Errorf("%+v: %+v", got, r)
	}
}

func TestCommands_RaiseSortsItsErrors(t *testing.T) {
	for err, want := range map[error]int{
		carillon.ErrUnsent:   exitTimeout,
		carillon.ErrTooLarge: exitUsage,
		carillon.ErrClosed:   exitFailed,
		carillon.ErrRole:     exitFailed,
	} {
		var out strings.Builder
		if code := fail(&out, raiseProblem(fmt.Errorf("raise: %w", err))); code != want || strings.Contains(out.String(), ": carillon: ") {
			t.Errorf("%v: code %d, want %d: %s", err, code, want, &out)
		}
	}
}

func TestCommands_SayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "site.db")
	if err := prepare(context.Background(), db); err != nil { // a database without a site
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "appsettings.json")
	if err := os.WriteFile(broken, []byte(`{"Carillon": {"Sight": 1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const id = "0b6ddc3c-19a5-4a4f-bd68-0f6e7c52c301"
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"", exitOK, ""},
		{"nonsense", exitUsage, "nonsense"},
		{"members", exitUsage, "no site database is configured"},
		{"members --database sqlite:" + db, exitDatabase, "no instance has opened a site here yet"},
		{"members --database oracle:x --site s", exitUsage, "drivers: sqlite, pgx, mysql"},
		{"members --database sqlite --site s", exitUsage, "does not say driver and address"},
		{"members --database sqlite:" + filepath.Join(dir, "no.db") + " --site s", exitDatabase, "there is no file " + dir},
		{"members --database sqlite:no.db", exitDatabase, "counts from the working directory, which is "},
		{"demo -port 18090", exitUsage, "did you mean --port?"},
		{"demo --port -1", exitUsage, "the first of 3 ports, 1 to 65533"},
		{"demo --unknown", exitUsage, " demo --help\n"},
		{"demo --provider redis", exitUsage, "carillon: configuration: Carillon:Redis:Url: is missing: want redis://"},
		{"help", exitOK, ""},
		{"help raise", exitOK, ""},
		{"members --database pgx:postgres://u:hush@127.0.0.1:1/db --site s --timeout 5s", exitDatabase, "cannot be used"},
		{"members --database mysql:u:hush@tcp(127.0.0.1:1)/db --site s --timeout 5s", exitDatabase, "cannot be used"},
		{"members --config " + broken, exitUsage, "Sight"},
		{"members --config " + filepath.Join(dir, "missing.json"), exitUsage, "missing.json"},
		{"raise 12 --database sqlite:" + db + " --site s", exitUsage, "is not a GUID"},
		{"raise 00000000-0000-0000-0000-000000000000", exitUsage, "is zero"},
		{"raise " + id + " --as text", exitUsage, "there is none"},
		{"demo --port=-1", exitUsage, "the first of 3 ports, 1 to 65533"},
		{"raise " + id + " x --as json", exitUsage, "is not JSON"},
		{"raise " + id + " x --as base64", exitUsage, "is not base64"},
		{"raise " + id + " x --as xml", exitUsage, "xml"},
		{"listen " + id + " 12", exitUsage, "is not a GUID"},
		{"listen --count=-1", exitUsage, "cannot be negative"},
	} {
		r := carillonCmd(t, nil, strings.Fields(tt.args)...)
		if r.code != tt.code || !strings.Contains(r.err, tt.want) || strings.Contains(r.err, "hush") {
			t.Errorf("carillon %s: %+v, want code %d and %q", tt.args, r, tt.code, tt.want)
		}
		if _, err := os.Stat(filepath.Join(dir, "no.db")); err == nil {
			t.Fatalf("carillon %s made a database", tt.args)
		}
	}
}

// There may be no file to correct.
func TestCommands_SayWhetherAVariableOrAFileIsWrong(t *testing.T) {
	b := newBench(t, "shop")
	broken := filepath.Join(t.TempDir(), "appsettings.json")
	if err := os.WriteFile(broken, []byte(`{"Carillon": {"Redis": {"Prefiks": "a"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		env  []string
		args string
		want string
	}{
		{[]string{"Carillon__Redis__Ulr=redis://127.0.0.1:1"}, "listen --provider redis", "\n       correct the variable\n"},
		{[]string{"Carillon__Redis__Ulr=redis://127.0.0.1:1", "Carillon__Redis__Prefiks=a"}, "listen --provider redis", "\n       correct the variables\n"},
		{[]string{"Carillon__Sight=shop"}, "members", "\n       correct the variable\n"},
		{nil, "listen --provider redis", "\n       correct it in appsettings.json\n"}, // nothing is there at all
		{[]string{"Carillon__Redis__Ulr=redis://127.0.0.1:1"}, "listen --provider redis --config " + broken, "\n       correct it in " + broken + "\n"},
	} {
		b.env = tt.env
		b.fails(exitUsage, strings.Fields(tt.args), tt.want)
	}
}

func TestCommands_HelpListsExitCodesAndHidesInstances(t *testing.T) {
	for _, cmd := range []string{"", "demo", "raise", "listen", "members"} {
		r := carillonCmd(t, nil, strings.Fields(cmd+" --help")...)
		if r.code != 0 || !strings.Contains(r.out, "Exit codes:") || strings.Contains(r.out, "demo-instance") {
			t.Errorf("carillon %s --help: %+v", cmd, r)
		}
	}
	for _, cmd := range []string{"raise", "listen", "subscriptions list"} {
		r := carillonCmd(t, nil, strings.Fields(cmd+" --help")...)
		help := strings.Join(strings.Fields(r.out), " ") // it is wrapped
		if !strings.Contains(help, strings.Join(transports.Names(), ", ")) {
			t.Errorf("carillon %s --help does not name all transports:\n%s", cmd, r.out)
		}
	}
	for cmd, want := range map[string]string{
		"raise": "acknowledged means that the event has arrived there, not that it was understood",
		"demo":  "Other settings in the environment are refused",
	} {
		if help := strings.Join(strings.Fields(carillonCmd(t, nil, cmd, "--help").out), " "); !strings.Contains(help, want) {
			t.Errorf("carillon %s --help does not say %q:\n%s", cmd, want, help)
		}
	}
	r := carillonCmd(t, nil, "version", "--json")
	var v versionInfo
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || v.Version == "" || r.code != 0 {
		t.Errorf("version: %+v, %v", r, err)
	}
}

func TestCommands_KnowWhenGoRunMadeThem(t *testing.T) {
	for path, want := range map[string]bool{
		"/tmp/go-build12/b001/exe/carillon":         true,
		"/home/u/.cache/go-build/ab/abc-d/carillon": true,
		"/usr/local/bin/carillon":                   false,
		"/home/u/go/bin/carillon":                   false,
	} {
		if got := byGoRun(path); got != want {
			t.Errorf("byGoRun(%q) = %v", path, got)
		}
	}
}
