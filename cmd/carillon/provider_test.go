//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	linked "github.com/carillon-go/carillon/cmd/internal/transports"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/transports"
)

// A natsServer is a NATS server in this process, which ends with the test.
type natsServer struct {
	t    *testing.T
	port int
	*server.Server
}

func startNATS(t *testing.T) *natsServer {
	t.Helper()
	port, release, err := providertest.ReservePort(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	s := &natsServer{t: t, port: port}
	s.start()
	t.Cleanup(s.stop)
	return s
}

// start starts it, always at the same address.
func (s *natsServer) start() {
	s.t.Helper()
	var err error
	if s.Server, err = server.NewServer(&server.Options{Host: "127.0.0.1", Port: s.port, NoLog: true, NoSigs: true}); err != nil {
		s.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		s.t.Fatal("the NATS server is not ready")
	}
}

func (s *natsServer) stop() {
	s.Shutdown()
	s.WaitForShutdown()
}

// A redisServer is a redis-server, which ends with the test.
type redisServer struct {
	t                          *testing.T
	path, folder, address, url string
	cmd                        *exec.Cmd
}

func startRedis(t *testing.T) *redisServer {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CARILLON_NO_SKIP") != "" {
			t.Fatalf("%v; install the Debian package redis-server", err)
		}
		t.Skipf("%v; install the Debian package redis-server", err)
	}
	address := providertest.NewAddress(t)
	s := &redisServer{t: t, path: path, folder: t.TempDir(), address: address, url: "redis://" + address}
	s.start()
	t.Cleanup(s.kill)
	return s
}

// start starts it, at the address that it had before.
func (s *redisServer) start() {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.address)
	s.cmd = exec.Command(s.path, "--bind", host, "--port", port, "--dir", s.folder, "--save", "", "--appendonly", "no", "--daemonize", "no")
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, patience, "redis-server answers", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *redisServer) kill() {
	s.cmd.Process.Kill() // it may have been killed before
	s.cmd.Wait()
}

// newMovable returns a site of peers on UDP that can be moved to NATS and Redis.
func newMovable(t *testing.T) *peers {
	t.Helper()
	ps := newPeers(t, "udp")
	ps.config.Redis, ps.config.NATS = startRedis(t).url, startNATS(t).ClientURL()
	ps.config.MissedAfter = 10 * time.Second  // what instances have that nobody has configured otherwise
	ps.config.Every = 2500 * time.Microsecond // of three: more than a thousand a second
	return ps
}

// wantUses fails the test unless each process sends and listens on this transport alone.
func wantUses(t *testing.T, name string, all ...*peerProcess) {
	t.Helper()
	for _, p := range all {
		if r := p.report(); !slices.Equal(r.Uses, []string{name}) || !slices.Equal(r.Hears, []string{name}) {
			t.Errorf("%s sends on %v and hears %v, want %s: %s", p.name, r.Uses, r.Hears, name, p.stderr)
		}
	}
}

