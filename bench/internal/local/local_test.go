//go:build linux

package local

import (
	"context"
	"testing"
)

func TestRegistry_CallsAllOfAnID(t *testing.T) {
	var r registry
	told := ""
	a, b := [16]byte{1}, [16]byte{2}
	r.on(a, func(_ context.Context, v any) { told += v.(string) + "1 " })
	r.on(a, func(_ context.Context, v any) { told += v.(string) + "2 " })
	r.on(b, func(_ context.Context, v any) { told += v.(string) + "3 " })
	r.call(t.Context(), a, "a")
	r.call(t.Context(), b, "b")
	r.call(t.Context(), [16]byte{3}, "c")
	if told != "a1 a2 b3 " {
		t.Errorf("told %q", told)
	}
}

func TestMeasure_HasFiguresOfBothWays(t *testing.T) {
	r, err := Measure(t.Context(), 3)
	if err != nil || r.Subscribers != 3 || r.Raise.Rounds != slices || r.Raise.Min <= 0 || r.Bare.Min <= 0 || r.Ratio.Median <= 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
