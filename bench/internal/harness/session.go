//go:build linux

// Package harness runs a system as processes, one publisher and several subscribers, and measures it.
package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/bench/internal/board"
	"github.com/carillon-go/carillon/bench/internal/machine"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const (
	look       = 2 * time.Millisecond // between two looks at the board while a phase runs
	stall      = 4 * time.Second      // without progress the rest of a phase is lost
	orderLimit = openTimeout + 5*time.Second
	closeLimit = 15 * time.Second
)

// A LossError says that events of a phase did not come.
type LossError struct {
	Phase   Phase
	Missing []uint64 // of each subscriber
	Err     error    // what the publisher says; nil: nothing
	Facts   string   // what the system says of the run; empty: nothing
}

func (e *LossError) Error() string {
	text := fmt.Sprintf("of %d events the subscribers lack %v", e.Phase.Count, e.Missing)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Facts != "" {
		text += " (" + e.Facts + ")"
	}
	return text
}

// Options are settings of a Session beside the system's.
type Options struct {
	CPUProfile string // folder for the processor profiles of phases with Profile; empty: none
	MemProfile string // folder for profiles of what was allocated; empty: none

	// Program, if set, is started as the children, instead of the running program itself.
	Program string

	// Window, if not 0, bounds how many events are on their way, whatever the System says. A figure measured with it says
	// so.
	Window int
}

// A Session is a system at work: its processes, from start to end. It is used by one goroutine.
type Session struct {
	sys         *system.System
	spec        system.Spec
	board       *board.Board
	server      *system.Server // nil: none
	publisher   *process
	subscribers []*process
	next        uint64 // number of the next event
}

// A Phase is a number of events.
type Phase struct {
	Count   uint64
	Rate    float64 // events a second, open loop; 0: as fast as the system takes them
	Profile bool
}

// A Result is what one phase measured. Nothing was lost in it.
type Result struct {
	Events  uint64
	Elapsed time.Duration // from the first event's publishing to the last receipt at the slowest subscriber

	// Processor time from shortly before the first event until shortly after the last.
	PublisherCPU, SubscribersCPU, ServerCPU time.Duration

	// Objects allocated for each event by the publisher, and by one subscriber on average.
	PublisherAllocations, SubscriberAllocations float64

	// Latency of all deliveries of a paced phase in nanoseconds, ascending, each from the time when the event was due.
	Latency []uint32
}

// PerSecond returns the throughput in events a second. Each event went to every subscriber.
func (r Result) PerSecond() float64 { return float64(r.Events) / r.Elapsed.Seconds() }

// CPU returns all processor time of the phase.
func (r Result) CPU() time.Duration { return r.PublisherCPU + r.SubscribersCPU + r.ServerCPU }

// Start starts the processes and returns when publisher and subscribers are connected. The caller calls End.
func Start(ctx context.Context, sys *system.System, subscribers, size int, o Options) (_ *Session, err error) {
	if size < SmallestSize {
		return nil, fmt.Errorf("an event of %d bytes has no room for its number and time; at least %d", size, SmallestSize)
	}
	dir, err := os.MkdirTemp("", "carillon-bench-")
	if err != nil {
		return nil, err
	}
	s := &Session{sys: sys, spec: system.Spec{Dir: dir, Subscribers: subscribers, Size: size}}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", sys.Name, err)
			s.abandon()
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, orderLimit, fmt.Errorf("not ready after %v", orderLimit))
	defer cancel()
	path := filepath.Join(dir, "board")
	if s.board, err = board.Create(path, subscribers); err != nil {
		return nil, err
	}
	a := assignment{
		Role: publishing, System: sys.Name, Spec: s.spec, Board: path, Window: sys.Window,
		CPUProfile: o.CPUProfile, MemProfile: o.MemProfile,
	}
	if o.Window != 0 {
		a.Window = o.Window
	}
	if sys.Serve != nil {
		if s.server, err = sys.Serve(ctx, s.spec); err != nil {
			return nil, err
		}
		a.Address = s.server.Address
	}
	if s.publisher, err = launch(o.Program, a); err != nil {
		return nil, err
	}
	first, err := s.publisher.hear(ctx)
	if err != nil {
		return nil, err
	}
	if s.server == nil {
		a.Address = first.Address
	}
	a.Role = subscribing
	for a.Index = range subscribers {
		p, err := launch(o.Program, a)
		if err != nil {
			return nil, err
		}
		s.subscribers = append(s.subscribers, p)
	}
	for _, p := range s.subscribers {
		if _, err := p.hear(ctx); err != nil {
			return nil, err
		}
	}
	_, err = s.publisher.ask(ctx, order{Do: doReady})
	return s, err
}

