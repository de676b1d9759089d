package sim

import (
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"time"

	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// start is what the clock of every simulated world begins at.
var start = time.Unix(1_700_000_000, 0)

// A world is everything there is in one run: instances, networks, databases, and
// one clock for all of them.
type world struct {
	plan   *Plan
	now    time.Duration
	atOnce int // happenings at this moment
	agenda agenda

	databases []*database
	networks  []network
	processes []*process
	instances []*instance
	byStream  map[site.StreamID]*instance
	capture   bool
	captured  [][]byte // what somebody who listens has heard, if anybody does

	checker *history.Checker
	hash    uint64
	trace   io.Writer // nil: nobody reads along
	frames  bool      // trace every frame too
	stats   Stats
	stopped error // the plan cannot be carried out

	tally    *tally // nil: nobody counts
	unsealed bool   // tags are neither made nor checked
}

// Stats counts what a run was made of.
type Stats struct {
	Frames   uint64 // sealed
	Arrived  uint64 // delivered to an instance that ran
	Dropped  map[string]uint64
	NAKs     uint64
	Resent   uint64
	Joins    uint64
	Resets   uint64 // new streams of instances that run
	Blocked  uint64 // raises that had to wait
	Isolated uint64
}

func newWorld(p *Plan, trace io.Writer) *world {
	w := &world{
		plan: p, capture: p.captures(), byStream: map[site.StreamID]*instance{}, trace: trace, hash: 14695981039346656037,
		checker: history.NewChecker(p.settle()), stats: Stats{Dropped: map[string]uint64{}},
	}
	w.checker.Expect(p.repair())
	return w
}

// clock returns the time as the machines have it.
func (w *world) clock() time.Time { return start.Add(w.now) }

// random returns a source of its own for what: so a plan from which something is
// taken away goes on as before for the rest.
func (w *world) random(what string) *rand.Rand {
	h := fnv.New64a()
	io.WriteString(h, what)
	return rand.New(rand.NewPCG(w.plan.Seed, h.Sum64()))
}

// after plans do.
func (w *world) after(d time.Duration, do func()) {
	w.agenda.add(w.now+d, happening{do: do})
}

// mostAtOnce bounds what may happen at one moment.
const mostAtOnce = 200_000

// runUntil lets the time pass.
func (w *world) runUntil(end time.Duration) {
	for w.stopped == nil {
		at, ok := w.agenda.soonest()
		if !ok || at > end {
			break
		}
		h := w.agenda.next()
		if at > w.now {
			w.now, w.atOnce = at, 0
		} else if w.atOnce++; w.atOnce > mostAtOnce {
			w.fail("time stands still at %v: something is always due", w.now)
		}
		if h.to != nil {
			h.to.arrive(h.frame)
		} else {
			h.do()
		}
	}
	w.now = max(w.now, end)
}

// record enters what happened.
func (w *world) record(r history.Record) {
	r.At = w.now
	w.checker.Add(&r)
	w.mix(uint64(r.At), r.Seq, r.Ordinal, r.Count, r.First, r.Last, r.Sum)
	w.mixText(r.Instance, string(r.Kind), r.From, r.Reason, r.Event, r.Note)
	if w.trace != nil {
		w.print(&r)
	}
}

// mix makes the hash of the run depend on values.
func (w *world) mix(values ...uint64) {
	for _, v := range values {
		w.hash = (w.hash ^ v) * 1099511628211
		w.hash ^= w.hash >> 29
	}
}

func (w *world) mixText(texts ...string) {
	for _, t := range texts {
		for i := range len(t) {
			w.hash = (w.hash ^ uint64(t[i])) * 1099511628211
		}
	}
}

// mixFrame makes the hash of the run depend on a frame that arrived: on its header,
// and on its body in the clear, because some suites seal with random bits.
func (w *world) mixFrame(to *instance, h *wire.Header, body []byte) {
	w.mix(uint64(w.now), uint64(to.number), uint64(h.Type), h.Number, h.Ordinal, uint64(h.Length), uint64(h.Key), sum(body))
}

// maxCaptured bounds what somebody who listens remembers.
const maxCaptured = 4096

func (w *world) overhear(frames [][]byte) {
	if w.capture {
		w.captured = append(w.captured, frames[:min(len(frames), maxCaptured-len(w.captured))]...)
	}
}

// fault records that something begins to go wrong.
func (w *world) fault(note string, args ...any) {
	w.record(history.Record{Kind: history.Fault, Note: fmt.Sprintf(note, args...)})
}

// mended records that it does no longer.
func (w *world) mended(note string, args ...any) {
	w.record(history.Record{Kind: history.Mended, Note: fmt.Sprintf(note, args...)})
}

// fail ends the run because the plan makes no sense.
func (w *world) fail(format string, args ...any) {
	if w.stopped == nil {
		w.stopped = fmt.Errorf(format, args...)
	}
}
