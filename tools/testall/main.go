// Testall runs the tests of several modules, one module after the other, and
// shows what matters: the closing lines of go test, the output of what failed,
// and one line per module with its time.
//
//	testall [-no-skip] [-together] DIR... [-- GO TEST FLAGS]
//
// With -together the modules, which must belong to the workspace of the current folder, are
// tested by one go test, so that -p holds for all of them: most tests wait more than they compute.
//
// With -no-skip a skipped test is a failure, and CARILLON_NO_SKIP=1 is set so
// that tests that lack a server or a browser fail by themselves and say what
// they lack.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	noSkip := flag.Bool("no-skip", false, "a skipped test is a failure")
	together := flag.Bool("together", false, "one go test for all modules, which are of one workspace")
	flag.Parse()
	dirs, flags := flag.Args(), []string(nil)
	if i := slices.Index(dirs, "--"); i >= 0 {
		dirs, flags = dirs[:i], dirs[i+1:]
	}
	if len(dirs) == 0 {
		fmt.Fprintln(os.Stderr, "testall: name the folders of the modules to test")
		os.Exit(2)
	}
	if err := run(os.Stdout, units(dirs, *together), flags, *noSkip); err != nil {
		fmt.Fprintln(os.Stderr, "testall:", err)
		os.Exit(1)
	}
}

// A unit is what one go test tests.
type unit struct {
	name     string
	dir      string
	patterns []string // of packages
	modules  int
}

// units returns what to test, one after the other.
func units(dirs []string, together bool) []unit {
	if together && len(dirs) > 1 {
		u := unit{name: fmt.Sprintf("%d modules", len(dirs)), dir: ".", modules: len(dirs)}
		for _, dir := range dirs {
			u.patterns = append(u.patterns, dir+"/...")
		}
		return []unit{u}
	}
	var all []unit
	for _, dir := range dirs {
		all = append(all, unit{relative(dir), dir, []string{"./..."}, 1})
	}
	return all
}

// run tests every unit, also after one has failed, and returns an error that
// names those that did.
func run(w io.Writer, all []unit, flags []string, noSkip bool) error {
	var failed []string
	var skips int
	began := time.Now()
	modules := 0
	for i, u := range all {
		name := u.name
		modules += u.modules
		fmt.Fprintf(w, "── %d/%d %s\n", i+1, len(all), name)
		start := time.Now()
		r, err := u.test(w, flags, noSkip)
		verdict := "ok"
		if err != nil || r.failed || noSkip && len(r.skipped) > 0 {
			verdict = "FAILED"
			failed = append(failed, name)
		}
		if err != nil {
			fmt.Fprintf(w, "%s: %v\n", name, err)
		}
		for _, s := range r.skipped {
			fmt.Fprintf(w, "skipped: %s\n", s)
		}
		skips += len(r.skipped)
		fmt.Fprintf(w, "── %s: %s, %d passed, %d failed, %d skipped, %v\n",
			name, verdict, r.passedTests, r.failedTests, len(r.skipped), time.Since(start).Round(time.Second/10))
	}
	if len(failed) > 0 {
		why := ""
		if noSkip && skips > 0 {
			why = "; a skip is a failure here"
		}
		return fmt.Errorf("failed: %s%s", strings.Join(failed, ", "), why)
	}
	fmt.Fprintf(w, "── all %d modules passed in %v\n", modules, time.Since(began).Round(time.Second))
	return nil
}

// test runs go test. The error is about running it, not about what
// the tests found.
func (u unit) test(w io.Writer, flags []string, noSkip bool) (result, error) {
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json"}, flags, u.patterns)...)
	cmd.Dir = u.dir
	cmd.Env = os.Environ()
	if noSkip {
		cmd.Env = append(cmd.Env, "CARILLON_NO_SKIP=1")
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, fmt.Errorf("start go test: %w", err)
	}
	r, err := follow(w, out)
	if err != nil {
		// Nobody reads the pipe any more, so go test would block for ever.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return r, err
	}
	if err := cmd.Wait(); err != nil && !r.failed {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return r, fmt.Errorf("go test: %w, though no test failed", err)
		}
		return r, err
	}
	return r, nil
}

// relative shortens dir for people.
func relative(dir string) string {
	wd, err := os.Getwd()
	if err != nil {
		return dir
	}
	if rel, err := filepath.Rel(wd, dir); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return dir
}
