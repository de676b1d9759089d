//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// When all processes are killed at once, nobody is left to tidy up but the next
// demonstration.
func TestDemo_SweepsAfterOneThatWasKilled(t *testing.T) {
	d := startDemo(t, 2)
	pids := d.pids()
	start := func() (end func()) {
		cmd := program(t, "carillon", "demo", "--port", fmt.Sprint(freePorts(t, 3)))
		cmd.Env = append(cmd.Env, "TMPDIR="+d.tmp)
		var out output
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end = func() {
			cmd.Process.Signal(os.Interrupt) // Wait tells
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, &out)
			}
		}
		eventually(t, patience, "another demonstration is there", func() bool { return strings.Contains(out.String(), "Ctrl-C") })
		return end
	}

	start()()
	if _, err := os.Stat(filepath.Join(d.folder, demoFile)); err != nil {
		t.Fatalf("another demonstration swept a folder in use: %v", err)
	}
	demo := d.cmd.Process.Pid
	for _, step := range []struct {
		pid    int
		signal syscall.Signal
	}{{demo, syscall.SIGSTOP}, {pids[0], syscall.SIGKILL}, {pids[1], syscall.SIGKILL}, {demo, syscall.SIGKILL}} {
		if err := syscall.Kill(step.pid, step.signal); err != nil {
			t.Fatal(err)
		}
	}
	<-d.done
	for _, pid := range pids {
		eventually(t, patience, "the instances are gone", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	}
	if _, err := os.Stat(d.folder); err != nil {
		t.Fatalf("somebody tidied up: %v", err)
	}
	end := start()
	if _, err := os.Stat(d.folder); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	end()
}

func TestDemo_SweepsWhatNobodyHolds(t *testing.T) {
	tmp := t.TempDir()
	folder := func(name string) string {
		dir := filepath.Join(tmp, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	hold := func(dir string) func() {
		release, err := holdFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	orphan, used, silent, other := folder(demoFolder+"1"), folder(demoFolder+"2"), folder(demoFolder+"3"), folder("something")
	hold(orphan)()
	hold(other)()
	parent, child := hold(used), hold(used)
	parent() // a child still runs
	if err := os.Symlink(other, filepath.Join(tmp, demoFolder+"4")); err != nil {
		t.Fatal(err)
	}

	there := func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	}
	sweepFolders(tmp)
	if there(orphan) || !there(used) || !there(silent) || !there(other) {
		t.Errorf("orphan %v, used %v, silent %v, other %v", there(orphan), there(used), there(silent), there(other))
	}
	child()
	sweepFolders(tmp)
	if there(used) || !there(filepath.Join(other, demoLock)) {
		t.Errorf("used %v, lock of other %v", there(used), there(filepath.Join(other, demoLock)))
	}
}

// The parent is killed while an instance tells it something: the instance ends in good order, and removes the folder.
func TestInstance_TidiesUpThoughNobodyHearsItAnyMore(t *testing.T) {
	folder, err := os.MkdirTemp(t.TempDir(), demoFolder)
	if err != nil {
		t.Fatal(err)
	}
	if err := prepare(t.Context(), filepath.Join(folder, demoFile)); err != nil {
		t.Fatal(err)
	}
	port := freePorts(t, 2)
	cmd := program(t, "carillon", "demo-instance", "--index", "1", "--port", fmt.Sprint(port+1), "--dashboard-port", fmt.Sprint(port),
		"--folder", folder, "--provider", "tcp", "--events", "on")
	var said output
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for ready := false; !ready; ready = strings.Contains(lines.Text(), `"ready":true`) {
		if !lines.Scan() {
			cmd.Process.Kill()
			t.Fatalf("the instance is not ready: %v, %v: %s", lines.Err(), cmd.Wait(), &said)
		}
	}
	out.Close()
	io.WriteString(in, "notice\n") // it is told of before anything else is done
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the instance ends with %v: %s", err, &said)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}
