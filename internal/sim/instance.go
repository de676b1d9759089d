package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A process is a program that is started again when it has ended. Each run of it
// is an instance.
type process struct {
	w        *world
	name     string
	runs     int
	site     string
	database *database
	networks []network
	enable   time.Duration // from in step to Enable
	run      *instance     // the present one; nil: none
	wishes   []wish        // what it is to raise and has not
}

// An instance does around one machine what package carillon does.
type instance struct {
	w       *world
	process *process
	name    string
	number  int // in the order of starting
	random  *rand.Rand

	dead      bool // its process is gone
	frozen    bool
	postponed []func()   // what happened while it was frozen
	socket    []incoming // what arrived meanwhile

	machine *engine.Machine // nil until the row is committed
	fx      engine.Effects
	opener  *seal.Opener
	sealers []*sealer
	keys    keyset
	own     []site.StreamID // streams it has or had, the present one last
	self    site.StreamID
	opened  bool          // in step: the application raises
	began   time.Duration // when it began to join
	wake    time.Duration // when the machine is called next; 0: not planned
	cfg     engine.Config

	// The snapshot it started with, for a clone.
	joinedRows     []site.Member
	joinedRevision site.Revision

	followState
	sendState
	dispatchState
	leaveState
}

// A sealer seals the frames of one stream under one key.
type sealer struct {
	*seal.Sealer
	stream site.StreamID
	key    site.KeyID
}

// boot starts the next run of p.
func (p *process) boot() *instance {
	p.runs++
	name := p.name
	if p.runs > 1 {
		name = fmt.Sprintf("%s.%d", p.name, p.runs)
	}
	in := p.make(name)
	p.run = in
	in.open()
	return in
}

// make returns an instance that has not begun.
func (p *process) make(name string) *instance {
	w := p.w
	in := &instance{w: w, process: p, name: name, number: len(w.instances), random: w.random("instance " + name), opener: seal.NewOpener()}
	w.instances = append(w.instances, in)
	return in
}

// later plans do, unless in is gone by then; while it is frozen, do waits.
func (in *instance) later(d time.Duration, do func()) {
	in.w.after(d, func() { in.now(do) })
}

func (in *instance) now(do func()) {
	switch {
	case in.dead:
	case in.frozen:
		in.postponed = append(in.postponed, do)
	default:
		do()
	}
}

// record enters something that happened at in.
func (in *instance) record(r history.Record) {
	r.Instance = in.name
	in.w.record(r)
}

// end removes in from the world.
func (in *instance) end() {
	in.dead = true
	for _, s := range in.own {
		if in.w.byStream[s] == in {
			delete(in.w.byStream, s)
		}
	}
	if in.process.run == in {
		in.process.run = nil
	}
	for _, n := range in.process.networks {
		b := n.base()
		b.joined = slices.DeleteFunc(b.joined, func(o *instance) bool { return o == in })
	}
}

// kill ends in as kill -9 does.
func (in *instance) kill() {
	in.record(history.Record{Kind: history.Killed})
	in.end()
}

// maxSocket bounds what arrives for an instance that does not read: beyond it the
// network drops.
const maxSocket = 512

func (in *instance) freeze() {
	in.frozen = true
	in.record(history.Record{Kind: history.Frozen})
}

func (in *instance) thaw() {
	in.frozen = false
	in.record(history.Record{Kind: history.Thawed})
	do, frames := in.postponed, in.socket
	in.postponed, in.socket = nil, nil
	for _, f := range frames {
		in.later(0, func() { in.receive(f.frame) })
	}
	for _, d := range do {
		in.later(0, d)
	}
}

// effects carries out what the machine asks for.
func (in *instance) effects() {
	fx := &in.fx
	for i := range fx.Items {
		in.item(&fx.Items[i])
	}
	for _, c := range fx.Control {
		in.queueControl(c)
	}
	in.repairs = append(in.repairs, fx.Repairs...)
	if len(fx.Control)+len(fx.Repairs) > 0 {
		in.pokeSend()
	}
	for _, d := range fx.InDoubt {
		if in.enabled && !in.closing {
			in.record(history.Record{Kind: history.InDoubt, Stream: history.Stream(d.Stream)})
		}
	}
	if fx.AskMembers {
		in.asked = true
		in.pokeFollow()
	}
	if (fx.Gone || fx.Cloned) && !in.gone {
		in.gone = true
		in.pokeFollow()
	}
	inStep, space, send := fx.InStep, fx.Space, fx.Send
	fx.Reset()
	if inStep {
		in.cameInStep()
	}
	if send {
		in.pokeSend()
	}
	if space {
		in.raiseMore()
	}
	in.plan()
}

// plan has the machine called when it wants to be.
func (in *instance) plan() {
	next := in.machine.Next()
	if next.IsZero() {
		return
	}
	at := max(next.Sub(start), in.w.now)
	if in.wake != 0 && in.wake <= at {
		return
	}
	in.wake = at
	in.w.agenda.add(at, happening{do: func() {
		if in.wake == at {
			in.wake = 0
			in.now(in.tick)
		}
	}})
}

func (in *instance) tick() {
	now := in.w.clock()
	if at := in.machine.Next(); !at.IsZero() && !now.Before(at) {
		in.machine.Tick(now, &in.fx)
		in.effects()
	}
	in.plan()
}

// maxSealers is how many are remembered, as in package carillon.
const maxSealers = 8

// addSealer makes one for the present key and a stream.
func (in *instance) addSealer(stream site.StreamID) (*sealer, error) {
	s, err := seal.NewSealer(in.keys.active, in.keys.self.ID, stream)
	if err != nil {
		return nil, err
	}
	next := &sealer{s, stream, in.keys.active.ID}
	in.sealers = append([]*sealer{next}, in.sealers[:min(len(in.sealers), maxSealers-1)]...)
	return next, nil
}

// seal seals a frame of this instance in place.
func (in *instance) seal(frame []byte) {
	h, err := wire.ParseHeader(frame)
	if err != nil {
		in.w.fail("%s made a frame that does not parse: %v", in.name, err)
		return
	}
	for _, s := range in.sealers {
		if s.stream == h.Stream && s.key == h.Key {
			if !in.w.unsealed {
				s.Seal(frame)
			}
			in.w.stats.Frames++
			return
		}
	}
	in.w.fail("%s has no sealer for its own frame of stream %v under key %d", in.name, h.Stream, h.Key)
}
