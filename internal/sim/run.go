package sim

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"unicode"

	"github.com/carillon-go/carillon/internal/history"
)

// A Result is what came of a run.
type Result struct {
	Verdict history.Verdict
	Stats   Stats
	Hash    uint64 // of everything that happened; the same for the same plan
	Err     error  // the plan could not be carried out, or the program panicked
}

// Holds reports whether the run went to its end and kept the promise.
func (r Result) Holds() bool { return r.Err == nil && r.Verdict.Holds() }

// Kind names what went wrong, so that a smaller plan can be held against the
// one it was made from; "" if nothing did.
func (r Result) Kind() string {
	switch {
	case r.Err != nil:
		line, _, _ := strings.Cut(r.Err.Error(), " (at ")
		return "error: " + strings.Map(withoutDigits, line)
	case len(r.Verdict.Violations) > 0:
		return r.Verdict.Violations[0].Rule.String()
	}
	return ""
}

// withoutDigits leaves out of an error what differs from plan to plan.
func withoutDigits(r rune) rune {
	if unicode.IsDigit(r) {
		return -1
	}
	return r
}

// Run carries out a plan. With a trace, it says there what happens.
func Run(p *Plan, trace io.Writer) (result Result) {
	w := newWorld(p, trace)
	defer func() {
		if v := recover(); v != nil {
			result.Err = fmt.Errorf("sim: panic: %v (at %v)\n%s", v, w.now, debug.Stack())
		}
	}()
	for _, a := range p.Actions {
		w.runUntil(a.At)
		if w.stopped != nil {
			break
		}
		w.do(a.Line)
	}
	w.runUntil(p.End)
	w.record(history.Record{Kind: history.End})
	w.checkKeys()
	return Result{Verdict: w.checker.Verdict(), Stats: w.stats, Hash: w.hash, Err: w.stopped}
}

// checkKeys ends the run as failed when frames were refused for their keys though
// nothing went wrong but that keys changed, step by step.
func (w *world) checkKeys() {
	p := w.plan
	if p.has("weather", "cut", "break", "kill", "stop", "freeze", "clone", "revoke", "replay", "database", "broker") {
		return
	}
	if n := w.stats.Dropped["unknown-key"] + w.stats.Dropped["retired-key"]; n > 0 {
		w.fail("%d frames were refused for their keys, and nothing went wrong", n)
	}
}
