// Package stat sums up measurements.
package stat

import (
	"math"
	"slices"
)

// A Summary is what several rounds measured. The zero Summary is of none.
type Summary struct {
	Rounds           int
	Median, Min, Max float64
}

// Summarize returns the Summary of values, which it leaves as they are. With an even number, the median lies between the two
// in the middle.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	median := v[mid]
	if len(v)%2 == 0 {
		median = (v[mid-1] + v[mid]) / 2
	}
	return Summary{len(v), median, v[0], v[len(v)-1]}
}

// Percentile returns the smallest of the values that p percent of them do not exceed. sorted is ascending; of no values it is 0.
func Percentile[T ~int64 | ~uint32](sorted []T, p float64) T {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// A Line is y = Start + Slope·x.
type Line struct {
	Start, Slope float64
	// R2 is how much of the variance of y the line explains: 1 is all. 1 too if y does not vary.
	R2 float64
}

// Fit returns the line with the least squares through the points. There are at least two different x.
func Fit(x, y []float64) Line {
	n := float64(len(x))
	var sx, sy float64
	for i := range x {
		sx, sy = sx+x[i], sy+y[i]
	}
	mx, my := sx/n, sy/n
	var sxx, sxy, syy float64
	for i := range x {
		dx, dy := x[i]-mx, y[i]-my
		sxx, sxy, syy = sxx+dx*dx, sxy+dx*dy, syy+dy*dy
	}
	l := Line{Slope: sxy / sxx}
	l.Start = my - l.Slope*mx
	l.R2 = 1
	if syy > 0 {
		l.R2 = sxy * sxy / (sxx * syy)
	}
	return l
}
