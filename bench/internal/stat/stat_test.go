package stat_test

import (
	"math"
	"slices"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/stat"
)

func TestSummarize_TakesTheMiddle(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []float64
		want   stat.Summary
	}{
		{"of nothing is nothing", nil, stat.Summary{}},
		{"of one is that one", []float64{4}, stat.Summary{1, 4, 4, 4}},
		{"odd: the one in the middle", []float64{9, 1, 5}, stat.Summary{3, 5, 1, 9}},
		{"even: between the two in the middle", []float64{8, 1, 2, 4}, stat.Summary{4, 3, 1, 8}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.values)
			if got := stat.Summarize(tt.values); got != tt.want {
				t.Errorf("Summarize(%v) = %+v, want %+v", tt.values, got, tt.want)
			}
			if !slices.Equal(before, tt.values) {
				t.Errorf("the values were changed to %v", tt.values)
			}
		})
	}
}

func TestPercentile_IsOneOfTheValues(t *testing.T) {
	hundred := make([]uint32, 100)
	for i := range hundred {
		hundred[i] = uint32(i + 1)
	}
	for _, tt := range []struct {
		name   string
		sorted []uint32
		p      float64
		want   uint32
	}{
		{"of nothing is 0", nil, 50, 0},
		{"half do not exceed the 50th", hundred, 50, 50},
		{"99 of 100 do not exceed the 99th", hundred, 99, 99},
		{"99.9 % of 100 are all of them", hundred, 99.9, 100},
		{"all", hundred, 100, 100},
		{"none still is the smallest", hundred, 0, 1},
		{"of one is that one", []uint32{7}, 1, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := stat.Percentile(tt.sorted, tt.p); got != tt.want {
				t.Errorf("Percentile(…, %v) = %d, want %d", tt.p, got, tt.want)
			}
		})
	}
}

func TestFit_FindsTheLine(t *testing.T) {
	l := stat.Fit([]float64{1, 3, 7}, []float64{12, 16, 24})
	if math.Abs(l.Start-10) > 1e-9 || math.Abs(l.Slope-2) > 1e-9 || math.Abs(l.R2-1) > 1e-9 {
		t.Errorf("points of 10 + 2x fit %+v", l)
	}
	if l := stat.Fit([]float64{1, 2, 3}, []float64{5, 5, 5}); l.Slope != 0 || l.Start != 5 || l.R2 != 1 {
		t.Errorf("what does not vary fits %+v", l)
	}
	if l := stat.Fit([]float64{1, 2, 3, 4}, []float64{1, 9, 1, 9}); l.R2 > 0.5 {
		t.Errorf("a zigzag is no line, and fits %+v", l)
	}
}
