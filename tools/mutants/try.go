package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A fate is what became of a mutant. The zero value is not a fate.
type fate uint8

const (
	_        fate = iota
	killed        // a test failed
	survived      // none did
	broken        // it does not apply, or does not compile, or could not be tested
)

func (f fate) String() string {
	return [...]string{"?", "killed", "SURVIVED", "ERROR"}[f]
}

// A result is how a mutant ended.
type result struct {
	fate   fate
	by     string // the first test that failed
	detail string // what there is to read, if it was not killed
	took   time.Duration
}

// try tests m, with its changed file in a folder of its own below overlays.
func try(ctx context.Context, o *options, overlays string, m *mutant) result {
	began := time.Now()
	r := tryTests(ctx, o, overlays, m)
	r.took = time.Since(began)
	return r
}

func tryTests(ctx context.Context, o *options, overlays string, m *mutant) result {
	overlay, err := m.overlay(o.dir, filepath.Join(overlays, m.name))
	if err != nil {
		return result{fate: broken, detail: err.Error() + "\n"}
	}
	for _, t := range m.tests {
		run, err := goTest(ctx, o, t, overlay)
		switch {
		case err != nil:
			return result{fate: broken, detail: err.Error() + "\n"}
		case run.noBuild:
			return result{fate: broken, detail: run.output}
		case run.failed != "":
			return result{fate: killed, by: run.failed}
		}
	}
	return result{fate: survived, detail: "none of these failed: " + fmt.Sprint(m.tests) + "\n"}
}

// overlay writes the changed file and the file that go test -overlay reads, and
// returns the name of the latter.
func (m *mutant) overlay(dir, to string) (string, error) {
	file, err := filepath.Abs(filepath.Join(dir, m.file))
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	changed, err := m.apply(string(source))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return "", err
	}
	with, overlay := filepath.Join(to, filepath.Base(file)), filepath.Join(to, "overlay.json")
	if err := os.WriteFile(with, []byte(changed), 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{file: with}})
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// healthy runs the tests of all mutants on the source as it is. Of every
// run of tests that a mutant names, one test at least must run and pass.
func healthy(ctx context.Context, w io.Writer, o *options) error {
	var pkgs []string
	wanted := map[string][]string{} // by package
	for _, m := range o.mutants {
		for _, t := range m.tests {
			if !slices.Contains(pkgs, t.pkg) {
				pkgs = append(pkgs, t.pkg)
			}
			if !slices.Contains(wanted[t.pkg], t.run) {
				wanted[t.pkg] = append(wanted[t.pkg], t.run)
			}
		}
	}
	for _, pkg := range pkgs {
		r, err := goTest(ctx, o, testRun{pkg, strings.Join(wanted[pkg], "|")}, "")
		if err != nil {
			return err
		}
		if r.noBuild || r.failed != "" {
			io.WriteString(w, r.output)
			return fmt.Errorf("the source as it is fails %s in %s: mend that first", r.failed, pkg)
		}
		for _, want := range wanted[pkg] {
			ok, err := selectsAny(want, r.passed)
			if err != nil {
				return fmt.Errorf("tests of %s: %w", pkg, err)
			}
			if !ok {
				return fmt.Errorf("no test of %s passes that '%s' selects: were they renamed, or skipped for want of something?", pkg, want)
			}
		}
	}
	return nil
}

// selectsAny reports whether go test -run=pattern selects one of the tests named.
// The pattern has no parentheses.
func selectsAny(pattern string, names []string) (bool, error) {
	for alternative := range strings.SplitSeq(pattern, "|") {
		var levels []*regexp.Regexp
		for part := range strings.SplitSeq(alternative, "/") {
			re, err := regexp.Compile(part)
			if err != nil {
				return false, err
			}
			levels = append(levels, re)
		}
		for _, name := range names {
			parts := strings.Split(name, "/")
			if len(parts) < len(levels) {
				continue
			}
			ok := true
			for i, re := range levels {
				ok = ok && re.MatchString(parts[i])
			}
			if ok {
				return true, nil
			}
		}
	}
	return false, nil
}

// A run is how one run of go test ended.
type run struct {
	passed  []string
	failed  string // the first test that failed; "" if none did
	noBuild bool
	output  string
}

// goTest runs t, with the changes of the overlay named if there is one.
func goTest(ctx context.Context, o *options, t testRun, overlay string) (run, error) {
	// Twice the limit also holds a compiler that hangs.
	ctx, cancel := context.WithTimeout(ctx, 2*o.limit+5*time.Minute)
	defer cancel()
	args := []string{"test", "-json", "-vet=off", "-failfast", "-timeout=" + o.limit.String(), "-run=" + t.run}
	if overlay != "" {
		args = append(args, "-overlay="+overlay)
	}
	if o.race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, t.pkg)...)
	cmd.Dir = o.dir
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return run{}, fmt.Errorf("go test %s: %w", t.pkg, ctx.Err())
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return run{}, fmt.Errorf("go test %s: %w", t.pkg, err)
	}
	r, parseErr := follow(&out)
	if parseErr != nil {
		return run{}, fmt.Errorf("read the output of go test %s: %w\n%s", t.pkg, parseErr, stderr.String())
	}
	r.output += stderr.String()
	if err != nil && r.failed == "" && !r.noBuild {
		return run{}, fmt.Errorf("go test %s: %w, though no test failed:\n%s", t.pkg, err, r.output)
	}
	return r, nil
}

// follow reads the output of go test -json of one package.
func follow(out io.Reader) (run, error) {
	var r run
	var text strings.Builder
	running := "" // the test that runs now, which a panic or the time limit ends
	dec := json.NewDecoder(out)
	for {
		var a struct{ Action, Test, Output string }
		if err := dec.Decode(&a); err == io.EOF {
			r.output = text.String()
			return r, nil
		} else if err != nil {
			return r, err
		}
		text.WriteString(a.Output)
		switch a.Action {
		case "run":
			running = a.Test
		case "pass":
			if a.Test != "" {
				r.passed = append(r.passed, a.Test)
			}
		case "build-fail":
			r.noBuild = true
		case "fail":
			switch {
			case r.failed != "" || r.noBuild:
			case a.Test != "":
				r.failed = a.Test
			default:
				r.failed = running // it panicked, or the program ended
				if running == "" {
					r.failed = "the package"
				}
			}
		}
		if strings.HasPrefix(a.Output, "panic: test timed out") && r.failed == "" {
			r.failed = running + " (hangs)"
		}
	}
}
