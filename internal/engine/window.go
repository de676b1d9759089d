package engine

import (
	"fmt"
	"slices"
	"sort"
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
	base    site.Mark // where this instance began to listen; fixed once set
	guessed bool      // its sender did not tell base: what follows may have been sent before
	high    site.Mark // highest position known to exist
	gaps    []gap     // invariant: disjoint, ascending, within (base, high], since ascending too

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
	old         bool      // some of it may have been sent before this instance began to listen
	asking
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
	if i := w.from(number); i < len(w.gaps) && w.gaps[i].first <= number {
		return i
	}
	return -1
}

// from returns the index of the first gap that reaches to number or beyond.
func (w *window) from(number uint64) int {
	n := len(w.gaps)
	if n == 0 || number > w.gaps[n-1].last {
		return n // the usual case
	}
	return sort.Search(n, func(i int) bool { return w.gaps[i].last >= number })
}

// full reports whether no gap more can be kept.
func (w *window) full() bool { return len(w.gaps) >= maxGaps }

// miss records that the frames after high, up to and including to.Frame, are
// missing. When there is no room for another gap, they become part of the last.
func (w *window) miss(now time.Time, to site.Mark) {
	if n := len(w.gaps); n > 0 && w.full() && w.gaps[n-1].last == w.high.Frame {
		w.gaps[n-1].last, w.gaps[n-1].next = to.Frame, to.Next
	} else {
		w.gaps = append(w.gaps, gap{first: w.high.Frame + 1, last: to.Frame, ord: w.high.Next, next: to.Next, since: now,
			old: w.guessed && w.high == w.base})
	}
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
// Accepted; or Full, when it cannot take the frame and only notes that it
// exists.
func (w *window) observe(now time.Time, number, ord, count uint64) Verdict {
	if v := w.check(number); v != Accepted {
		return v
	}
	if number > w.high.Frame {
		if ord < w.high.Next {
			return Inconsistent
		}
		end := site.Mark{Frame: number, Next: ord + count}
		switch {
		case number == w.high.Frame+1 && ord != w.high.Next:
			return Inconsistent
		case number == w.high.Frame+1 && len(w.gaps) <= maxGaps:
		case w.full(): // and what follows the last gap would begin another, so it is part of that
			// That it exists is known now; it will be asked for again.
			w.miss(now, end)
			w.high = end
			return Full
		default:
			w.miss(now, site.Mark{Frame: number - 1, Next: ord})
		}
		w.high = end
		return Accepted
	}

	i := w.find(number)
	g := w.gaps[i]
	end := ord + count
	if ord < g.ord || end > g.next || (number == g.first && ord != g.ord) || (number == g.last && end != g.next) {
		return Inconsistent
	}
	if w.full() && number > g.first && (number < g.last || number == w.high.Frame) {
		return Full // it would split the gap, or make room for another above it
	}
	w.cut(i, number, number, ord, end)
	return Accepted
}

// cut takes the frames first to last, with the events ord to next-1, out of gap
// i, which holds them.
func (w *window) cut(i int, first, last, ord, next uint64) {
	before, after := w.gaps[i], w.gaps[i]
	before.last, before.next = first-1, ord
	after.first, after.ord = last+1, next
	switch {
	case before.first > before.last && after.first > after.last:
		w.gaps = slices.Delete(w.gaps, i, i+1)
	case before.first > before.last:
		w.gaps[i] = after
	case after.first > after.last:
		w.gaps[i] = before
	default:
		w.gaps[i] = before
		w.gaps = slices.Insert(w.gaps, i+1, after)
	}
}

// exists records that the stream reaches to mark, though its frames may not have
// arrived. It reports whether that was news, and false also for a mark that
// contradicts what arrived.
func (w *window) exists(now time.Time, mark site.Mark) bool {
	if mark.Frame <= w.high.Frame || mark.Next < w.high.Next {
		return false
	}
	w.miss(now, mark)
	w.high = mark
	return true
}

// giveUp removes the oldest gap and returns it. There is one.
func (w *window) giveUp() gap {
	g := w.gaps[0]
	w.gaps = slices.Delete(w.gaps, 0, 1)
	w.lose(g.first, g.last)
	return g
}

// lose remembers that the frames were given up.
func (w *window) lose(first, last uint64) {
	w.lost[w.lostN%len(w.lost)] = run{first, last}
	w.lostN++
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
