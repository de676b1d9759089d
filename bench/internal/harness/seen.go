package harness

// seen says which events of a phase have come, one bit for each.
type seen struct {
	first uint64
	count uint64
	got   uint64 // different ones
	bits  []uint64
}

func newSeen(first, count uint64) seen {
	return seen{first: first, count: count, bits: make([]uint64, (count+63)/64)}
}

// mark notes that an event has come. It reports whether it is the first time, and
// whether the event belongs to the phase at all.
func (s *seen) mark(number uint64) (isNew, belongs bool) {
	i := number - s.first // huge if it is from before the phase
	if i >= s.count {
		return false, false
	}
	w, bit := &s.bits[i/64], uint64(1)<<(i%64)
	if *w&bit != 0 {
		return false, true
	}
	*w |= bit
	s.got++
	return true, true
}
