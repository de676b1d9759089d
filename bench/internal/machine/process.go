//go:build linux

package machine

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the processor time that a process has used so far, to the nanosecond, threads that have ended included.
func CPU(pid int) (time.Duration, error) {
	// The clock of another process, as clock_getcpuclockid(3) makes it.
	const scheduled = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &ts); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// ThreadCPU returns the processor time that the calling thread has used. The caller has locked the goroutine to it.
func ThreadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err) // there is no Linux without it
	}
	return time.Duration(ts.Nano())
}

// MemoryUse is what a process has in memory, in bytes.
type MemoryUse struct {
	Resident int64
	Peak     int64 // the most that was resident
	Files    int64 // of Resident, the part that is pages of files, such as the program's own, which processes share
}

// Memory returns what a process has in memory.
func Memory(pid int) (u MemoryUse, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for _, field := range []struct {
		name string
		to   *int64
	}{{"VmRSS:", &u.Resident}, {"VmHWM:", &u.Peak}, {"RssFile:", &u.Files}} {
		if *field.to, err = statusField(b, field.name); err != nil {
			return u, err
		}
	}
	return u, nil
}

// statusField returns a field of /proc/PID/status that is given in kB, in bytes.
func statusField(status []byte, name string) (int64, error) {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte(name))
		if !ok {
			continue
		}
		words := strings.Fields(string(rest))
		if len(words) != 2 || words[1] != "kB" {
			return 0, fmt.Errorf("field %s of a process's status: %q is no number of kB", name, rest)
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		return n << 10, err
	}
	return 0, fmt.Errorf("a process's status has no field %s", name)
}

// Family returns the processes given and all that descend from them.
func Family(pids []int) ([]int, error) {
	if len(pids) == 0 {
		return nil, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		if parent, ok := parentOf(stat); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	all := slices.Clone(pids)
	for i := 0; i < len(all); i++ {
		for _, c := range children[all[i]] {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all, nil
}

// parentOf reads the parent out of /proc/PID/stat. The second field is the program's name in parentheses,
// which may hold anything.
func parentOf(stat []byte) (pid int, ok bool) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false
	}
	words := bytes.Fields(stat[end+1:])
	if len(words) < 2 {
		return 0, false
	}
	pid, err := strconv.Atoi(string(words[1]))
	return pid, err == nil
}
