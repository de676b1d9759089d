package sim

import "time"

// A happening is what is due at a time: a function to call, or, because that is
// most of them, a frame to deliver.
type happening struct {
	do    func()
	to    *instance
	frame []byte
}

// An agenda holds happenings, the earliest first; of two at the same time, the one
// planned first comes first. The heap holds no pointers, since a seed plans tens
// of thousands.
type agenda struct {
	heap  []due
	slots []happening
	free  []uint32 // slots not in use
	order uint64
}

type due struct {
	at    time.Duration
	order uint64
	slot  uint32
}

func (d *due) before(o *due) bool { return d.at < o.at || d.at == o.at && d.order < o.order }

func (a *agenda) add(at time.Duration, h happening) {
	slot := uint32(len(a.slots))
	if n := len(a.free); n > 0 {
		slot, a.free = a.free[n-1], a.free[:n-1]
		a.slots[slot] = h
	} else {
		a.slots = append(a.slots, h)
	}
	a.order++
	d := due{at, a.order, slot}
	a.heap = append(a.heap, d)
	i := len(a.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !d.before(&a.heap[up]) {
			break
		}
		a.heap[i] = a.heap[up]
		i = up
	}
	a.heap[i] = d
}

// next removes the earliest happening. There is one.
func (a *agenda) next() happening {
	first := a.heap[0]
	last := len(a.heap) - 1
	d := a.heap[last]
	a.heap = a.heap[:last]
	i := 0
	for {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && a.heap[down+1].before(&a.heap[down]) {
			down++
		}
		if !a.heap[down].before(&d) {
			break
		}
		a.heap[i] = a.heap[down]
		i = down
	}
	if last > 0 {
		a.heap[i] = d
	}
	h := a.slots[first.slot]
	a.slots[first.slot] = happening{}
	a.free = append(a.free, first.slot)
	return h
}

// soonest returns when the earliest is due, or false if there is nothing.
func (a *agenda) soonest() (time.Duration, bool) {
	if len(a.heap) == 0 {
		return 0, false
	}
	return a.heap[0].at, true
}
