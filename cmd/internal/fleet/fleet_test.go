package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/examples/cms"
	"github.com/carillon-go/carillon/examples/cms/dashboard"
)

// TestMain lets the test program be an instance too, so that the processes are
// real.
func TestMain(m *testing.M) {
	if how := os.Getenv("FLEET_TEST_INSTANCE"); how != "" {
		instance(how)
		return
	}
	os.Exit(m.Run())
}

// instance behaves as it is told.
func instance(how string) {
	member := NewMember(os.Stdout)
	switch how {
	case "fails":
		member.Fail("the disk is full")
		os.Exit(1)
	case "panics":
		panic("out of the blue")
	case "silent":
		os.Exit(3)
	}
	fmt.Println("a library prints something")
	member.Ready()
	member.Report(cms.Report{Kind: cms.KindNote, Text: "hello"})
	ctx := context.Background()
	if how == "deaf" {
		select {} // does not listen, and must be killed
	}
	asked := Obey(ctx, os.Stdin, Actions{
		Notice: func() { member.Counters(cms.Counters{Raised: 1}) },
		Cut:    func() { member.IsCut(true) },
		Heal:   func() { member.IsCut(false) },
	})
	if !asked {
		os.Exit(4)
	}
}

// start makes a fleet of n instances that behave like that.
func start(t *testing.T, n int, how string) (f *Fleet, hub *dashboard.Hub, warned <-chan string, err error) {
	t.Helper()
	var all []dashboard.Instance
	for i := range n {
		all = append(all, dashboard.Instance{Index: i + 1, State: dashboard.Stopped})
	}
	hub = dashboard.NewHub(all)
	warnings := make(chan string, 16)
	f = New(Config{
		Hub:  hub,
		Warn: func(s string) { warnings <- s },
		Command: func(int) *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "FLEET_TEST_INSTANCE="+how)
			return cmd
		},
	})
	t.Cleanup(func() { f.Stop(context.Background()) })
	return f, hub, warnings, f.StartAll(t.Context())
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("within 10 s not: %s", what)
		}
	}
}

func TestFleet_TellsTheHub(t *testing.T) {
	f, hub, _, err := start(t, 2, "well")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range hub.Instances() {
		if in.State != dashboard.Running || in.PID == 0 {
			t.Errorf("after StartAll: %+v", in)
		}
	}
	if err := f.Do(t.Context(), 1, dashboard.Start); err == nil {
		t.Error("an instance that runs was started")
	}
	for a, is := range map[dashboard.Action]func(dashboard.Instance) bool{
		dashboard.Notice: func(in dashboard.Instance) bool { return in.Counters.Raised == 1 },
		dashboard.Cut:    func(in dashboard.Instance) bool { return in.Cut },
	} {
		if err := f.Do(t.Context(), 2, a); err != nil {
			t.Fatal(err)
		}
		eventually(t, string(a), func() bool { return is(hub.Instances()[1]) })
	}
	if err := f.Do(t.Context(), 2, dashboard.Heal); err != nil {
		t.Fatal(err)
	}
	eventually(t, "heal", func() bool { return !hub.Instances()[1].Cut })
	f.Stop(t.Context())
	for _, in := range hub.Instances() {
		if in.State != dashboard.Stopped || in.PID != 0 {
			t.Errorf("after Stop: %+v", in)
		}
	}
	if err := f.Do(t.Context(), 1, dashboard.Start); err == nil {
		t.Error("an instance was started after Stop")
	}
}