func TestProviderMigrate_LosesNothingWhileProcessesRun(t *testing.T) { // G10
	ps := newMovable(t)
	all := []*peerProcess{ps.start("one"), ps.start("two"), ps.start("three")}
	for _, p := range all {
		p.say("go")
	}
	b := &bench{t: t, file: ps.file}
	b.must(words("provider list"), `site "peers": udp, as configured`, "nats, redis, tcp, udp")
	b.must(words("provider migrate nats --dry-run"), "have every instance receive on nats and udp", "done: nats in use")
	wantUses(t, "udp", all...)

	// The command is stopped on its way, and another carries on.
	b.fails(exitTimeout, words("provider migrate nats --overlap 3s --wait 2s"), "stopped at", "carries on")
	b.must(words("provider list"), `moving from udp to nats`)
	b.fails(exitFailed, words("provider migrate redis"), "another move is under way", "provider list")
	t.Log(b.must(words("provider migrate --overlap 3s"), "have every instance close udp", "done: nats in use"))
	wantUses(t, "nats", all...)
	t.Log(b.must(words("provider migrate redis --overlap 1s"), "have every instance send on nats and redis", "done: redis in use"))
	wantUses(t, "redis", all...)

	// One that starts with the old settings follows the site.
	late := ps.start("late")
	wantUses(t, "redis", late)
	b.must(words("provider list"), `site "peers": redis, to which it was moved`)
	var info providerInfo
	if err := json.Unmarshal([]byte(b.must(words("provider list --json"))), &info); err != nil {
		t.Fatal(err)
	}
	if len(info.Members) != 4 || !info.Members[3].InStep || !slices.Equal(info.Members[3].Configured, []string{"udp"}) || !slices.Equal(info.Send, []string{"redis"}) {
		t.Errorf("%+v; want four in step, configured for udp", info)
	}

	// To one whose instances have to find each other first, and back to what each process has closed since.
	b.must(words("provider migrate tcp --overlap 1s"), "done: tcp in use")
	wantUses(t, "tcp", append(all, late)...)
	b.must(words("provider migrate udp --overlap 1s"), "done: udp in use")
	wantUses(t, "udp", append(all, late)...)
	for _, p := range all {
		p.say("quiet")
	}
	raised, heard, missed, twice, rate := 0, uint64(0), 0, 0, 0.0
	for p, r := range settle(t, all...) {
		raised += len(r.Raised)
		missed += len(p.misses())
		rate += float64(len(r.Raised)) / (time.Duration(r.Raised[len(r.Raised)-1]-r.Raised[0]) * time.Microsecond).Seconds()
		for stream, h := range r.Heard {
			for _, s := range h.Ranges {
				heard += s[1] - s[0] + 1
			}
			twice += len(h.Twice)
			if len(h.Ranges) != 1 {
				t.Errorf("%s heard %v of %s", p.name, h.Ranges, stream)
			}
		}
		if len(p.misses()) != 0 || len(r.Errors) != 0 || r.Refused != 0 || len(r.Raised) < 1000 {
			t.Errorf("%s missed %+v, raised %d, errors %v, refused %d frames", p.name, p.misses(), len(r.Raised), r.Errors, r.Refused)
		}
	}
	t.Logf("udp, nats, redis, tcp, udp: %d events by 3 processes, %.0f a second; %d raised at the 2 others, %d missed, %d doubled", raised, rate, heard, missed, twice)
	if heard != 2*uint64(raised) || missed != 0 || twice != 0 {
		t.Errorf("want each of %d events at two others, once", raised)
	}
}

// One transport dies under load, comes back, and then the other one dies.
func TestProcess_OneTransportTakesOverFromTheOther(t *testing.T) { // G10
	ps := newMovable(t)
	nats := startNATS(t)
	ps.config.NATS, ps.config.Also = nats.ClientURL(), "nats"
	all := []*peerProcess{ps.start("one"), ps.start("two"), ps.start("three")}
	for _, p := range all {
		p.say("go")
	}
	more := func(what string) {
		t.Helper()
		for _, p := range all {
			before := p.report()
			heard := func(r *peerReport) (n uint64) {
				for _, h := range r.Heard {
					for _, s := range h.Ranges {
						n += s[1] - s[0] + 1
					}
				}
				return n
			}
			eventually(t, patience, p.name+" hears a thousand events more "+what, func() bool { return heard(p.report()) >= heard(before)+1000 })
		}
	}
	more("over both")
	nats.stop()
	more("while NATS is down")
	nats.start()
	more("while NATS is back")
	eventually(t, patience, "NATS carries again", func() bool { return nats.NumClients() == len(all) })
	for _, p := range all {
		p.say("cut") // swallows what UDP carries, and says nothing
	}
	more("while UDP is dead")
	for _, p := range all {
		p.say("heal")
	}
	more("when both are back")
	for _, p := range all {
		p.say("quiet")
	}
	raised, heard, missed, twice := 0, uint64(0), 0, 0
	for p, r := range settle(t, all...) {
		raised += len(r.Raised)
		missed += len(p.misses())
		for stream, h := range r.Heard {
			for _, s := range h.Ranges {
				heard += s[1] - s[0] + 1
			}
			twice += len(h.Twice)
			if len(h.Ranges) != 1 {
				t.Errorf("%s heard %v of %s", p.name, h.Ranges, stream)
			}
		}
		if len(r.Errors) != 0 {
			t.Errorf("%s: %v", p.name, r.Errors)
		}
	}
	t.Logf("%d events raised by 3 processes, %d raised at the 2 others, %d missed, %d doubled", raised, heard, missed, twice)
	if heard != 2*uint64(raised) || missed != 0 || twice != 0 {
		t.Errorf("want each of %d events at two others, once", raised)
	}
}

