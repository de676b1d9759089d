//go:build linux

package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/local"
	"github.com/carillon-go/carillon/bench/internal/own"
	"github.com/carillon-go/carillon/bench/internal/report"
	"github.com/carillon-go/carillon/bench/internal/stat"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// measured returns results of a plan in which every system is the same.
func measured(p plan) *results {
	r := &results{samples: map[place][]sample{}, growth: map[string][]growthPoint{}}
	for range p.rounds {
		for _, pr := range p.probes {
			s := sample{PerSecond: 1e6, CPU: 0.5, Facts: "a | b"}
			if pr.paced {
				s.Paced = latency{60, 70, 80, 90}
			}
			if pr.halfOf != "" {
				s.Half, s.HalfRate = latency{61, 71, 81, 91}, 5e5
			}
			r.samples[pr.place] = append(r.samples[pr.place], s)
		}
	}
	for _, n := range p.local {
		r.local = append(r.local, local.Result{Subscribers: n, Ratio: stat.Summarize([]float64{2})})
	}
	if p.starts > 0 {
		r.starts = [][]own.Part{{{Name: "all", Took: 40 * time.Millisecond}}}
	}
	if p.idleFor > 0 {
		r.idle = []harness.Idle{{CPU: 0.001, Resident: 20 << 20}, {CPU: 0.002, Resident: 21 << 20}}
	}
	for _, name := range p.growthOf {
		for _, n := range p.growth {
			r.growth[name] = append(r.growth[name], growthPoint{n, stat.Summarize([]float64{40 + float64(n)})})
		}
	}
	return r
}

func goalNamed(t *testing.T, name string) goal {
	t.Helper()
	for _, g := range goals {
		if g.name == name {
			return g
		}
	}
	t.Fatalf("no goal %q", name)
	return goal{}
}

func TestGoals_AreAllMeasuredByTheQuickPlanAndTheFull(t *testing.T) {
	for name, p := range map[string]plan{"quick": quickPlan(), "full": fullPlan(2, time.Second)} {
		r := measured(p)
		for _, g := range goals {
			if v := g.judge(r); v.err != nil || v.Rounds == 0 || math.IsNaN(v.Median) {
				t.Errorf("the %s plan does not measure %s: %v", name, g.name, v.err)
			}
		}
	}
}

func TestGoals_HaveNamesOfTheirOwnAndABound(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range goals {
		if seen[g.name] || strings.ContainsAny(g.name, " \t") {
			t.Errorf("the name %q is taken, or is no word", g.name)
		}
		seen[g.name] = true
		if math.IsNaN(g.must) && math.IsNaN(g.stretch) {
			t.Errorf("%s has no bound", g.name)
		}
		if better := g.stretch > g.must; !math.IsNaN(g.must) && !math.IsNaN(g.stretch) && better != (g.better == atLeast) {
			t.Errorf("%s: the stretch %v is no better than the must %v", g.name, g.stretch, g.must)
		}
	}
}

func TestPlans_NameSystemsThatThereAre(t *testing.T) {
	for _, p := range []plan{quickPlan(), guardPlan(), fullPlan(1, time.Second)} {
		half := map[place]bool{}
		for _, pr := range p.probes {
			if find(pr.System) == nil {
				t.Errorf("there is no system %q", pr.System)
			}
			half[pr.place] = true
			if pr.halfOf != "" && !half[place{pr.cell, pr.halfOf}] {
				t.Errorf("%s comes before %s, which says what half of the load is", pr.System, pr.halfOf)
			}
		}
		for _, name := range p.growthOf {
			if find(name) == nil {
				t.Errorf("there is no system %q", name)
			}
		}
	}
}

func TestVerdict_IsALineWithAWord(t *testing.T) {
	lost := fmt.Errorf("tcpbus: %w", &harness.LossError{})
	for _, tt := range []struct {
		name    string
		better  direction
		must    float64
		stretch float64
		figure  float64
		err     error
		line    string
		half    bool // half of the must holds
	}{
		{"reached", atLeast, 2.5, 3.5, 2.51, nil, "goal g 2.51 >=2.50 >=3.50 ok", true},
		{"exactly reached", atLeast, 2.5, 3.5, 2.5, nil, "goal g 2.50 >=2.50 >=3.50 ok", true},
		{"more than half", atLeast, 2.5, 3.5, 1.3, nil, "goal g 1.30 >=2.50 >=3.50 short", true},
		{"less than half", atLeast, 2.5, 3.5, 1.2, nil, "goal g 1.20 >=2.50 >=3.50 short", false},
		{"low is good", atMost, 0.35, 0.22, 0.3, nil, "goal g 0.300 <=0.350 <=0.220 ok", true},
		{"not twice as much", atMost, 0.35, 0.22, 0.69, nil, "goal g 0.690 <=0.350 <=0.220 short", true},
		{"more than twice as much", atMost, 0.35, 0.22, 0.71, nil, "goal g 0.710 <=0.350 <=0.220 short", false},
		{"nothing is none", atMost, 0, none, 0, nil, "goal g 0 <=0 - ok", true},
		{"one is some", atMost, 0, none, 1, nil, "goal g 1 <=0 - short", false},
		{"only a stretch", atLeast, none, 0.7, 0.1, nil, "goal g 0.100 - >=0.700 ok", true},
		{"large", atMost, 150, 60, 1234.5, nil, "goal g 1234 <=150 <=60 short", false},
		{"a loss is no figure", atLeast, 2.5, 3.5, 9, lost, "goal g lost >=2.50 >=3.50 short", false},
		{"who is not there is not beaten", atLeast, 2, none, 9, system.ErrMissing, "goal g - >=2 - short", false},
		{"left out", atLeast, 2, none, 9, errNotMeasured, "goal g - >=2 - short", false},
		{"another failure", atLeast, 2, none, 9, errors.New("no"), "goal g failed >=2 - short", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := verdict{goal{name: "g", better: tt.better, must: tt.must, stretch: tt.stretch}, stat.Summarize([]float64{tt.figure}), tt.err}
			if got := v.String(); got != tt.line {
				t.Errorf("%q, want %q", got, tt.line)
			}
			if got := v.holds(); got != tt.half {
				t.Errorf("half of the must holds: %v, want %v", got, tt.half)
			}
		})
	}
}

