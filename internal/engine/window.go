package engine

import (
	"fmt"
	"time"

	"github.com/carillon-go/carillon/site"
)

// A window follows the frame numbers of one stream. It answers four questions
// with one state, because separate answers could contradict each other: is this
// frame a duplicate, is it a replay, is something missing before it, is it too
// late?
//
// Every position is a pair of frame number and event ordinal, so a gap lies
// between two known ordinals and what is missing can be counted exactly.
type window struct {
	base site.Mark // where this instance began to listen; fixed once set
	high site.Mark // highest position known to exist
	gaps []gap     // invariant: disjoint, ascending, within (base, high], since ascending too

	// lost remembers the last runs given up, to tell late frames from duplicates.
	lost  [32]run
	lostN int
}

// A gap is a run of frames known to exist that have not arrived. Frames first to
// last are missing, and with them the events with ordinals ord to next-1; none
// if ord == next.
type gap struct {
	first, last uint64
	ord, next   uint64
	since       time.Time // when the gap was noticed; kept when it is split
}

type run struct{ first, last uint64 }

// begin sets the baseline. Nothing at or below it is missing.
func (w *window) begin(base site.Mark) { *w = window{base: base, high: base} }

// low returns the position through which everything has arrived or was given up.
func (w *window) low() site.Mark {
	if len(w.gaps) == 0 {
		return w.high
	}
	return site.Mark{Frame: w.gaps[0].first - 1, Next: w.gaps[0].ord}
}

// openBelow reports whether a frame below number is missing.
func (w *window) openBelow(number uint64) bool {
	return len(w.gaps) > 0 && w.gaps[0].first < number
}

// find returns the index of the gap that holds number, or -1.
func (w *window) find(number uint64) int {
	for i := len(w.gaps) - 1; i >= 0; i-- {
		if g := &w.gaps[i]; number >= g.first {
			if number <= g.last {
				return i
			}
			return -1
		}
	}
	return -1
}

// check says what observe would, and changes nothing.
func (w *window) check(number uint64) Verdict {
	switch {
	case number > w.high.Frame || w.find(number) >= 0:
		return Accepted
	case number <= w.base.Frame:
		return BeforeBaseline
	}
	for _, r := range w.lost {
		if r.first <= number && number <= r.last {
			return Late
		}
	}
	return Duplicate
}

// observe records that frame number arrived at now, holding count events of
// which the first has ordinal ord. It changes nothing unless it returns
// Accepted.
func (w *window) observe(now time.Time, number, ord, count uint64) Verdict {
	if v := w.check(number); v != Accepted {
		return v
	}
	if number > w.high.Frame {
		if ord < w.high.Next {
			return Inconsistent
		}
		if number == w.high.Frame+1 {
			if ord != w.high.Next {
				return Inconsistent
			}
		} else {
			w.gaps = append(w.gaps, gap{
				first: w.high.Frame + 1, last: number - 1,
				ord: w.high.Next, next: ord, since: now,
			})
		}
		w.high = site.Mark{Frame: number, Next: ord + count}
		return Accepted
	}

	i := w.find(number)
	g := w.gaps[i]
	end := ord + count
	if ord < g.ord || end > g.next || (number == g.first && ord != g.ord) || (number == g.last && end != g.next) {
		return Inconsistent
	}
	before := gap{first: g.first, last: number - 1, ord: g.ord, next: ord, since: g.since}
	after := gap{first: number + 1, last: g.last, ord: end, next: g.next, since: g.since}
	switch {
	case g.first == g.last:
		w.gaps = append(w.gaps[:i], w.gaps[i+1:]...)
	case number == g.first:
		w.gaps[i] = after
	case number == g.last:
		w.gaps[i] = before
	default:
		w.gaps = append(w.gaps, gap{})
		copy(w.gaps[i+2:], w.gaps[i+1:])
		w.gaps[i], w.gaps[i+1] = before, after
	}
	return Accepted
}

// exists records that the stream reaches to mark, though its frames may not have
// arrived. It reports whether that was news, and false also for a mark that
// contradicts what arrived.
func (w *window) exists(now time.Time, mark site.Mark) bool {
	if mark.Frame <= w.high.Frame || mark.Next < w.high.Next {
		return false
	}
	w.gaps = append(w.gaps, gap{
		first: w.high.Frame + 1, last: mark.Frame,
		ord: w.high.Next, next: mark.Next, since: now,
	})
	w.high = mark
	return true
}

// giveUp removes the oldest gap and returns it. There is one.
func (w *window) giveUp() gap {
	g := w.gaps[0]
	w.gaps = append(w.gaps[:0], w.gaps[1:]...)
	w.lost[w.lostN%len(w.lost)] = run{g.first, g.last}
	w.lostN++
	return g
}

// invariant returns what is wrong with w, or nil.
func (w *window) invariant() error {
	at := w.base
	var since time.Time
	for i, g := range w.gaps {
		switch {
		case g.first <= at.Frame || g.last < g.first || g.last > w.high.Frame:
			return fmt.Errorf("gap %d: frames %d-%d after %d, below %d", i, g.first, g.last, at.Frame, w.high.Frame)
		case g.ord < at.Next || g.next < g.ord || g.next > w.high.Next:
			return fmt.Errorf("gap %d: ordinals %d-%d after %d, below %d", i, g.ord, g.next, at.Next, w.high.Next)
		case g.since.Before(since):
			return fmt.Errorf("gap %d: noticed before the gap below it", i)
		}
		at, since = site.Mark{Frame: g.last, Next: g.next}, g.since
	}
	return nil
}
