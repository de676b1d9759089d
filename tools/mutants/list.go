package main

import (
	"fmt"
	"strings"
)

// A mutant is one change to the source that some test must not survive.
type mutant struct {
	name   string
	area   string // heading it stands under
	breaks string // what it breaks, in words
	file   string // that it changes, below the folder tested
	hunks  []hunk
	tests  []testRun // in the order in which they run, until one fails
}

// A hunk is a run of whole lines of the file and what they become. Spaces at the beginnings
// of lines do not count.
type hunk struct {
	old, new []string
}

// A testRun is one run of go test.
type testRun struct {
	pkg string // as go test wants it
	run string // regular expression
}

// parse reads a list of mutants. Lines that begin with # are comments. A line "==
// words" is a heading. A mutant is
//
//	mutant: its name, without spaces
//	breaks: what no longer works, in words
//	file: path/of/the/file.go
//	test: ./package TestThat_Should|TestTo_Fail
//	  a line that stays
//	- a line that goes
//	+ a line that comes
//
// with as many tests as it needs, the quickest first. The lines at its end are
// marked as diff does; those that stay and those that go must stand in the file together,
// in one place only. A line @@ begins another change in the same file.
func parse(text string) ([]mutant, error) {
	var list []mutant
	area := ""
	n := 0
	fail := func(format string, args ...any) ([]mutant, error) {
		return nil, fmt.Errorf("%d: %w", n, fmt.Errorf(format, args...))
	}
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, " \t\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if words, ok := strings.CutPrefix(line, "== "); ok {
			area = words
			continue
		}
		key, value, ok := strings.Cut(line, ": ")
		if ok && key == "mutant" {
			if strings.ContainsAny(value, " |") {
				return fail("the name %q has a space or a bar", value)
			}
			list = append(list, mutant{name: value, area: area})
			continue
		}
		if len(list) == 0 {
			return fail("%q stands before the first mutant", line)
		}
		m := &list[len(list)-1]
		switch mark := line[0]; mark {
		case ' ', '-', '+':
			if len(m.hunks) == 0 {
				m.hunks = make([]hunk, 1)
			}
			h := &m.hunks[len(m.hunks)-1]
			if mark != '+' {
				h.old = append(h.old, strings.TrimSpace(line[1:]))
			}
			if mark != '-' {
				h.new = append(h.new, line[1:])
			}
			continue
		case '@':
			m.hunks = append(m.hunks, hunk{})
			continue
		}
		if len(m.hunks) > 0 {
			return fail("%q after the change of mutant %s: is a mark missing?", line, m.name)
		}
		switch {
		case !ok:
			return fail("%q is no part of a mutant", line)
		case key == "breaks":
			m.breaks = value
		case key == "file":
			m.file = value
		case key == "test":
			pkg, run, _ := strings.Cut(value, " ")
			if run == "" {
				return fail("mutant %s: name the tests of %s that should fail", m.name, pkg)
			}
			m.tests = append(m.tests, testRun{pkg, strings.TrimSpace(run)})
		default:
			return fail("%q is no part of a mutant", key)
		}
	}
	for i := range list {
		if err := list[i].check(); err != nil {
			return fail("%w", err)
		}
	}
	return list, nil
}

// check returns what m lacks, or nil.
func (m *mutant) check() error {
	switch {
	case m.breaks == "":
		return fmt.Errorf("mutant %s does not say what it breaks", m.name)
	case m.file == "":
		return fmt.Errorf("mutant %s changes no file", m.name)
	case len(m.tests) == 0:
		return fmt.Errorf("mutant %s has no test", m.name)
	case len(m.hunks) == 0:
		return fmt.Errorf("mutant %s changes nothing", m.name)
	}
	for _, h := range m.hunks {
		if len(h.old) == 0 {
			return fmt.Errorf("mutant %s does not say where its change goes: name a line that stays or goes", m.name)
		}
	}
	return nil
}

// apply returns source with m's changes.
func (m *mutant) apply(source string) (string, error) {
	lines := strings.Split(source, "\n")
	for _, h := range m.hunks {
		at := -1
		for i := 0; i+len(h.old) <= len(lines); i++ {
			if !h.standsAt(lines[i:]) {
				continue
			}
			if at >= 0 {
				return "", fmt.Errorf("%s has it twice, in lines %d and %d:\n%s\nadd lines around it to the list", m.file, at+1, i+1, strings.Join(h.old, "\n"))
			}
			at = i
		}
		if at < 0 {
			return "", fmt.Errorf("%s does not have these lines any more:\n%s\nbring the list up to date", m.file, strings.Join(h.old, "\n"))
		}
		rest := append([]string(nil), lines[at+len(h.old):]...)
		lines = append(append(lines[:at], h.new...), rest...)
	}
	changed := strings.Join(lines, "\n")
	if changed == source {
		return "", fmt.Errorf("it changes nothing in %s", m.file)
	}
	return changed, nil
}

func (h *hunk) standsAt(lines []string) bool {
	for i, want := range h.old {
		if strings.TrimSpace(lines[i]) != want {
			return false
		}
	}
	return true
}