func TestRatio_IsTakenRoundByRound(t *testing.T) {
	r := measured(quickPlan())
	for i, speeds := range [][2]float64{{10, 1}, {20, 10}, {3, 1}} { // ratios 10, 2, 3: of the medians it would be 10
		r.samples[place{n3, "tcpbus"}][i].PerSecond = speeds[0]
		r.samples[place{n3, "nats"}][i].PerSecond = speeds[1]
	}
	if got, err := r.ratio(perSecond, n3, "tcpbus", "nats"); err != nil || got.Median != 3 || got.Min != 2 || got.Max != 10 {
		t.Errorf("%+v, %v; want 3 of 2 to 10", got, err)
	}
}

func TestGoals_ALossIsNotAveragedAway(t *testing.T) {
	r := measured(quickPlan())
	r.samples[place{n3, "udpbus"}][1] = sample{Err: &harness.LossError{Missing: []uint64{0, 3}}, Lost: 3}
	for name, want := range map[string]string{
		"udp-128-n3-vs-nats": "goal udp-128-n3-vs-nats lost >=1.20 >=1.80 short",
		"udp-128-n3-missed":  "goal udp-128-n3-missed 3 <=0 - short",
		"tcp-128-n3-missed":  "goal tcp-128-n3-missed 0 <=0 - ok",
	} {
		if got := goalNamed(t, name).judge(r).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestGoals_IdleIsForEachInstance(t *testing.T) {
	r := measured(quickPlan())
	if v := goalNamed(t, "idle-cpu-percent").judge(r); v.Median != 0.2 {
		t.Errorf("%v %% of a core, want that of the busiest, 0.2", v.Median)
	}
}

func TestGoals_GrowthOfBareDatagramsIsTakenOff(t *testing.T) {
	r := measured(quickPlan()) // all grow alike
	if v := goalNamed(t, "growth-udp-flat").judge(r); v.Median != 1 {
		t.Errorf("%v, want 1: no more than the datagrams themselves", v.Median)
	}
	last := len(r.growth["udpbus"]) - 1
	r.growth["udpbus"][last].SenderCPU.Median += 42 // as much again as the smallest site costs
	if v := goalNamed(t, "growth-udp-flat").judge(r); v.Median != 2 {
		t.Errorf("%v, want 2", v.Median)
	}
}

func TestPage_HoldsEverySystemAndGoal(t *testing.T) {
	p := fullPlan(2, time.Second)
	r := measured(p)
	r.samples[place{n8, "tcpbus"}][0] = sample{Err: &harness.LossError{}, Lost: 1}
	r.samples[place{n3, "redis"}][1].ServerVersion = "9.87"
	page := pageOf(p, r, time.Now())
	if !strings.Contains(page, ", server 9.87 |") {
		t.Error("the page lacks the version of a server")
	}
	for _, s := range systems() {
		if !strings.Contains(page, s.Name) || !strings.Contains(page, s.Title) {
			t.Errorf("the page lacks %s", s.Name)
		}
	}
	for _, g := range goals {
		if !strings.Contains(page, g.name) {
			t.Errorf("the page lacks %s", g.name)
		}
	}
	if !strings.Contains(page, "lost events in 1 of 2 rounds") {
		t.Error("the page keeps a loss to itself")
	}
	if _, err := report.Replace("<!-- bench:begin figures -->\n<!-- bench:end figures -->\n", marks, page); err != nil {
		t.Error(err)
	}
	if err := drawAll(t.TempDir(), p, r); err != nil {
		t.Error(err)
	}
}

func TestGrouped_KeepsThreeDigits(t *testing.T) {
	for f, want := range map[float64]string{0.1234: "0.123", 12.34: "12.3", 999: "999", 1234: "1,230", 1234567: "1,230,000", 99999: "100,000"} {
		if got := grouped(f); got != want {
			t.Errorf("%v is %q, want %q", f, got, want)
		}
	}
}

func TestKindOf_TellsOursFromOthers(t *testing.T) {
	for name, want := range map[string]report.Kind{
		"tcpbus-gcm": report.Own, "natsbus": report.Own, "nats-packed": report.Opponent, "rabbit": report.Opponent, "limit-udp": report.Limit,
	} {
		if got := kindOf(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestCollapsed_NamesWhatFellTwice(t *testing.T) {
	if err := collapsed([]string{"p50", "cpu"}, []string{"throughput"}); err != nil {
		t.Errorf("nothing fell twice: %v", err)
	}
	err := collapsed([]string{"p50", "cpu"}, []string{"cpu", "throughput"})
	if !errors.Is(err, errShort) || !strings.HasSuffix(err.Error(), ": cpu") {
		t.Errorf("cpu fell twice: %v", err)
	}
}
