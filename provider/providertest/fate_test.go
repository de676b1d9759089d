package providertest

import (
	"slices"
	"strconv"
	"testing"
)

func TestFates_BoundTheSequences(t *testing.T) {
	f := newFates(1, In)
	for i := range 3 * maxSequences {
		f.draw(strconv.Itoa(i), 1)
	}
	if n := len(f.sequences); n > maxSequences+1 {
		t.Errorf("%d sequences are kept, want %d and the shared one", n, maxSequences)
	}
}

func TestFates_DifferByDirectionSequenceAndSeed(t *testing.T) {
	base := newFates(1, In).draw("a", 5)
	for name, other := range map[string][]fate{
		"direction": newFates(1, Out).draw("a", 5),
		"sequence":  newFates(1, In).draw("b", 5),
		"seed":      newFates(2, In).draw("a", 5),
	} {
		if slices.Equal(base, other) {
			t.Errorf("another %s has the same fates", name)
		}
	}
	f := newFates(1, In)
	f.draw("b", 3)
	if parts := slices.Concat(f.draw("a", 2), f.draw("a", 3)); !slices.Equal(base, parts) {
		t.Error("the fates of a sequence depend on other sequences, or on how many are drawn at once")
	}
}
