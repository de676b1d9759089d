package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
)

func TestWindow_Observe(t *testing.T) {
	type step struct {
		number, ord, count uint64
		want               Verdict
	}
	start := time.Unix(0, 0)
	for _, tt := range []struct {
		name  string
		base  site.Mark
		steps []step
		gaps  []gap // since is not compared
		low   site.Mark
	}{
		{name: "in order", steps: []step{{1, 0, 2, Accepted}, {2, 2, 1, Accepted}}, low: site.Mark{Frame: 2, Next: 3}},
		{name: "gap is exact", steps: []step{{1, 0, 2, Accepted}, {5, 9, 1, Accepted}},
			gaps: []gap{{first: 2, last: 4, ord: 2, next: 9}}, low: site.Mark{Frame: 1, Next: 2}},
		{name: "first frames lost", steps: []step{{3, 5, 1, Accepted}},
			gaps: []gap{{first: 1, last: 2, ord: 0, next: 5}}},
		{name: "late frame splits a gap", steps: []step{{1, 0, 1, Accepted}, {5, 9, 1, Accepted}, {3, 4, 2, Accepted}},
			gaps: []gap{{first: 2, last: 2, ord: 1, next: 4}, {first: 4, last: 4, ord: 6, next: 9}}, low: site.Mark{Frame: 1, Next: 1}},
		{name: "gap fills from both ends", steps: []step{{4, 6, 1, Accepted}, {1, 0, 2, Accepted}, {3, 5, 1, Accepted}, {2, 2, 3, Accepted}},
			low: site.Mark{Frame: 4, Next: 7}},
		{name: "duplicates", steps: []step{{1, 0, 1, Accepted}, {1, 0, 1, Duplicate}, {3, 2, 1, Accepted}, {3, 2, 1, Duplicate}},
			gaps: []gap{{first: 2, last: 2, ord: 1, next: 2}}, low: site.Mark{Frame: 1, Next: 1}},
		{name: "nothing below the baseline", base: site.Mark{Frame: 7, Next: 70},
			steps: []step{{7, 69, 1, BeforeBaseline}, {1, 0, 1, BeforeBaseline}, {8, 70, 1, Accepted}}, low: site.Mark{Frame: 8, Next: 71}},
		{name: "contradicting ordinals change nothing", steps: []step{
			{1, 0, 2, Accepted}, {2, 1, 1, Inconsistent}, {2, 3, 1, Inconsistent}, {3, 1, 1, Inconsistent}, {5, 9, 1, Accepted},
			{2, 3, 1, Inconsistent}, {4, 8, 2, Inconsistent}, {3, 8, 2, Inconsistent}, {3, 1, 1, Inconsistent}},
			gaps: []gap{{first: 2, last: 4, ord: 2, next: 9}}, low: site.Mark{Frame: 1, Next: 2}},
		{name: "frames without events", steps: []step{{1, 0, 0, Accepted}, {3, 0, 1, Accepted}},
			gaps: []gap{{first: 2, last: 2, ord: 0, next: 0}}, low: site.Mark{Frame: 1, Next: 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w window
			w.begin(tt.base)
			for i, s := range tt.steps {
				if v := w.check(s.number); v != s.want && s.want != Inconsistent {
					t.Errorf("step %d: check(%d) = %v, want %v", i, s.number, v, s.want)
				}
				if v := w.observe(start, s.number, s.ord, s.count); v != s.want {
					t.Errorf("step %d: observe(%d, %d, %d) = %v, want %v", i, s.number, s.ord, s.count, v, s.want)
				}
				if err := w.invariant(); err != nil {
					t.Errorf("step %d: %v", i, err)
				}
			}
			got := slices.Clone(w.gaps)
			for i := range got {
				got[i].since = time.Time{}
			}
			if !slices.Equal(got, tt.gaps) {
				t.Errorf("gaps %v, want %v", got, tt.gaps)
			}
			if tt.low != (site.Mark{}) && w.low() != tt.low {
				t.Errorf("low %v, want %v", w.low(), tt.low)
			}
		})
	}
}