func TestProviderAbort_GoesBack(t *testing.T) { // G10
	ps := newMovable(t)
	all := []*peerProcess{ps.start("one"), ps.start("two")}
	for _, p := range all {
		p.say("go")
	}
	b := &bench{t: t, file: ps.file}
	b.fails(exitFailed, words("provider abort"), "no move is under way", "udp in use")
	b.fails(exitTimeout, words("provider migrate nats --overlap 10m --wait 8s"), "when nothing is on its way on udp any more", "provider abort")
	for _, p := range all {
		if r := p.report(); !slices.Equal(r.Uses, []string{"nats"}) || len(r.Hears) != 2 {
			t.Errorf("%s sends on %v and hears %v; want to send on nats alone, and to hear both", p.name, r.Uses, r.Hears)
		}
	}
	b.must(words("provider list"), "udp stays open until ", ", in 9m")
	b.must(words("provider abort --overlap 2s"), "have every instance send on udp alone", "have every instance close nats", "done: udp in use")
	wantUses(t, "udp", all...)
	for _, p := range all {
		p.say("quiet")
	}
	for p, r := range settle(t, all...) {
		for stream, h := range r.Heard {
			if len(h.Ranges) != 1 || len(h.Twice) != 0 || len(p.misses()) != 0 {
				t.Errorf("%s heard %v of %s, twice %v, missed %+v", p.name, h.Ranges, stream, h.Twice, p.misses())
			}
		}
	}
}

func TestProviderMigrate_NamesWhoLacksTheTransport(t *testing.T) { // G10
	ps := newPeers(t, "tcp")
	ps.start("one")
	b := &bench{t: t, file: ps.file}
	b.fails(exitFailed, words("provider migrate nats"), "one on ", "lacks nats", "nothing was changed", "Carillon:Standby")
	b.fails(exitUsage, words("provider migrate tcp,nats"), "no name of a transport")
	b.fails(exitUsage, words("provider migrate nats --overlap 0s"), "--overlap")
	b.fails(exitFailed, words("provider migrate"), "no move is under way", "tcp in use")
	if tr := b.site("peers").Transports; !tr.IsZero() {
		t.Errorf("changed to %+v", tr)
	}
	b.must(words("provider migrate tcp"), "done: tcp in use")
}

// Names that nobody knows are misspelt. One of the application's own is not: its instances have it.
func TestProviderMigrate_NamesWhatThereIsForAnUnknownTransport(t *testing.T) {
	b := newBench(t, "shop")
	for _, args := range []string{"provider migrate pigeon", "provider migrate tcp pigeon --dry-run"} {
		b.fails(exitUsage, words(args), `there is no transport "pigeon"`, strings.Join(linked.Names(), ", "))
	}
	if tr := b.site("shop").Transports; !tr.IsZero() {
		t.Errorf("changed to %+v", tr)
	}
	db := b.open()
	epoch, err := db.NextEpoch(t.Context())
	if err == nil {
		err = db.Join(t.Context(), site.Member{
			Site: b.site("shop").ID, Stream: site.NewStreamID(epoch, 1), Server: "web", Role: site.RolePublish, Providers: []string{"pigeon", "tcp"}, Uses: []string{"tcp"},
		}, time.Minute)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.must(words("provider migrate pigeon --dry-run"), "done: pigeon in use")
}

func TestProviderMigrate_StopsAtADeadProcess(t *testing.T) { // G10
	ps := newMovable(t)
	ps.start("one")
	dead := ps.start("two")
	dead.kill()
	b := &bench{t: t, file: ps.file}
	lapse(t, ps.file, "two")
	b.fails(exitTimeout, words("provider migrate nats --patience 2s"), "no sign of life from two on", "lapsed", "--force", "members")
	b.must(words("provider list"), "two on ", " has not answered since ")
	b.must(words("provider abort --force --patience 1s"), "going on without 1 instance", "done: udp in use")
}

func TestProviderList_SaysWhyAnInstanceIsNotInStep(t *testing.T) {
	b := newBench(t, "shop", "other")
	db := b.open()
	join := func(server, of string, has ...string) {
		t.Helper()
		epoch, err := db.NextEpoch(t.Context())
		if err == nil {
			err = db.Join(t.Context(), site.Member{
				Site: b.site(of).ID, Stream: site.NewStreamID(epoch, 1), Application: "app", Server: server, Role: site.RolePublish, Providers: has, Uses: has[:min(1, len(has))],
			}, time.Minute)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	join("web1", "shop", "nats", "tcp")
	if out := b.must(words("provider list --site shop"), "live", "yes"); strings.Contains(out, " on web1") {
		t.Errorf("somebody is said not to be in step:\n%s", out)
	}
	b.fails(exitTimeout, words("provider migrate nats tcp --site shop --wait 1s"), "web1")
	join("web2", "shop")
	join("web3", "shop", "tcp")
	join("web4", "other", "nats", "tcp")
	out := b.must(words("provider list --site shop"), "app on web1 (", ") has not read the last change yet; it last wrote ")
	for server, why := range map[string]string{
		"web2": ") runs a program that is too old to be moved: update it\n",
		"web3": ") is not configured for nats: have it stand by there, and restart it\n",
		"web4": "), of another site, has not read the last change yet",
	} {
		if _, line, ok := strings.Cut(out, "app on "+server+" ("); !ok || !strings.Contains(line[:strings.Index(line, "\n")+1], why) {
			t.Errorf("%s is not said to be %q:\n%s", server, why, out)
		}
	}
	var info providerInfo
	if err := json.Unmarshal([]byte(b.must(words("provider list --site shop --json"))), &info); err != nil {
		t.Fatal(err)
	}
	for _, m := range append(info.Members, info.Others...) {
		if m.InStep || m.Why == "" {
			t.Errorf("with --json: %+v; want it out of step, and why", m)
		}
	}
	if len(info.Members) != 3 || len(info.Others) != 1 {
		t.Errorf("%d instances and %d of other sites, want 3 and 1", len(info.Members), len(info.Others))
	}
}

// What was to stay open until a time that has passed is not said to stay open.
func TestProviderList_SaysThatTheOldTransportCanBeClosed(t *testing.T) {
	var out strings.Builder
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	info := providerInfo{Moving: true, From: []string{"udp"}, To: []string{"nats"}, Receive: []string{"nats", "udp"}, Send: []string{"nats"}, Until: new(now.Add(-time.Second))}
	if err := new(providerListCmd).table(&out, info, now); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "udp can be closed since 11:59:59 UTC; to carry on: ") || strings.Contains(out.String(), "until") {
		t.Error(out.String())
	}
}

// A move goes on where the process that drove it was killed.
func TestMove_SurvivesTheOneWhoDrivesIt(t *testing.T) { // G10
	ps := newMovable(t)
	all := []*peerProcess{ps.start("one"), ps.start("two")}
	db := (&bench{t: t, file: ps.file}).open()
	for _, at := range []transports.Action{transports.Subscribe, transports.AwaitReceive, transports.SendBoth, transports.AwaitBoth, transports.SendNew, transports.AwaitEnd, transports.Close} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := transports.Move(ctx, db, "peers", []string{"nats"}, transports.Options{
			Overlap: time.Second, Poll: 100 * time.Millisecond,
			Progress: func(p transports.Progress) {
				if p.Step.Action == at {
					cancel()
				}
			},
		})
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at %v: %v", at, err)
		}
	}
	if _, err := transports.Move(t.Context(), db, "peers", []string{"nats"}, transports.Options{Overlap: time.Second}); err != nil {
		t.Fatal(err)
	}
	wantUses(t, "nats", all...)
}

