package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("QUICKSTART") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A line typed into one process is shown by the other.
func TestQuickstart_TwoProcesses(t *testing.T) {
	dir := t.TempDir()
	start := func() (in io.WriteCloser, lines <-chan string) {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, exe)
		cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "QUICKSTART=1"), os.Stderr
		in, err = cmd.StdinPipe()
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
		said := make(chan string, 64)
		go func() {
			for s := bufio.NewScanner(out); s.Scan(); {
				said <- s.Text()
			}
			close(said)
		}()
		t.Cleanup(func() {
			in.Close() // the end of its input ends it
			for range said {
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("the process ended with %v", err)
			}
		})
		return in, said
	}
	wait := func(lines <-chan string, want string) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("ended without saying %q", want)
				}
				if strings.Contains(line, want) {
					return
				}
			case <-deadline:
				t.Fatalf("did not say %q within 30 s", want)
			}
		}
	}
	in, one := start()
	wait(one, "Type a new one")
	other, two := start()
	wait(two, "Type a new one")
	io.WriteString(in, "good morning\n")
	wait(two, "good morning")
	wait(one, "good morning")

	// Both write to the database at once.
	var typing sync.WaitGroup
	for _, in := range []io.Writer{in, other} {
		typing.Go(func() {
			for range 20 {
				io.WriteString(in, "good day\n")
			}
		})
	}
	typing.Wait()
	io.WriteString(in, "good evening\n")
	wait(two, "good evening")
	wait(one, "good evening")
	if _, err := os.Stat(filepath.Join(dir, "quickstart.db")); err != nil {
		t.Error(err)
	}
}
