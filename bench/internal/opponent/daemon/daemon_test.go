//go:build linux

package daemon

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/system"
)

func start(t *testing.T, script string, ready func(log string) func(context.Context) error) (*Daemon, error) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	return Start(t.Context(), exec.Command("/bin/sh", "-c", script), log, ready(log))
}

func printsUp(log string) func(context.Context) error { return Prints(log, "up") }

func TestStart_ReturnsWhenReadyAndStopEndsTheProcess(t *testing.T) {
	d, err := start(t, "echo up; exec sleep 60", printsUp)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(d.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Stop: %v", d.PID(), err)
	}
}

func TestStart_TellsTheLastWordsOfAProcessThatEnds(t *testing.T) {
	_, err := start(t, "echo no room; exit 3", printsUp)
	if err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("got %v", err)
	}
}

func TestStart_EndsTheProcessWhenItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.Command("/bin/sh", "-c", "exec sleep 60")
	_, err := Start(ctx, cmd, filepath.Join(t.TempDir(), "log"), func(context.Context) error {
		cancel()
		return errors.New("not yet")
	})
	if err == nil || cmd.ProcessState == nil {
		t.Errorf("got %v; the process: %v", err, cmd.ProcessState)
	}
}

func TestStop_TellsOfAProcessThatHadEnded(t *testing.T) {
	d, err := start(t, "echo alas; exit 1", func(string) func(context.Context) error {
		return func(context.Context) error { return nil }
	})
	if err != nil {
		t.Fatal(err)
	}
	<-d.ended
	if err := d.Stop(syscall.SIGTERM); err == nil || !strings.Contains(err.Error(), "alas") {
		t.Errorf("got %v", err)
	}
}

func TestProgram_NamesThePackageThatHasIt(t *testing.T) {
	_, err := Program("some-package", filepath.Join(t.TempDir(), "*", "server"))
	if !errors.Is(err, system.ErrMissing) || !strings.Contains(err.Error(), "some-package") {
		t.Errorf("got %v", err)
	}
}

func TestVersion_FindsTheFirstNumberWithDots(t *testing.T) {
	for _, tt := range []struct{ name, prints, want string }{
		{name: "after a word", prints: "Redis server v=7.0.15 sha=00000000:0 bits=64", want: "7.0.15"},
		{name: "two parts", prints: "postgres (PostgreSQL) 15.18 (Debian 15.18-0)", want: "15.18"},
		{name: "none is an error", prints: "server 15"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Version("/bin/echo", tt.prints)
			if got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestNewFolder_LetsOthersPassThroughItsParent(t *testing.T) {
	parent := t.TempDir()
	if err := os.Chmod(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := NewFolder(parent, "server", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(parent)
	if err != nil {
		t.Fatal(err)
	}
	want := os.FileMode(0o700) // nobody else is to use it
	if os.Getuid() == 0 {
		want = 0o711
	}
	if info.Mode().Perm() != want {
		t.Errorf("parent has %v, want %v", info.Mode().Perm(), want)
	}
	if _, err := os.Stat(f.Path); err != nil {
		t.Error(err)
	}
}
