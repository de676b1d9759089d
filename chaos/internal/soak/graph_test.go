//go:build linux

package soak

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/scenario"
)

// report is of a soak of 8 minutes; value says what the first instance used.
func report(value func(at time.Duration) uint64) *Report {
	r := &Report{
		Outcome: &scenario.Outcome{Scenario: &scenario.Scenario{Name: "soak"}},
		Faulty:  8 * time.Minute, Instances: instances, Spared: 1, Faults: map[string]int{"loss": 3},
	}
	for at := time.Duration(0); at < r.Faulty; at += sampleEvery {
		for i := range instances {
			pid := 100 + i
			if i == 4 && at > 3*time.Minute {
				pid = 200 // it was restarted
			}
			r.Samples = append(r.Samples, Sample{At: at, Instance: i, PID: pid, RSSBytes: 30 << 20, HeapBytes: value(at), Goroutines: 9, Files: 15})
		}
	}
	return r
}

func TestReport_FlatSeesGrowth(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value func(at time.Duration) uint64
		grows bool
	}{
		{name: "flat", value: func(time.Duration) uint64 { return 20 << 20 }},
		{name: "grows at first", value: func(at time.Duration) uint64 { return min(uint64(at.Seconds()), 100) << 20 }},
		{name: "a little", value: func(at time.Duration) uint64 { return 1<<20 + uint64(at.Minutes()*float64(1<<19)) }},
		{name: "leaks", value: func(at time.Duration) uint64 { return 10<<20 + uint64(at.Minutes()*float64(5<<20)) }, grows: true},
	} {
		if err := report(tt.value).flat(); (err != nil) != tt.grows {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestReport_GraphHasAxesAndALineForEachProcess(t *testing.T) {
	var b strings.Builder
	if err := report(func(time.Duration) uint64 { return 5 << 20 }).Graph(&b); err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(strings.NewReader(b.String()))
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("not XML: %v", err)
		}
	}
	for text, want := range map[string]int{
		"(MiB)": 2, "Goroutines": 1, "Time (minutes)": 1, "(never killed)": 1, "instance 4": 1,
		`stroke-width="1.5"`: 3 * instances, // lines
	} {
		if got := strings.Count(b.String(), text); got != want {
			t.Errorf("%q is there %d times, want %d", text, got, want)
		}
	}
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, `stroke-width="1.5"`) && strings.Contains(line, colours()[4]) && strings.Count(line, "M") != 2 {
			t.Errorf("the line of an instance that was restarted is not broken once: %.80s", line)
		}
	}
}

func TestAxis_EndsInARoundNumber(t *testing.T) {
	for _, tt := range []struct{ most, end, step float64 }{
		{0, 1, 1}, {1, 1, 0.2}, {9, 10, 2}, {29.3, 30, 5}, {100, 100, 20}, {0.6, 0.6, 0.1},
	} {
		if end, step := axis(tt.most); end < tt.end-1e-9 || end > tt.end+1e-9 || step < tt.step-1e-9 || step > tt.step+1e-9 {
			t.Errorf("axis(%g) = %g, %g, want %g, %g", tt.most, end, step, tt.end, tt.step)
		}
	}
}

func TestReport_SummaryNamesTheFigures(t *testing.T) {
	r := report(func(time.Duration) uint64 { return 5 << 20 })
	r.Seed = 42
	s := r.Summary()
	for _, want := range []string{"MINUTES=8 SEED=42", "| violations | 0 |", "| loss | 3 |", "| 0: heap | 5.0 MiB | 5.0 MiB |", "(images/soak.svg)"} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is not in\n%s", want, s)
		}
	}
}
