package providertest

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
)

// fate is what was drawn for one frame. Probabilities lie in [0, 1).
type fate struct {
	drop, duplicate, reorder, corrupt float64
	jitter, jitterOfCopy              float64
	bit                               uint64 // which one is wrong, modulo the number of bits
}

// maxSequences bounds the connections that have a sequence of their own. The
// others share one, so that their fates depend on how they take turns.
const maxSequences = 1024

// fates draws the fates of the frames of one direction. It is safe for
// concurrent use.
type fates struct {
	seed      uint64
	direction Direction

	mu        sync.Mutex
	sequences map[string]*rand.Rand
}

func newFates(seed uint64, d Direction) *fates {
	return &fates{seed: seed, direction: d, sequences: make(map[string]*rand.Rand)}
}

// draw returns the fates of the next n frames of a sequence. Each takes as many draws
// as every other one, so that rates can change without changing what comes later.
func (f *fates) draw(sequence string, n int) []fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.sequences[sequence]
	if r == nil {
		if len(f.sequences) >= maxSequences {
			sequence = ""
			r = f.sequences[sequence]
		}
		if r == nil {
			h := fnv.New64a()
			h.Write([]byte{byte(f.direction)})
			h.Write([]byte(sequence))
			r = rand.New(rand.NewPCG(f.seed, h.Sum64()))
			f.sequences[sequence] = r
		}
	}
	drawn := make([]fate, n)
	for i := range drawn {
		drawn[i] = fate{
			drop: r.Float64(), duplicate: r.Float64(), reorder: r.Float64(), corrupt: r.Float64(),
			jitter: r.Float64(), jitterOfCopy: r.Float64(), bit: r.Uint64(),
		}
	}
	return drawn
}
