//go:build linux

package scenario

import (
	"context"
	"sync"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/chaos/internal/worker"
	"github.com/carillon-go/carillon/internal/history"
)

// A Stage is what a scenario is played on. Its methods do nothing once one of them has
// failed; Run returns that error.
type Stage struct {
	*cluster.Cluster
	Scenario *Scenario

	ctx     context.Context
	err     error
	program string // path of the program carillon
	outcome *Outcome
}

// do does something unless something else has failed.
func (s *Stage) do(f func() error) {
	if s.err == nil {
		s.err = f()
	}
}

// Failed reports whether something has failed.
func (s *Stage) Failed() bool { return s.err != nil }

// Wait waits.
func (s *Stage) Wait(d time.Duration) {
	s.do(func() error { return s.Cluster.Wait(s.ctx, d) })
}

// During does something that is a fault, waits for d, and undoes it.
func (s *Stage) During(fault string, d time.Duration, begin, end func() error) {
	s.Around(fault, begin, end, func() { s.Wait(d) })
}

// Around does something that is a fault, what is given, and undoes the fault. Its beginning and end are
// written into the history.
func (s *Stage) Around(fault string, begin, end func() error, meanwhile func()) {
	s.Note(history.Record{Kind: history.Fault, Note: fault})
	s.do(begin)
	meanwhile()
	s.do(end)
	s.Note(history.Record{Kind: history.Mended, Note: fault})
}

// Faulty disturbs the network of some instances for d.
func (s *Stage) Faulty(d time.Duration, f lab.Faults, instances ...*cluster.Instance) {
	s.During("network", d,
		func() error { return SetFaults(f, instances...) },
		func() error { return SetFaults(lab.Faults{}, instances...) })
}

// SetFaults disturbs the network of instances alike.
func SetFaults(f lab.Faults, instances ...*cluster.Instance) error {
	for _, in := range instances {
		if err := in.SetFaults(f); err != nil {
			return err
		}
	}
	return nil
}

// Split lets the first n instances and the others not hear each other for d.
func (s *Stage) Split(d time.Duration, n int) {
	s.During("partition", d, func() error {
		for i, in := range s.Instances {
			others := s.Lab.Nodes[n:]
			if i >= n {
				others = s.Lab.Nodes[:n]
			}
			if err := in.SetFaults(lab.Faults{DeafTo: others}); err != nil {
				return err
			}
		}
		return nil
	}, func() error { return SetFaults(lab.Faults{}, s.Instances...) })
}

// Disordered disorders packets for d.
func (s *Stage) Disordered(d time.Duration, how lab.Disorder) {
	s.During("disorder", d,
		func() error { return s.Lab.SetDisorder(how) },
		func() error { return s.Lab.SetDisorder(lab.Disorder{}) })
}

// Paused stops an instance in its tracks for d.
func (s *Stage) Paused(d time.Duration, in *cluster.Instance) {
	s.During("pause", d, in.Pause, in.Resume)
}

// Dead kills an instance, and starts it again after d.
func (s *Stage) Dead(d time.Duration, in *cluster.Instance) {
	s.During("kill", d,
		func() error { in.Kill(); return nil },
		func() error { return s.Start(s.ctx, in) })
}

// Down kills the server of the site database for d.
func (s *Stage) Down(d time.Duration) {
	s.During("database killed", d, s.Database.Kill, s.Database.Restore)
}

// Locked locks the SQLite file for d.
func (s *Stage) Locked(d time.Duration) {
	var unlock func() error
	s.During("database locked", d,
		func() (err error) { unlock, err = s.Database.Lock(s.ctx); return err },
		func() error { return unlock() })
}

// Full fills the disk of the SQLite file for d.
func (s *Stage) Full(d time.Duration) {
	var free func() error
	s.During("disk full", d,
		func() (err error) { free, err = s.Database.Fill(); return err },
		func() error { return free() })
}

// End has an instance end in good order, if it can, and starts it again without waiting until
// it is in step.
func (s *Stage) End(in *cluster.Instance) {
	s.do(func() error {
		if !in.Ready() {
			return nil
		}
		s.Stop(s.ctx, in) // what goes wrong meanwhile may not let it
		return in.Launch()
	})
}

// Restart ends an instance in good order and starts it again.
func (s *Stage) Restart(in *cluster.Instance) {
	s.do(func() error { return s.Stop(s.ctx, in) })
	s.do(func() error { return s.Start(s.ctx, in) })
}

// Rotating rotates the key of the site again and again, every so often, while something else goes on. It
// returns how the last rotation failed that did.
func (s *Stage) Rotating(every, overlap time.Duration, meanwhile func()) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var failed error
	var rotating sync.WaitGroup
	rotating.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			switch err := s.Database.Rotate(ctx, worker.Application, overlap); {
			case err == nil:
				s.outcome.Rotations++
			case ctx.Err() == nil:
				failed = err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	meanwhile()
	cancel()
	rotating.Wait()
	return failed
}
