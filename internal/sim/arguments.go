package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// arguments are the words of a plan's line after the verb: first plain ones, then
// name=value. The first that makes no sense ends the run.
type arguments struct {
	w     *world
	line  string
	words []string
	named map[string]string
}

func newArguments(w *world, line string) *arguments {
	a := &arguments{w: w, line: line, named: map[string]string{}}
	for _, word := range strings.Fields(line)[1:] {
		if name, value, ok := strings.Cut(word, "="); ok {
			a.named[name] = value
		} else {
			a.words = append(a.words, word)
		}
	}
	return a
}

func (a *arguments) fail(format string, args ...any) {
	a.w.fail("%q at %v: %s", a.line, a.w.now, fmt.Sprintf(format, args...))
}

// word returns the i-th plain word, or "".
func (a *arguments) word(i int) string {
	if i < len(a.words) {
		return a.words[i]
	}
	return ""
}

func (a *arguments) has(word string) bool { return slices.Contains(a.words, word) }

func (a *arguments) text(name, zero string) string {
	if v, ok := a.named[name]; ok {
		return v
	}
	return zero
}

func (a *arguments) number(name string, zero int) int {
	v, ok := a.named[name]
	if !ok {
		return zero
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		a.fail("%v", err)
	}
	return n
}

func (a *arguments) float(name string) float64 {
	v, ok := a.named[name]
	if !ok {
		return 0
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil {
		a.fail("%v", err)
	}
	return f
}

func (a *arguments) duration(name string, zero time.Duration) time.Duration {
	v, ok := a.named[name]
	if !ok {
		return zero
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		a.fail("%v", err)
	}
	return d
}

// process returns the process that the i-th word names.
func (a *arguments) process(i int) *process {
	for _, p := range a.w.processes {
		if p.name == a.word(i) {
			return p
		}
	}
	a.fail("there is no process %q", a.word(i))
	return nil
}

// running returns the run of the process that the i-th word names; nil when it is
// down, which a plan from which something was taken away may well find.
func (a *arguments) running(i int) *instance {
	if p := a.process(i); p != nil {
		return p.run
	}
	return nil
}

func (a *arguments) database(i int) *database {
	for _, d := range a.w.databases {
		if d.name == a.word(i) {
			return d
		}
	}
	a.fail("there is no database %q", a.word(i))
	return nil
}

// networks returns the networks named, or all.
func (a *arguments) networks(name string) (list []network) {
	want := a.text(name, "")
	for _, n := range a.w.networks {
		if want == "" {
			list = append(list, n)
			continue
		}
		for _, x := range strings.Split(want, ",") {
			if n.base().name == x {
				list = append(list, n)
			}
		}
	}
	if len(list) == 0 {
		a.fail("there is no network %q", want)
	}
	return list
}
