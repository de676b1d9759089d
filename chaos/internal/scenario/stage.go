package scenario

import (
	"context"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/internal/history"
)

// A Stage is what a scenario is played on. Its methods do nothing once one of them has
// failed; Run returns that error.
type Stage struct {
	*cluster.Cluster
	Scenario *Scenario

	ctx context.Context
	err error
}

// do does something unless something else has failed.
func (s *Stage) do(f func() error) {
	if s.err == nil {
		s.err = f()
	}
}

// Wait waits.
func (s *Stage) Wait(d time.Duration) {
	s.do(func() error { return s.Cluster.Wait(s.ctx, d) })
}

// During does something that is a fault, waits for d, and undoes it. Both are written into the history.
func (s *Stage) During(fault string, d time.Duration, begin, end func() error) {
	s.Note(history.Record{Kind: history.Fault, Note: fault})
	s.do(begin)
	s.Wait(d)
	s.do(end)
	s.Note(history.Record{Kind: history.Mended, Note: fault})
}

// Faulty disturbs the network of some instances for d.
func (s *Stage) Faulty(d time.Duration, f lab.Faults, instances ...*cluster.Instance) {
	set := func(f lab.Faults) func() error {
		return func() error {
			for _, in := range instances {
				if err := in.SetFaults(f); err != nil {
					return err
				}
			}
			return nil
		}
	}
	s.During("network", d, set(f), set(lab.Faults{}))
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

// setFaults disturbs the network of all instances alike.
func (s *Stage) setFaults(f lab.Faults) error {
	for _, in := range s.Instances {
		if err := in.SetFaults(f); err != nil {
			return err
		}
	}
	return nil
}