// Who the other instances are says nothing about a server that does not answer.
func TestRaiseAndListen_WithoutTheServerDoNotSendToMembers(t *testing.T) {
	b := newBench(t, "shop")
	b.env = []string{"Carillon__Nats__Urls=nats://127.0.0.1:1"} // nobody is there
	for _, cmd := range []string{"raise 6f1d2c3b-4a59-4687-b1c2-d3e4f5061728", "listen"} {
		b.fails(exitUnavailable, words(cmd+" --provider nats"), `start provider "nats": `)
		if r := b.run(words(cmd + " --provider nats")...); strings.Contains(r.err, " members") {
			t.Errorf("%s says: %s", cmd, r.err)
		}
	}
}

func TestRaiseAndListen_SayThatTheSiteWasMoved(t *testing.T) {
	b := newBench(t, "shop")
	b.must(words("provider migrate redis"), "done: redis in use")
	for _, args := range []string{"raise 6f1d2c3b-4a59-4687-b1c2-d3e4f5061728", "raise 6f1d2c3b-4a59-4687-b1c2-d3e4f5061728 --provider udp", "listen"} {
		b.fails(exitUsage, words(args), "the site was moved to redis: ", "Carillon:Redis:Url: is missing")
	}
}

func TestRaiseAndListen_FollowASiteThatWasMoved(t *testing.T) { // G10
	ps := newMovable(t)
	one := ps.start("one")
	b := &bench{t: t, file: ps.file, env: []string{"Carillon__Nats__Urls=" + ps.config.NATS}}
	b.must(words("provider migrate nats --overlap 1s"), "done: nats in use")
	raise := []string{"raise", "6f1d2c3b-4a59-4687-b1c2-d3e4f5061728", "7", "--as", "json", "--site", "peers"}
	r := b.run(raise...)
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	eventually(t, patience, "the event is heard", func() bool { return len(one.report().Heard) == 1 })
	b.env = []string{"Carillon__Nats__Urls=nats://127.0.0.1:1"} // nobody is there
	b.fails(exitUnavailable, raise, `provider "nats"`)
}
