//go:build linux

package lab

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sweep removes what labs of dead processes left: processes in their namespaces, the
// namespaces, file systems mounted in their folders, and the folders.
func Sweep() error {
	return sweep(func(o owner) bool { return !o.alive() })
}

func sweep(whose func(owner) bool) error {
	var errs []error
	names, err := filepath.Glob("/run/netns/" + prefix + "*")
	if err != nil {
		return err
	}
	for _, path := range names {
		name := filepath.Base(path)
		if o, ok := ownerOf(name); !ok || !whose(o) {
			continue
		}
		errs = append(errs, removeNamespace(name))
	}
	temp, err := tempDir()
	if err != nil {
		return err
	}
	folders, err := filepath.Glob(filepath.Join(temp, prefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range folders {
		if o, ok := ownerOf(filepath.Base(path)); ok && whose(o) {
			errs = append(errs, unmount(path), os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

// tempDir returns the folder for temporary files as the kernel names it, without links.
func tempDir() (string, error) { return filepath.EvalSymlinks(os.TempDir()) }

// removeNamespace kills what runs in a namespace and removes it. One that is not there, or that somebody
// else removes meanwhile, is fine.
func removeNamespace(name string) error {
	gone := func() bool {
		_, err := os.Stat("/run/netns/" + name)
		return errors.Is(err, os.ErrNotExist)
	}
	if gone() {
		return nil
	}
	err := killAll(name)
	if err == nil {
		err = run("", "ip", "netns", "del", name)
	}
	if err != nil && gone() {
		return nil
	}
	return err
}

// killAll kills what runs in a namespace.
func killAll(name string) error {
	out, err := output("ip", "netns", "pids", name)
	if err != nil {
		return err
	}
	for _, s := range strings.Fields(out) {
		if pid, err := strconv.Atoi(s); err == nil && pid > 1 {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// unmount unmounts every file system that is mounted at folder or in it.
func unmount(folder string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	lines := strings.Split(string(b), "\n")
	for _, line := range slices.Backward(lines) { // what was mounted later lies above
		const mountPoint = 4
		if f := strings.Fields(line); len(f) > mountPoint && (f[mountPoint] == folder || strings.HasPrefix(f[mountPoint], folder+"/")) {
			if err := unix.Unmount(f[mountPoint], unix.MNT_DETACH); !errors.Is(err, unix.EINVAL) { // it is gone
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
