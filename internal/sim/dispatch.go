package sim

import (
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A dispatchState holds what the one subscriber of an instance is still to be
// told.
type dispatchState struct {
	enabled bool
	sending bool // event frames may be taken
	held    []engine.Item
	heldLen int

	handler time.Duration // how long the subscriber takes for an event
	waiting []waitingEvent
	waitLen int
	busy    bool
	pressed time.Duration // since when more than half of the queue is in use; 0: it is not
}

type waitingEvent struct {
	record history.Record
	len    int
}

const (
	holdBytes  = 8 << 20
	queueBytes = 64 << 10
	entryBytes = 256

	roomy    = 1 << 20                // while the queue does not press
	pressFor = 500 * time.Millisecond // no longer does it pace those who raise
)

// tellRoom tells the machine what the subscriber's queue can take, in the manner of package carillon.
func (in *instance) tellRoom() {
	if in.waitLen > queueBytes/2 && in.pressed == 0 {
		in.pressed = in.w.now
	} else if in.waitLen <= queueBytes/8 {
		in.pressed = 0
	}
	room := roomy
	if in.pressed != 0 && in.w.now-in.pressed < pressFor {
		room = queueBytes - in.waitLen
	}
	in.machine.SetRoom(in.w.clock(), room, &in.fx)
}

var reasons = [...]string{
	engine.ReasonTimeout: "timeout", engine.ReasonOverflow: "overflow", engine.ReasonUndecodable: "undecodable",
	engine.ReasonReset: "reset", engine.ReasonEvicted: "evicted", engine.ReasonPeerLost: "peer-lost",
}

// enable begins dispatch, as carillon.Enable does.
func (in *instance) enable() {
	in.record(history.Record{Kind: history.Enabled})
	in.enabled, in.sending = true, true
	for i := range in.held {
		in.tell(&in.held[i])
	}
	in.held, in.heldLen = nil, 0
	in.pokeSend()
}

// item tells the subscriber of an item, or keeps it until Enable.
func (in *instance) item(it *engine.Item) {
	switch {
	case in.closing:
	case in.enabled:
		in.tell(it)
	case in.heldLen+entryBytes*it.Events.Len()+it.Events.PayloadBytes() <= holdBytes:
		in.held = append(in.held, *it)
		in.heldLen += entryBytes*it.Events.Len() + it.Events.PayloadBytes()
	default:
		in.w.fail("%s holds back more than fits before Enable; plan a shorter wait", in.name)
	}
}

func (in *instance) tell(it *engine.Item) {
	if m := it.Missed; m != nil {
		in.w.tally.misses(m)
		r := history.Record{
			Kind: history.Missed, Stream: history.Stream(m.Stream), First: m.First, Last: m.Last, Count: m.Count,
			Exact: m.Exact, Reason: reasons[m.Reason],
		}
		if m.Known {
			r.Event = eventName(m.Event)
		}
		in.record(r)
		return
	}
	for i := range it.Events.Len() {
		in.tellEvent(in.raisedRecord(it.Stream, it.Ordinal+uint64(i), it.Events.ID(i), it.Events.Payload(i)), len(it.Events.Payload(i)))
	}
}

// tellEvent tells the subscriber of an event with that many bytes of payload.
func (in *instance) tellEvent(r history.Record, payload int) {
	if in.handler == 0 && !in.busy {
		in.record(r)
		return
	}
	size := entryBytes + payload
	if len(in.waiting) > 0 && in.waitLen+size > queueBytes {
		in.record(history.Record{
			Kind: history.Missed, Stream: r.Stream, First: r.Ordinal, Last: r.Ordinal, Count: 1, Exact: true,
			Event: r.Event, Reason: "local-queue",
		})
		return
	}
	in.waiting = append(in.waiting, waitingEvent{r, size})
	in.waitLen += size
	if !in.busy {
		in.busy = true
		in.later(in.handler, in.handleNext)
	}
}

func (in *instance) raisedRecord(s site.StreamID, ordinal uint64, id wire.ID, payload []byte) history.Record {
	r := history.Record{Kind: history.Raised, Stream: history.Stream(s), Ordinal: ordinal, Event: eventName(id), Sum: sum(payload)}
	r.From = "nobody"
	if n, seq, ok := readPayload(payload); ok && n < len(in.w.instances) {
		r.From, r.Seq = in.w.instances[n].name, seq
	}
	return r
}

// handleNext is the subscriber returning from one call and being called for the
// next.
func (in *instance) handleNext() {
	if len(in.waiting) == 0 || in.closing {
		in.busy = false
		return
	}
	e := in.waiting[0]
	in.waiting = in.waiting[1:]
	in.waitLen -= e.len
	in.record(e.record)
	if in.pressed != 0 && in.waitLen <= queueBytes/4 {
		in.tellRoom()
		in.effects()
	}
	in.later(in.handler, in.handleNext)
}