// Run measures one phase. After an error the Session is of no more use than to be ended.
func (s *Session) Run(ctx context.Context, ph Phase) (Result, error) {
	o := order{Do: doPrepare, First: s.next, Count: ph.Count, Rate: ph.Rate, Profile: ph.Profile}
	if err := s.askAll(ctx, o, nil); err != nil {
		return Result{}, err
	}
	s.next += ph.Count
	before, err := s.usage()
	if err != nil {
		return Result{}, err
	}
	o.Do = doPublish
	if err := s.publisher.tell(o); err != nil {
		return Result{}, err
	}
	published, err := s.await(ctx, ph)
	if err != nil {
		return Result{}, err
	}
	after, err := s.usage()
	if err != nil {
		return Result{}, err
	}
	r := Result{
		Events:               ph.Count,
		PublisherCPU:         after.publisher - before.publisher,
		SubscribersCPU:       after.subscribers - before.subscribers,
		ServerCPU:            after.server - before.server,
		PublisherAllocations: published.Allocations,
	}
	finished := int64(0)
	for i := range s.board.Subscribers() {
		finished = max(finished, s.board.Subscribers()[i].FinishedAt.Load())
	}
	r.Elapsed = time.Duration(finished - published.Started)
	err = s.askAll(ctx, order{Do: doFinish}, func(a answer) {
		r.SubscriberAllocations += a.Allocations / float64(len(s.subscribers))
	})
	if err == nil && ph.Rate > 0 {
		r.Latency, err = readLatency(s.spec.Dir, len(s.subscribers))
	}
	return r, err
}

// await waits until every subscriber has all events of the phase, and returns what the publisher says.
func (s *Session) await(ctx context.Context, ph Phase) (published answer, err error) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	answers := s.publisher.answers
	slots := s.board.Subscribers()
	moved, sum := time.Now(), uint64(0)
	for {
		select {
		case a, ok := <-answers:
			if !ok {
				return a, fmt.Errorf("%s ended early%s", s.publisher.a.name(), s.publisher.said())
			}
			answers, published = nil, a
		case <-ctx.Done():
			return published, context.Cause(ctx)
		case <-tick.C:
		}
		done, now := answers == nil, uint64(0)
		for i := range slots {
			done = done && slots[i].FinishedAt.Load() != 0
			now += slots[i].Events.Load()
		}
		if done {
			return published, published.error()
		}
		if now != sum {
			moved, sum = time.Now(), now
		} else if time.Since(moved) > stall {
			e := &LossError{Phase: ph, Err: published.error()}
			if answers != nil {
				e.Err = errors.New("the publisher is stuck")
			}
			s.explain(ctx, e, answers == nil)
			return published, e
		}
	}
}

// explain asks what the system has to say about a loss, and counts exactly what is missing: a subscriber that
// does not answer lacks what the board says, which is a few events too many.
func (s *Session) explain(ctx context.Context, e *LossError, publisherToo bool) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	var facts []string
	ask := func(p *process) {
		if p.tell(order{Do: doReport}) != nil {
			return
		}
		a, err := p.hear(ctx)
		if err != nil {
			facts = append(facts, err.Error())
		}
		if a.Facts != "" {
			facts = append(facts, p.a.name()+": "+a.Facts)
		}
	}
	if publisherToo {
		ask(s.publisher)
	}
	for i, p := range s.subscribers {
		ask(p)
		missing := s.next - s.board.Subscribers()[i].Events.Load()
		if p.tell(order{Do: doClose}) == nil {
			if a, err := p.hear(ctx); err == nil {
				missing = e.Phase.Count - a.Got
			}
		}
		e.Missing = append(e.Missing, missing)
	}
	e.Facts = strings.Join(facts, "; ")
}

// askAll gives one order to all subscribers at once.
func (s *Session) askAll(ctx context.Context, o order, with func(answer)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, closeLimit, fmt.Errorf("no answer to %q within %v", o.Do, closeLimit))
	defer cancel()
	for _, p := range s.subscribers {
		if err := p.tell(o); err != nil {
			return err
		}
	}
	for _, p := range s.subscribers {
		a, err := p.hear(ctx)
		if err != nil {
			return err
		}
		if with != nil {
			with(a)
		}
	}
	return nil
}

