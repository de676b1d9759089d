package engine

import (
	"slices"

	"github.com/carillon-go/carillon/internal/wire"
)

type orderKey = wire.ID

// maxOrders bounds the Ordered events followed per stream. Beyond it an event
// waits for every gap below it instead of only for those that concern it.
const maxOrders = 65536

// A waitingItem is an Ordered event that arrived before one that precedes it.
type waitingItem struct {
	Item
	frame uint64
}

// tell has subscribers told of an item of one event that came in frame number,
// or keeps it if it is Ordered and must wait.
//
// An Ordered event waits only while its own predecessor may still come, which is
// while a gap below its frame is open and its order number is not the next one.
// When no gap below is open, whatever is missing was given up and told.
func (m *Machine) tell(p *peer, it Item, number uint64, fx *Effects) {
	if it.order != 0 && !p.inOrder(&it, number) {
		p.wait(waitingItem{Item: it, frame: number})
		return
	}
	fx.Items = append(fx.Items, it)
}

// inOrder reports whether it may be told now, and counts it if so.
func (p *peer) inOrder(it *Item, number uint64) bool {
	id := it.Events.ID(0)
	next, known := p.orders[id]
	if !known && p.base.Frame == 0 {
		next = 1
	}
	if it.order != next && p.openBelow(number) {
		return false
	}
	if p.orders == nil {
		p.orders = map[orderKey]uint64{}
	}
	if known || len(p.orders) < maxOrders {
		p.orders[id] = it.order + 1
	}
	p.advanced = p.advanced || p.waitingOf[id] > 0
	return true
}

func (p *peer) wait(w waitingItem) {
	w.Events = w.Events.Clone() // or one event would keep its whole frame, which is not counted
	i, _ := slices.BinarySearchFunc(p.waiting, w, func(a, b waitingItem) int {
		if a.Ordinal < b.Ordinal {
			return -1
		}
		return 1 // ordinals are unique
	})
	p.waiting = slices.Insert(p.waiting, i, w)
	p.waitLen += w.Events.PayloadBytes()
	if p.waitingOf == nil {
		p.waitingOf = map[orderKey]int{}
	}
	p.waitingOf[w.Events.ID(0)]++
}

// release tells the Ordered events that need not wait any longer. When they take
// too much room, the oldest gaps are given up early.
func (m *Machine) release(p *peer, fx *Effects) {
	for len(p.waiting) > 0 {
		m.releaseLow(p, fx)
		if p.advanced {
			m.releaseNext(p, fx)
		}
		if p.waitLen <= m.cfg.HoldBytes && len(p.waiting) <= m.cfg.RingFrames || len(p.gaps) == 0 {
			return
		}
		m.giveUp(p, ReasonOverflow, fx)
	}
}

// releaseLow tells those below which nothing is missing any more. They are the
// first ones, so that those that wait on cost nothing.
func (m *Machine) releaseLow(p *peer, fx *Effects) {
	n := 0
	for n < len(p.waiting) && !p.openBelow(p.waiting[n].frame) {
		p.told(&p.waiting[n], fx)
		p.inOrder(&p.waiting[n].Item, p.waiting[n].frame) // it is; this counts it
		n++
	}
	if n > 0 {
		clear(p.waiting[:n])
		p.waiting = p.waiting[n:]
	}
}

// releaseNext tells those whose predecessor has been told since the last call.
func (m *Machine) releaseNext(p *peer, fx *Effects) {
	p.advanced = false
	keep := p.waiting[:0]
	for i := range p.waiting {
		w := &p.waiting[i]
		if p.inOrder(&w.Item, w.frame) {
			p.told(w, fx)
		} else {
			keep = append(keep, *w)
		}
	}
	clear(p.waiting[len(keep):])
	p.waiting = keep
	p.advanced = false // whatever follows one told here has been looked at after it
}

// told moves w, which no longer waits, to fx.
func (p *peer) told(w *waitingItem, fx *Effects) {
	fx.Items = append(fx.Items, w.Item)
	p.waitLen -= w.Events.PayloadBytes()
	id := w.Events.ID(0)
	if p.waitingOf[id]--; p.waitingOf[id] == 0 {
		delete(p.waitingOf, id)
	}
}
