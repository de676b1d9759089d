package harness

import "testing"

func TestSeen_CountsEveryEventOnce(t *testing.T) {
	s := newSeen(100, 130) // more than two words, the last one not full
	for n := uint64(100); n < 230; n++ {
		if isNew, belongs := s.mark(n); !isNew || !belongs {
			t.Fatalf("event %d the first time: new %v, belongs %v", n, isNew, belongs)
		}
	}
	if s.got != 130 {
		t.Errorf("%d events, want 130", s.got)
	}
	for _, n := range []uint64{100, 163, 164, 229} {
		if isNew, belongs := s.mark(n); isNew || !belongs {
			t.Errorf("event %d again: new %v, belongs %v", n, isNew, belongs)
		}
	}
	for _, n := range []uint64{0, 99, 230, 1 << 63, ^uint64(0)} {
		if isNew, belongs := s.mark(n); isNew || belongs {
			t.Errorf("event %d of no phase: new %v, belongs %v", n, isNew, belongs)
		}
	}
	if s.got != 130 {
		t.Errorf("%d events after doubles and strangers, want 130", s.got)
	}
}

func TestSeen_OfNothingTakesNothing(t *testing.T) {
	s := seen{}
	if isNew, belongs := s.mark(0); isNew || belongs {
		t.Errorf("new %v, belongs %v", isNew, belongs)
	}
}