func TestWindow_SplitKeepsTheAgeOfTheGap(t *testing.T) {
	var w window
	w.begin(site.Mark{})
	t0 := time.Unix(0, 0)
	w.observe(t0, 5, 4, 1)
	w.observe(t0.Add(time.Second), 3, 2, 1)
	w.observe(t0.Add(2*time.Second), 9, 8, 1)
	for i, want := range []time.Time{t0, t0, t0.Add(2 * time.Second)} {
		if !w.gaps[i].since.Equal(want) {
			t.Errorf("gap %d is from %v, want %v", i, w.gaps[i].since, want)
		}
	}
}

func TestWindow_ExistsOpensATailGapOnce(t *testing.T) {
	var w window
	w.begin(site.Mark{})
	now := time.Unix(0, 0)
	w.observe(now, 1, 0, 1)
	if !w.exists(now, site.Mark{Frame: 4, Next: 6}) {
		t.Error("a higher mark was no news")
	}
	if w.exists(now, site.Mark{Frame: 4, Next: 6}) || w.exists(now, site.Mark{Frame: 3, Next: 5}) || w.exists(now, site.Mark{Frame: 9, Next: 5}) {
		t.Error("a mark that is lower, the same, or contradicts was news")
	}
	if want := []gap{{first: 2, last: 4, ord: 1, next: 6, since: now}}; !slices.Equal(w.gaps, want) {
		t.Errorf("gaps %v, want %v", w.gaps, want)
	}
}

func TestWindow_GivenUpFramesAreLateNotDuplicate(t *testing.T) {
	var w window
	w.begin(site.Mark{})
	now := time.Unix(0, 0)
	w.observe(now, 3, 2, 1)
	if g := w.giveUp(); g.first != 1 || g.last != 2 {
		t.Fatalf("gave up %v, want frames 1-2", g)
	}
	if v := w.observe(now, 2, 1, 1); v != Late {
		t.Errorf("a frame given up: %v, want Late", v)
	}
	if v := w.observe(now, 3, 2, 1); v != Duplicate {
		t.Errorf("a frame seen: %v, want Duplicate", v)
	}
}

// Any order and any number of repetitions of a stream's frames is accepted
// exactly once each, and leaves no gap.
func TestWindow_AnyPermutationIsAcceptedOnce(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		type frame struct{ number, ord, count uint64 }
		var frames []frame
		var ord uint64
		for n := range uint64(1 + r.IntN(40)) {
			f := frame{n + 1, ord, uint64(r.IntN(4))}
			ord += f.count
			frames = append(frames, f)
		}
		all := append(slices.Clone(frames), frames...)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var w window
		w.begin(site.Mark{})
		accepted := map[uint64]int{}
		for _, f := range all {
			if w.observe(time.Unix(0, 0), f.number, f.ord, f.count) == Accepted {
				accepted[f.number]++
			}
			if err := w.invariant(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for _, f := range frames {
			if accepted[f.number] != 1 {
				t.Fatalf("seed %d: frame %d accepted %d times", seed, f.number, accepted[f.number])
			}
		}
		if len(w.gaps) > 0 || w.low() != (site.Mark{Frame: uint64(len(frames)), Next: ord}) {
			t.Fatalf("seed %d: gaps %v, low %v", seed, w.gaps, w.low())
		}
	}
}

// A frame that the full window refused comes again, as every frame does on a
// network that duplicates. Taking it must not make room for another gap.
func TestWindow_GapsAreBoundedWhenFramesComeTwice(t *testing.T) {
	var w window
	w.begin(site.Mark{})
	for n := uint64(2); n <= 20_000; n += 2 {
		for range 2 {
			w.observe(time.Unix(0, 0), n, n-1, 1)
		}
		if len(w.gaps) > maxGaps+1 {
			t.Fatalf("%d gaps after frame %d, want at most %d", len(w.gaps), n, maxGaps+1)
		}
	}
}
