//go:build linux

package harness

import (
	"context"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/bench/internal/machine"
)

// What follows is for measurements that are no phases: the subscribers stand for instances that run already.

// Dir returns the session's folder.
func (s *Session) Dir() string { return s.spec.Dir }

// PIDs returns the processes, the publisher first. A server's are not among them.
func (s *Session) PIDs() []int {
	var pids []int
	if s.publisher != nil {
		pids = append(pids, s.publisher.cmd.Process.Pid)
	}
	return append(pids, s.subscriberPIDs()...)
}

// EndPublisher ends the publisher in good order, so that the subscribers remain.
func (s *Session) EndPublisher(ctx context.Context) error {
	_, err := s.publisher.ask(ctx, order{Do: doClose})
	s.publisher.end()
	s.publisher = nil
	return err
}

// Expect has the subscribers wait for one event, and returns it as somebody else has to publish it.
func (s *Session) Expect(ctx context.Context) (event []byte, err error) {
	if err := s.askAll(ctx, order{Do: doPrepare, First: s.next, Count: 1}, nil); err != nil {
		return nil, err
	}
	event = make([]byte, s.spec.Size)
	stamp(event, s.next, 0)
	s.next++
	return event, nil
}

// Received waits until all subscribers have the event expected, and returns when the last one got it, by the
// machine's monotonic clock.
func (s *Session) Received(ctx context.Context) (at int64, err error) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		at, all := int64(0), true
		for i := range s.board.Subscribers() {
			t := s.board.Subscribers()[i].FinishedAt.Load()
			at, all = max(at, t), all && t != 0
		}
		if all {
			return at, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("not received by all: %w", context.Cause(ctx))
		}
	}
}

// Idle is what one process costs while nothing is published.
type Idle struct {
	CPU      float64 // part of one core
	Resident int64   // bytes of memory, at the end
}

// Rest leaves all processes alone for a while, and returns what each has used, the publisher's first.
func (s *Session) Rest(ctx context.Context, d time.Duration) ([]Idle, error) {
	pids := s.PIDs()
	used := make([]time.Duration, len(pids))
	began := time.Now()
	for i, pid := range pids {
		var err error
		if used[i], err = machine.CPU(pid); err != nil {
			return nil, err
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	all := make([]Idle, len(pids))
	for i, pid := range pids {
		now, err := machine.CPU(pid)
		if err != nil {
			return nil, err
		}
		all[i].CPU = (now - used[i]).Seconds() / time.Since(began).Seconds()
		memory, err := machine.Memory(pid)
		if err != nil {
			return nil, err
		}
		all[i].Resident = memory.Resident
	}
	return all, nil
}

// Abandon ends the session without a word about what was received. After End it does nothing.
func (s *Session) Abandon() { s.abandon() }
