package sim

import "time"

// A happening is due at a time: a function to call, or, because that is most of
// them, a frame to deliver.
type happening struct {
	at    time.Duration
	order uint64 // of two at the same time, the one planned first comes first
	do    func()
	to    *instance
	via   network
	frame []byte
}

func (h *happening) before(o *happening) bool {
	return h.at < o.at || h.at == o.at && h.order < o.order
}

// An agenda holds happenings, the earliest first. It is container/heap without
// the interfaces: a seed plans tens of thousands.
type agenda struct {
	list  []happening
	order uint64
}

func (a *agenda) add(h happening) {
	a.order++
	h.order = a.order
	a.list = append(a.list, h)
	i := len(a.list) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !a.list[i].before(&a.list[up]) {
			break
		}
		a.list[i], a.list[up] = a.list[up], a.list[i]
		i = up
	}
}

// next removes the earliest happening. There is one.
func (a *agenda) next() happening {
	first := a.list[0]
	last := len(a.list) - 1
	a.list[0] = a.list[last]
	a.list[last] = happening{}
	a.list = a.list[:last]
	for i := 0; ; {
		small := i
		for down := 2*i + 1; down <= 2*i+2 && down < last; down++ {
			if a.list[down].before(&a.list[small]) {
				small = down
			}
		}
		if small == i {
			return first
		}
		a.list[i], a.list[small] = a.list[small], a.list[i]
		i = small
	}
}
