package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// An action is one line of go test -json.
type action struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string // empty when the line is about the package
	Output     string
}

// A result is what one run of go test came to.
type result struct {
	failed                   bool // a test or a package failed, or something did not build
	passedTests, failedTests int
	skipped                  []string // "package.Test: reason"
}

type testID struct{ pkg, test string }

// follow reads the output of go test -json and writes go test's own line for
// each package, and everything that a test printed if the test failed or never
// ended. It holds the output of running tests in memory.
func follow(w io.Writer, r io.Reader) (result, error) {
	var res result
	output := map[testID]*strings.Builder{} // of tests that have not ended, and of packages
	dec := json.NewDecoder(r)
	for {
		var a action
		if err := dec.Decode(&a); err == io.EOF {
			return res, nil
		} else if err != nil {
			return res, fmt.Errorf("read the output of go test: %w", err)
		}
		id := testID{a.Package, a.Test}
		switch a.Action {
		case "build-output":
			io.WriteString(w, a.Output)
		case "build-fail":
			res.failed = true
		case "output":
			if a.Test == "" {
				if closing(a.Output) {
					io.WriteString(w, a.Output)
					continue
				}
			}
			b := output[id]
			if b == nil {
				b = new(strings.Builder)
				output[id] = b
			}
			b.WriteString(a.Output)
		case "pass":
			if a.Test != "" {
				res.passedTests++
			}
			delete(output, id)
		case "skip":
			if a.Test != "" { // a package without tests is skipped too, and that is fine
				res.skipped = append(res.skipped, a.Package+"."+a.Test+reason(output[id]))
			}
			delete(output, id)
		case "fail":
			res.failed = true
			if a.Test != "" {
				res.failedTests++
				flush(w, output, id)
				continue
			}
			// The package has ended. What is left belongs to tests that a panic, a
			// timeout or os.Exit cut short, and holds the reason.
			for left := range output {
				if left.pkg == a.Package {
					flush(w, output, left)
				}
			}
		}
	}
}

func flush(w io.Writer, output map[testID]*strings.Builder, id testID) {
	if b := output[id]; b != nil {
		io.WriteString(w, b.String())
		delete(output, id)
	}
}

// closing reports whether line is what go test says at the end of a package.
func closing(line string) bool {
	return strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "FAIL\t") || strings.HasPrefix(line, "?   \t")
}

// reason finds the words that a test gave to t.Skip in what it printed.
func reason(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	var words []string
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			words = append(words, line)
		}
	}
	if len(words) == 0 {
		return ""
	}
	return ": " + strings.Join(words, " ")
}
