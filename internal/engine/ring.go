package engine

import (
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A ring keeps sealed frames of one of our streams for repair, and of those that
// it had to drop what events they held.
//
// Invariant: frames are ascending without holes and end at taken; so are
// evicted, and they end just below frames unless evicted is empty.
type ring struct {
	stream site.StreamID
	taken  site.Mark // through which frames were taken for sending
	handed site.Mark // through which a provider has accepted
	flight []*Frame  // taken, not handed
	sent   uint64    // number up to which frames are sealed and were tried once; they can be repaired

	frames  []*Frame
	bytes   int
	evicted []eviction
	runs    int // of evicted
}

// An eviction is what is left of a frame that receivers may still ask for.
type eviction struct {
	number, ordinal uint64
	count           uint32
	runs            []wire.EventCount
	at              time.Time
}

// hand records that a provider has accepted the frames up to number through,
// and returns how many that are, and their bytes.
func (r *ring) hand(through uint64) (n, bytes int) {
	for n < len(r.flight) && r.flight[n].Number <= through {
		bytes += len(r.flight[n].Bytes)
		r.handed = r.flight[n].mark()
		n++
	}
	clear(r.flight[:n])
	if r.flight = r.flight[n:]; len(r.flight) == 0 {
		r.flight = nil
	}
	return n, bytes
}

// low returns the position below which the ring holds nothing.
func (r *ring) low() site.Mark {
	if len(r.frames) == 0 {
		return r.taken
	}
	return site.Mark{Frame: r.frames[0].Number - 1, Next: r.frames[0].Ordinal}
}

// find returns the frame, or nil if the ring does not hold it.
func (r *ring) find(number uint64) *Frame {
	if len(r.frames) == 0 || number < r.frames[0].Number || number-r.frames[0].Number >= uint64(len(r.frames)) {
		return nil
	}
	return r.frames[number-r.frames[0].Number]
}

func (r *ring) add(f *Frame) {
	r.frames = append(r.frames, f)
	r.bytes += len(f.Bytes)
}

// trim drops the frames up to number all, which every receiver has, and then the
// oldest until the ring is within its bounds; those it will have to say GONE
// of.
func (r *ring) trim(now time.Time, all uint64, cfg *Config) {
	n := 0
	for n < len(r.frames) {
		f := r.frames[n]
		if f.Number > all {
			if r.bytes <= cfg.RingBytes && len(r.frames)-n <= cfg.RingFrames {
				break
			}
			r.evicted = append(r.evicted, eviction{f.Number, f.Ordinal, f.Count, f.runs, now})
			r.runs += max(1, len(f.runs))
		}
		r.bytes -= len(f.Bytes)
		n++
	}
	if n > 0 {
		clear(r.frames[:n])
		r.frames = r.frames[n:]
	}
	r.forget(now, all)
}

// forget drops evictions that nobody asks for any more.
func (r *ring) forget(now time.Time, all uint64) {
	n := 0
	for n < len(r.evicted) {
		e := &r.evicted[n]
		if e.number > all && r.runs <= maxEvicted && now.Sub(e.at) <= goneFor {
			break
		}
		r.runs -= max(1, len(e.runs))
		n++
	}
	if n > 0 {
		clear(r.evicted[:n])
		r.evicted = r.evicted[n:]
	}
}

// sayGone tells what of the frames asked for, all of which lie below the ring,
// was in them as far as that is known. What does not fit into a few frames will
// be asked for again.
func (m *Machine) sayGone(now time.Time, r *ring, asked wire.Range, to site.StreamID, fx *Effects) {
	first := r.low() // of what is remembered
	if len(r.evicted) > 0 {
		first = site.Mark{Frame: r.evicted[0].number - 1, Next: r.evicted[0].ordinal}
	}
	if asked.First <= first.Frame {
		m.say(now, to, wire.Gone{Frames: wire.Range{First: 1, Last: first.Frame}, NextOrdinal: first.Next}, fx)
		asked.First = first.Frame + 1
	}
	room := min(wire.MaxList, m.listRoom(wire.MaxEventCountLen, wire.MaxRangeLen+wire.MaxMarkLen+1))
	for frames := 0; asked.First <= asked.Last && frames < nakFrames; frames++ {
		e := r.evicted[asked.First-r.evicted[0].number:]
		g := wire.Gone{Frames: wire.Range{First: asked.First}, FirstOrdinal: e[0].ordinal, Complete: true}
		for _, e := range e {
			if e.number > asked.Last || e.number > asked.First && len(g.Events)+len(e.runs) > room {
				break
			}
			g.Events = append(g.Events, e.runs...)
			g.Frames.Last, g.NextOrdinal = e.number, e.ordinal+uint64(e.count)
			if g.Complete = len(e.runs) <= room; !g.Complete {
				break
			}
		}
		if !g.Complete {
			g.Events = nil
		}
		m.say(now, to, g, fx)
		asked.First = g.Frames.Last + 1
	}
}
