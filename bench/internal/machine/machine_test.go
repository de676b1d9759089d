//go:build linux

package machine

import (
	"os"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestClock_IsTheMachines(t *testing.T) {
	c := NewClock()
	var before, after unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	now := c.Now()
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
	const slack = 1e6 // it is right to a microsecond, unless each of its readings was interrupted
	if now < before.Nano()-slack || now > after.Nano()+slack {
		t.Errorf("%d lies %d ns before or %d ns after the kernel's own readings", now, before.Nano()-now, now-after.Nano())
	}
}

func TestSleepUntil_IsNeverEarly(t *testing.T) {
	c := NewClock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := Punctual(); err != nil {
		t.Fatal(err)
	}
	var ts unix.Timespec
	at := c.Now() + 300_000
	SleepUntil(at)
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); ts.Nano() < at {
		t.Errorf("woke %d ns too early", at-ts.Nano())
	}
	SleepUntil(at - 1e9) // in the past: returns
}

func TestCPU_OfThisProcessGrows(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after <= before; { // every turn uses some
		if after, err = CPU(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := CPU(1<<22 + 1); err == nil { // above the highest that Linux gives
		t.Error("a process that there is not has used time")
	}
}

func TestMemory_OfThisProcess(t *testing.T) {
	u, err := Memory(os.Getpid())
	if err != nil || u.Resident <= 0 || u.Peak <= u.Files || u.Files >= u.Resident {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestStatusField_WantsANumberOfKilobytes(t *testing.T) {
	const status = "Name:\tVmRSS: 1 kB\nVmHWM:\t  12 kB\nVmRSS:\t3 kB\nThreads:\t9\n"
	for name, want := range map[string]int64{"VmHWM:": 12 << 10, "VmRSS:": 3 << 10} {
		if got, err := statusField([]byte(status), name); got != want || err != nil {
			t.Errorf("%s %d, %v; want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"Threads:", "VmPeak:"} {
		if got, err := statusField([]byte(status), name); err == nil {
			t.Errorf("%s is %d bytes of memory", name, got)
		}
	}
}

func TestParentOf_SurvivesNames(t *testing.T) {
	for _, tt := range []struct {
		name, stat string
		want       int
		ok         bool
	}{
		{"plain", "7 (cat) S 3 7 7 0", 3, true},
		{"parentheses and blanks in the program's name", "7 (a) S 9 (b) R 4 7", 4, true},
		{"cut off", "7 (cat) S", 0, false},
		{"no name", "7 cat S 3", 0, false},
		{"empty", "", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := parentOf([]byte(tt.stat)); got != tt.want || ok != tt.ok {
				t.Errorf("parentOf(%q) = %d, %v; want %d, %v", tt.stat, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestFamily_HasThisProcessAmongItsParents(t *testing.T) {
	all, err := Family([]int{os.Getppid()})
	if err != nil || !slices.Contains(all, os.Getpid()) || all[0] != os.Getppid() {
		t.Errorf("the family of %d is %v, %v; this is %d", os.Getppid(), all, err, os.Getpid())
	}
	if all, err := Family(nil); len(all) != 0 || err != nil {
		t.Errorf("the family of nobody is %v, %v", all, err)
	}
}

func TestModelName_IsReadFromTheKernel(t *testing.T) {
	if got := modelName([]byte("processor\t: 0\nmodel name\t: Some  CPU: fast\nmodel name\t: other\n")); got != "Some CPU: fast" {
		t.Errorf("%q", got)
	}
	if got := modelName([]byte("processor : 0\n")); got != "" {
		t.Errorf("%q where there is no name", got)
	}
}
