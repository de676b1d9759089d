//go:build linux

package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// prefix begins the names of all namespaces and folders that a lab makes.
const prefix = "carillon-"

// An owner is the process whose lab something belongs to. Process IDs come
// again, so the time at which the process began is part of it.
type owner struct {
	pid   int
	start uint64 // in clock ticks since the machine started
}

func self() (owner, error) {
	start, err := startOf(os.Getpid())
	return owner{os.Getpid(), start}, err
}

// String returns how names begin that o gives.
func (o owner) String() string { return fmt.Sprintf("%s%d-%d-", prefix, o.pid, o.start) }

// ownerOf reads the owner from a name; false if no lab gave the name.
func ownerOf(name string) (owner, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	parts := strings.SplitN(rest, "-", 3)
	if !ok || len(parts) < 3 {
		return owner{}, false
	}
	pid, err := strconv.Atoi(parts[0])
	if err != nil {
		return owner{}, false
	}
	start, err := strconv.ParseUint(parts[1], 10, 64)
	return owner{pid, start}, err == nil
}

// alive reports whether the process still runs.
func (o owner) alive() bool {
	start, err := startOf(o.pid)
	return err == nil && start == o.start
}

// startOf reads when a process began.
func startOf(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const startTime = 22 - 3 // the fields are counted from 1, and these begin with the third
	if len(fields) <= startTime {
		return 0, fmt.Errorf("lab: /proc/%d/stat has %d fields behind the name, want more than %d", pid, len(fields), startTime)
	}
	return strconv.ParseUint(fields[startTime], 10, 64)
}
