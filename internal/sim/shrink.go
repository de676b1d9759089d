package sim

import (
	"slices"
	"strings"
	"time"
)

// Shrink makes a failing plan smaller as long as it fails in the same way: fewer
// faults, instances and raises, and a shorter time. It runs at most so many
// plans.
func Shrink(p *Plan, runs int) *Plan {
	s := &shrinker{best: p, left: runs}
	first := Run(p, nil)
	if s.kind = first.Kind(); s.kind == "" {
		return p
	}
	for changed := true; changed && s.left > 0; {
		changed = s.without() || s.shorter() || s.fewerRaises()
	}
	return s.best
}

type shrinker struct {
	best *Plan
	kind string
	left int
}

// try takes the plan if it still fails in the same way.
func (s *shrinker) try(p *Plan) bool {
	if s.left == 0 {
		return false
	}
	s.left--
	if r := Run(p, nil); r.Kind() != s.kind {
		return false
	}
	s.best = p
	return true
}

// without leaves out actions, first many at a time and then few, and processes
// with everything that is about them.
func (s *shrinker) without() (changed bool) {
	for _, name := range processNames(s.best) {
		p := *s.best
		p.Actions = slices.DeleteFunc(slices.Clone(p.Actions), func(a Action) bool {
			return slices.Contains(strings.Fields(a.Line), name)
		})
		changed = s.try(&p) || changed
	}
	for size := len(s.best.Actions) / 2; size > 0; size /= 2 {
		for from := 0; from < len(s.best.Actions); {
			p := *s.best
			to := min(from+size, len(p.Actions))
			p.Actions = slices.Delete(slices.Clone(p.Actions), from, to)
			if s.try(&p) {
				changed = true
			} else {
				from = to
			}
		}
	}
	return changed
}

func processNames(p *Plan) (names []string) {
	for _, a := range p.Actions {
		if f := strings.Fields(a.Line); f[0] == "process" {
			names = append(names, f[1])
		}
	}
	return names
}

// shorter ends the plan earlier.
func (s *shrinker) shorter() (changed bool) {
	for _, by := range []time.Duration{8 * time.Second, 4 * time.Second, 2 * time.Second, time.Second, 500 * time.Millisecond} {
		for s.best.End > by {
			p := *s.best
			p.End -= by
			p.Actions = slices.DeleteFunc(slices.Clone(p.Actions), func(a Action) bool { return a.At >= p.End })
			if !s.try(&p) {
				break
			}
			changed = true
		}
	}
	return changed
}

// fewerRaises raises one event where there were several.
func (s *shrinker) fewerRaises() (changed bool) {
	for i := range s.best.Actions {
		f := strings.Fields(s.best.Actions[i].Line)
		for j, word := range f {
			if f[0] != "raise" || !strings.HasPrefix(word, "n=") || word == "n=1" {
				continue
			}
			p := *s.best
			p.Actions = slices.Clone(p.Actions)
			f[j] = "n=1"
			p.Actions[i].Line = strings.Join(f, " ")
			changed = s.try(&p) || changed
		}
	}
	return changed
}