func TestFleet_KillAndStartAgain(t *testing.T) {
	f, hub, warned, err := start(t, 1, "well")
	if err != nil {
		t.Fatal(err)
	}
	first := hub.Instances()[0].PID
	if err := f.Do(t.Context(), 1, dashboard.Kill); err != nil {
		t.Fatal(err)
	}
	if in := hub.Instances()[0]; in.State != dashboard.Stopped {
		t.Errorf("after kill: %+v", in)
	}
	for _, a := range []dashboard.Action{dashboard.Kill, dashboard.Cut} {
		if err := f.Do(t.Context(), 1, a); err == nil {
			t.Errorf("%s of an instance that is gone worked", a)
		}
	}
	if err := f.Do(t.Context(), 1, dashboard.Start); err != nil {
		t.Fatal(err)
	}
	if in := hub.Instances()[0]; in.State != dashboard.Running || in.PID == first {
		t.Errorf("after start: %+v", in)
	}
	select {
	case s := <-warned:
		t.Errorf("warned of what was asked for: %s", s)
	default:
	}
}

func TestFleet_WarnsOfACrashOnce(t *testing.T) {
	_, hub, warned, err := start(t, 2, "well")
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(hub.Instances()[0].PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	got := <-warned
	if !strings.HasPrefix(got, fmt.Sprintf("instance 1 (process %d) ended: ", p.Pid)) || !strings.Contains(got, "killed") || strings.Contains(got, "\n") {
		t.Errorf("warned: %q", got)
	}
	if in := hub.Instances(); in[0].State != dashboard.Stopped || in[1].State != dashboard.Running {
		t.Errorf("afterwards: %+v", in)
	}
}

func TestFleet_SaysWhyAnInstanceDoesNotStart(t *testing.T) {
	for how, want := range map[string]string{
		"fails":  "instance 1 did not start: the disk is full",
		"panics": "panic: out of the blue",
		"silent": "exit status 3",
	} {
		t.Run(how, func(t *testing.T) {
			_, _, _, err := start(t, 1, how)
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want one line with %q", err, want)
			}
		})
	}
}

func TestFleet_KillsWhoDoesNotListen(t *testing.T) {
	f, hub, _, err := start(t, 1, "deaf")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no patience
	f.Stop(ctx)
	if in := hub.Instances()[0]; in.State != dashboard.Stopped {
		t.Errorf("after Stop: %+v", in)
	}
}

func TestObey_EndsWithItsParent(t *testing.T) {
	for _, tt := range []struct {
		in    string
		asked bool
	}{
		{"", false},
		{"cut\nunknown\n", false},
		{"cut\nstop\nheal\n", true},
	} {
		var did []string
		asked := Obey(t.Context(), strings.NewReader(tt.in), Actions{
			Notice: func() { did = append(did, "notice") },
			Cut:    func() { did = append(did, "cut") },
			Heal:   func() { did = append(did, "heal") },
		})
		if asked != tt.asked || strings.Contains(tt.in, "cut") != (len(did) == 1) {
			t.Errorf("Obey(%q) = %v and did %v", tt.in, asked, did)
		}
	}
}

// However much happens, the dashboard hears a bounded number of reports, every
// miss, and how much was left out.
func TestMember_SumsUpWhatIsTooMuch(t *testing.T) {
	var out strings.Builder
	m := NewMember(&out)
	now := time.Unix(1000, 0)
	m.now = func() time.Time { return now }
	for range maxReports + 7 {
		m.Report(cms.Report{Kind: cms.KindReceived})
	}
	for range 5 {
		m.Report(cms.Report{Kind: cms.KindMissed})
	}
	m.SumUp() // too early
	count := func(s string) int { return strings.Count(out.String(), s) }
	if count(`"kind":"received"`) != maxReports || count(`"kind":"missed"`) != 5 || count(`"kind":"note"`) != 0 {
		t.Errorf("within the second:\n%s", &out)
	}
	now = now.Add(time.Second)
	m.SumUp()
	m.SumUp()
	if count("7 more received") != 1 {
		t.Errorf("after the second:\n%s", &out)
	}
	m.Report(cms.Report{Kind: cms.KindReceived})
	if count(`"kind":"received"`) != maxReports+1 {
		t.Errorf("the next second does not begin afresh:\n%s", &out)
	}
}
