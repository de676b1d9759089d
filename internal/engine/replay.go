package engine

// A replayWindow remembers which control frames of a stream were heard. They
// are truths that do no harm when replayed, but some are answered, and whoever
// can replay must not be able to make instances speak. What is too old to be remembered counts as heard.
// The zero replayWindow has heard nothing. It is that of RFC 6479.
type replayWindow struct {
	high uint64                       // highest number heard
	bits [replayNumbers/64 + 1]uint64 // a word more, since whole words are forgotten
}

// replayNumbers is how many control frames a stream's latest one may overtake.
const replayNumbers = 1024

// heard reports whether n was heard, or is too old to tell. It changes nothing.
func (w *replayWindow) heard(n uint64) bool {
	if n > w.high {
		return false
	}
	return w.high-n >= replayNumbers || w.bits[n/64%uint64(len(w.bits))]&(1<<(n%64)) != 0
}

// hear notes n, and reports whether it is new.
func (w *replayWindow) hear(n uint64) bool {
	if w.heard(n) {
		return false
	}
	if n > w.high {
		// The words between the two hold numbers that have become too old.
		for i := range min(n/64-w.high/64, uint64(len(w.bits))) {
			w.bits[(w.high/64+1+i)%uint64(len(w.bits))] = 0
		}
		w.high = n
	}
	w.bits[n/64%uint64(len(w.bits))] |= 1 << (n % 64)
	return true
}
