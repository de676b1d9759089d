package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

const (
	firstRetry = 10 * time.Millisecond // as in package carillon
	lastRetry  = time.Second
	maxControl = 1024
)

// A sendState is the sending side of an instance.
type sendState struct {
	seq    uint64 // number of the next event raised
	sent   uint64 // number of the next event to be taken
	called bool   // Raise was called for the process's first wish and has not returned

	control []engine.Control
	repairs []engine.Control
	poked   bool
	frames  []*engine.Frame // in hand
	owed    []network       // that have not accepted them
	backoff time.Duration
	retryAt time.Duration
	goodbye func() // to be called when the control frames queued were sent
}

// A wish is an event that an instance is to raise.
type wish struct {
	event   string
	size    int
	ordered bool
}

// raise has the application raise an event, as soon as it runs and has raised those
// before.
func (p *process) raise(one wish) {
	p.wishes = append(p.wishes, one)
	if p.run != nil {
		p.run.now(p.run.raiseMore)
	}
}

// raiseMore calls Raise as long as the machine has room.
func (in *instance) raiseMore() {
	p := in.process
	for len(p.wishes) > 0 && !in.closing && in.opened {
		w := &p.wishes[0]
		body := payload(in.number, in.seq, w.size)
		if !in.called {
			in.record(history.Record{Kind: history.Raise, Seq: in.seq, Event: w.event, Ordered: w.ordered, Sum: sum(body)})
			in.called = true
		}
		ev := wire.Event{ID: eventID(w.event), Raiser: wire.ID{9}, Payload: body}
		var err error
		if w.ordered || !in.machine.Add(&ev) {
			_, err = in.machine.Raise(in.w.clock(), &ev, w.ordered)
		}
		if errors.Is(err, engine.ErrFull) {
			in.w.stats.Blocked++
			in.plan()
			return
		}
		if err != nil {
			in.w.fail("%s cannot raise event %d: %v", in.name, in.seq, err)
			return
		}
		in.record(history.Record{Kind: history.Accepted, Seq: in.seq})
		in.called = false
		in.seq++
		p.wishes = p.wishes[1:]
		in.pokeSend()
	}
	if in.opened {
		in.plan()
	}
}

func (in *instance) queueControl(c engine.Control) {
	if len(in.control) >= maxControl {
		in.control = slices.Delete(in.control, 0, 1)
	}
	in.control = append(in.control, c)
}

// pokeSend has the sender run, once, however often it is poked before.
func (in *instance) pokeSend() {
	if !in.poked {
		in.poked = true
		in.later(0, in.send)
	}
}

// send hands frames to the networks: control frames and repairs once, because
// they are repeated as long as they matter, and event frames until every network
// has accepted them.
func (in *instance) send() {
	in.poked = false
	if len(in.frames) == 0 && in.sending {
		in.take()
	}
	control, repairs := in.control, in.repairs
	in.control, in.repairs = nil, nil
	for i := range control {
		in.seal(control[i].Frame)
	}
	in.spread(control)
	in.w.tally.again(func() { in.spread(repairs) })
	in.w.stats.Resent += uint64(len(repairs))
	if in.goodbye != nil {
		done := in.goodbye
		in.goodbye = nil
		done()
	}
	if len(in.frames) > 0 && in.w.now >= in.retryAt {
		in.sendBatch()
	}
}

// take takes what waits, and records which numbers the events have got.
func (in *instance) take() {
	in.frames = in.machine.Take(in.w.clock(), nil)
	for _, f := range in.frames {
		if f.Count > 0 {
			in.record(history.Record{Kind: history.Sent, Seq: in.sent, Stream: history.Stream(in.self), Ordinal: f.Ordinal, Count: uint64(f.Count)})
			in.sent += uint64(f.Count)
		}
		in.seal(f.Bytes)
	}
	in.owed = append(in.owed[:0], in.process.networks...)
	in.backoff, in.retryAt = 0, 0
}

// spread sends frames as they are addressed, each run of the same together.
func (in *instance) spread(list []engine.Control) {
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].To == list[0].To {
			n++
		}
		frames := make([][]byte, n)
		for i := range frames {
			frames[i] = list[i].Frame
			in.w.traceSent(in, list[i].Frame)
		}
		in.w.overhear(frames)
		to := in.reach(list[0].To)
		for _, net := range in.process.networks {
			net.send(in, to, frames)
		}
		list = list[n:]
	}
}

// reach returns the instance that has a stream; nil for everybody, and also when
// nobody has it, as a provider does that cannot reach one alone.
func (in *instance) reach(to site.StreamID) *instance {
	if to == (site.StreamID{}) {
		return nil
	}
	return in.w.byStream[to]
}

func (in *instance) sendBatch() {
	batch := make([][]byte, len(in.frames))
	for i, f := range in.frames {
		batch[i] = f.Bytes
		in.w.traceSent(in, f.Bytes)
	}
	in.w.overhear(batch)
	in.owed = slices.DeleteFunc(in.owed, func(n network) bool { return n.send(in, nil, batch) == nil })
	if len(in.owed) > 0 {
		in.backoff = min(max(firstRetry, 2*in.backoff), lastRetry)
		in.retryAt = in.w.now + in.backoff/2 + time.Duration(in.random.Int64N(int64(in.backoff/2)+1))
		in.later(in.retryAt-in.w.now, in.pokeSend)
		return
	}
	// A provider takes a moment before it says that it has accepted.
	last := in.frames[len(in.frames)-1].Number
	in.retryAt = in.w.now + time.Hour
	in.later(time.Duration(in.random.Int64N(int64(in.w.plan.SendTime)+1)), func() {
		in.frames = nil
		in.machine.Handed(in.w.clock(), last, &in.fx)
		in.effects()
		in.pokeSend()
	})
}
