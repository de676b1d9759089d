//go:build linux

package own

import (
	"os"
	"path/filepath"

	"github.com/carillon-go/carillon/bench/internal/harness"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// Child does the work of a process that the benchmark has started, if this is one. args are its arguments, from the program's
// name on, and find knows the systems. It returns the exit status.
func Child(args []string, find func(name string) *system.System) (status int, ok bool) {
	switch {
	case len(args) == 3 && args[1] == harness.ChildArgument:
		return harness.Child(args[2], find), true
	case len(args) == 4 && args[1] == newcomerArgument:
		return newcomer(args[2], args[3]), true
	}
	return 0, false
}

// Find returns Carillon over the transport of that name, or nil.
func Find(name string) *system.System {
	for _, s := range Systems() {
		if s.Name == name {
			return &s
		}
	}
	return nil
}

// Program returns the program of package instance, if it has been built beside this one as NAME-instance; else this
// one itself, and lean is false.
func Program() (path string, lean bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", false, err
	}
	beside := filepath.Join(filepath.Dir(self), filepath.Base(self)+"-instance")
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
		return beside, true, nil
	}
	return self, false, nil
}
