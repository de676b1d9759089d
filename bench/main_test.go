//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/opponent/kafka/kafkaserver"
	"github.com/carillon-go/carillon/bench/internal/opponent/nats/natsserver"
	"github.com/carillon-go/carillon/bench/internal/own"
)

// The program starts itself again as publisher and subscriber; in a test, itself is the test.
func TestMain(m *testing.M) {
	if status, ok := own.Child(os.Args, findAny); ok {
		os.Exit(status)
	}
	natsserver.RunIfAsked()
	kafkaserver.RunIfAsked()
	os.Exit(m.Run())
}

// trial is one that takes no longer than it must. The window keeps a machine that is busy with other tests
// from overrunning a subscriber: what is tested here is the benchmark.
func trial(name string) harness.Trial {
	return harness.Trial{
		System: findAny(name), Subscribers: 2, Size: 64, Burst: time.Millisecond,
		Paced:   []harness.Paced{{Rate: 2000, For: 50 * time.Millisecond}, {Share: 0.1, For: 50 * time.Millisecond}},
		Options: harness.Options{Window: 500},
	}
}

func TestOne_MeasuresWithRealProcesses(t *testing.T) {
	for _, name := range []string{"tcpbus", "udpbus", "limit-tcp", "limit-tcp-gmac-batch", "limit-udp-1400", "nats", "natsbus"} {
		t.Run(name, func(t *testing.T) {
			tr := trial(name)
			out, err := tr.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b := out.Burst
			if b.Events == 0 || b.Elapsed <= 0 || b.PublisherCPU <= 0 || b.SubscribersCPU <= 0 {
				t.Errorf("the burst measured %+v", b)
			}
			if (b.ServerCPU > 0) != strings.HasPrefix(name, "nats") {
				t.Errorf("a server used %v", b.ServerCPU)
			}
			if out.Memory.Publisher == 0 || out.Memory.Subscriber == 0 {
				t.Errorf("peak memory %+v", out.Memory)
			}
			for i, p := range out.Paced {
				if want := int(p.Events) * tr.Subscribers; len(p.Latency) != want || want == 0 {
					t.Errorf("paced phase %d has %d latencies of %d deliveries", i, len(p.Latency), want)
				}
			}
			var text bytes.Buffer
			showOutcome(&text, tr, out)
			if !strings.Contains(text.String(), "nothing lost or doubled") {
				t.Errorf("printed %s", text.String())
			}
		})
	}
}

func TestOne_WritesProfiles(t *testing.T) {
	dir := t.TempDir()
	tr := trial("limit-tcp")
	tr.Paced, tr.CPUProfile, tr.MemProfile = nil, dir, dir
	if _, err := tr.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"publisher", "subscriber-0", "subscriber-1"} {
		for _, what := range []string{"cpu", "mem"} {
			info, err := os.Stat(dir + "/" + who + "." + what + ".pprof")
			if err != nil || info.Size() == 0 {
				t.Errorf("profile of %s of the %s: %v", what, who, err)
			}
		}
	}
}

func TestSession_LeavesNoProcessAndNoFolder(t *testing.T) {
	s, err := harness.Start(t.Context(), find("limit-tcp"), 2, 64, harness.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pids, dir := s.PIDs(), s.Dir()
	if len(pids) != 3 {
		t.Errorf("%d processes, want 3", len(pids))
	}
	s.Abandon()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d after the end: %v", pid, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder after the end: %v", err)
	}
}

// A system that loses one event, so that what is tested below is not the luck of the machine.
func TestRun_ALossIsTold(t *testing.T) {
	tr := trial("lossy")
	tr.Window = 0
	_, err := tr.Run(t.Context())
	lost, ok := errors.AsType[*harness.LossError](err)
	if !ok || len(lost.Missing) != 2 || lost.Missing[0] != 1 || lost.Missing[1] != 1 {
		t.Errorf("lost %+v, %v; want one event at each of 2 subscribers", lost, err)
	}
}

func TestRun_ADoubleIsTold(t *testing.T) {
	tr := trial("stutter")
	tr.Window = 0
	_, err := tr.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("%v; want the doubles", err)
	}
}

func TestRun_EndsWhenToldTo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := trial("limit-tcp").Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
}

// program is the test itself, unless the benchmark's other program lies beside it.
func program(t *testing.T) string {
	t.Helper()
	path, _, err := own.Program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStart_NamesEveryPart(t *testing.T) {
	all, err := own.MeasureStart(t.Context(), program(t), 2, 2)
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, parts := range all {
		for _, p := range parts {
			if p.Name == "" || p.Took < 0 {
				t.Errorf("part %+v", p)
			}
		}
	}
	if parts := startParts(all); len(parts) != len(all[0]) || parts[0].Rounds != 2 {
		t.Errorf("summed up %+v", parts)
	}
}

func TestIdle_MeasuresEveryInstance(t *testing.T) {
	all, err := own.MeasureIdle(t.Context(), program(t), 2, 10*time.Millisecond)
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v; want 3 instances", all, err)
	}
	for _, i := range all {
		if i.Resident <= 0 || i.CPU < 0 {
			t.Errorf("an instance costs %+v", i)
		}
	}
}

func TestTrial_RefusesARateThatNothingSays(t *testing.T) {
	for name, p := range map[string]harness.Paced{
		"part of no burst": {Share: 0.5, For: time.Second}, "no rate": {For: time.Second}, "no length": {Rate: 5},
	} {
		if _, err := (harness.Trial{System: find("limit-tcp"), Subscribers: 1, Size: 64, Paced: []harness.Paced{p}}).Run(t.Context()); err == nil {
			t.Errorf("%s: measured", name)
		}
	}
}