// usage is the processor time used so far.
type usage struct{ publisher, subscribers, server time.Duration }

func (s *Session) usage() (u usage, err error) {
	if u.publisher, err = machine.CPU(s.publisher.cmd.Process.Pid); err != nil {
		return u, err
	}
	if u.subscribers, err = sum(s.subscriberPIDs(), machine.CPU); err != nil || s.server == nil {
		return u, err
	}
	family, err := machine.Family(s.server.PIDs)
	if err != nil {
		return u, err
	}
	u.server, err = sum(family, machine.CPU)
	return u, err
}

func (s *Session) subscriberPIDs() []int {
	var pids []int
	for _, p := range s.subscribers {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return pids
}

func sum[T int64 | time.Duration](pids []int, of func(pid int) (T, error)) (all T, err error) {
	for _, pid := range pids {
		n, err := of(pid)
		if err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}

// Memory is the most that the processes had resident, in bytes, without what they had of files: those of the
// benchmark hold the code of all systems. Memory that several processes of a server share counts for each.
type Memory struct{ Publisher, Subscriber, Server int64 } // Subscriber: the largest of them

// A Conclusion is what is known at the end of a Session.
type Conclusion struct {
	Memory Memory
	Facts  string // what publisher and subscribers have to tell

	ServerVersion string // empty: there is no server
}

// End ends everything and says whether the session counts: it does not if events came twice, if some came that nobody sent, or if the
// system itself says so. Phases that lost events have said so already.
func (s *Session) End(ctx context.Context) (c Conclusion, err error) {
	defer s.abandon()
	if c.Memory, err = s.memory(); err != nil {
		return c, err
	}
	var facts []string
	note := func(who string, a answer) {
		if a.Facts != "" {
			facts = append(facts, who+": "+a.Facts)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, closeLimit, fmt.Errorf("not ended after %v", closeLimit))
	defer cancel()
	a, err := s.publisher.ask(ctx, order{Do: doReport})
	note("publisher", a)
	var errs []error
	errs = append(errs, err)
	errs = append(errs, s.askAll(ctx, order{Do: doReport}, func(a answer) { note("subscriber", a) }))
	errs = append(errs, s.askAll(ctx, order{Do: doClose}, func(a answer) {
		if a.Doubled > 0 || a.Odd > 0 {
			errs = append(errs, fmt.Errorf("a subscriber was given %d events twice, and %d that nobody sent", a.Doubled, a.Odd))
		}
	}))
	_, err = s.publisher.ask(ctx, order{Do: doClose})
	errs = append(errs, err)
	if s.server != nil {
		c.ServerVersion = s.server.Version
		errs = append(errs, s.server.Stop())
		s.server = nil
	}
	slices.Sort(facts)
	c.Facts = strings.Join(slices.Compact(facts), "; ")
	return c, errors.Join(errs...)
}

func (s *Session) memory() (m Memory, err error) {
	peak := func(pid int) (int64, error) {
		u, err := machine.Memory(pid)
		return u.Peak - u.Files, err
	}
	if m.Publisher, err = peak(s.publisher.cmd.Process.Pid); err != nil {
		return m, err
	}
	for _, pid := range s.subscriberPIDs() {
		n, err := peak(pid)
		if err != nil {
			return m, err
		}
		m.Subscriber = max(m.Subscriber, n)
	}
	if s.server == nil {
		return m, nil
	}
	family, err := machine.Family(s.server.PIDs)
	if err != nil {
		return m, err
	}
	m.Server, err = sum(family, peak)
	return m, err
}

// abandon ends what runs and removes the session's folder. Calling it again does nothing.
func (s *Session) abandon() {
	all := s.subscribers
	if s.publisher != nil {
		all = append(all, s.publisher)
	}
	s.subscribers, s.publisher = nil, nil
	for _, p := range all {
		p.orders.Close() // all at once, and wait for each afterwards
	}
	for _, p := range all {
		p.end()
	}
	if s.server != nil {
		s.server.Stop()
		s.server = nil
	}
	if s.board != nil {
		s.board.Close()
		s.board = nil
	}
	os.RemoveAll(s.spec.Dir)
}
