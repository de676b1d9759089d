//go:build linux

package scenario

import (
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/database"
	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/chaos/internal/worker"
)

// Table returns all scenarios, with the defaults of fields that are zero.
func Table() []Scenario {
	lost := Network("lost", func(d lab.Done) uint64 { return d.Dropped })
	reordered := Network("reordered", func(d lab.Done) uint64 { return d.Reordered })
	duplicated := Network("duplicated", func(d lab.Done) uint64 { return d.Duplicated })
	corrupted := Network("corrupted", func(d lab.Done) uint64 { return d.Corrupted })
	// A repair that was asked for too early comes twice; what is sent while an instance joins, it may not need.
	normalDrops := NoDropsBut("before-baseline", "duplicate")
	lossy := func(part float64) func(*Stage) {
		return func(s *Stage) { s.Faulty(s.Scenario.Load, lab.Faults{LossIn: part}, s.Instances...) }
	}
	disorder := func(d lab.Disorder) func(*Stage) {
		return func(s *Stage) { s.Disordered(s.Scenario.Load, d) }
	}
	table := []Scenario{
		{
			Name: "calm-udp", What: "Nothing happens.",
			Expect: []Expectation{NothingMissed, normalDrops},
		},
		{
			Name: "calm-tcp", What: "Nothing happens.", Provider: "tcp", Ordered: true,
			Expect: []Expectation{NothingMissed, normalDrops},
		},
		{
			Name: "loss-1", What: "Each instance loses 1 % of what is sent to it.",
			Play: lossy(0.01), Expect: []Expectation{NothingMissed, lost},
		},
		{
			Name: "loss-5", What: "Each instance loses 5 % of what is sent to it.", Ordered: true,
			Play: lossy(0.05), Expect: []Expectation{NothingMissed, lost},
		},
		{
			Name: "loss-20", What: "Each instance loses 20 % of what is sent to it.", Window: 10 * time.Second,
			Play: lossy(0.2), Expect: []Expectation{NothingMissed, lost},
		},
		{
			Name: "loss-50", What: "Each instance loses half of what is sent to it.", Window: 10 * time.Second,
			Play: lossy(0.5), Expect: []Expectation{MissedAtMost(1e-4), lost},
		},
		{
			Name: "loss-shared", What: "20 % of what is sent reaches nobody.", Window: 10 * time.Second,
			Play: func(s *Stage) {
				s.Faulty(s.Scenario.Load, lab.Faults{LossOut: 0.2}, s.Instances...)
			},
			Expect: []Expectation{NothingMissed, lost},
		},
		{
			Name: "loss-both", What: "Events travel by UDP and TCP at once, and each instance loses 20 %.", Provider: "udp,tcp", Window: 10 * time.Second,
			Play: lossy(0.2), Expect: []Expectation{NothingMissed, lost, Drops("duplicate")},
		},
		{
			Name: "loss-tcp", What: "TCP has to repair a loss of 5 %.", Provider: "tcp",
			Play: lossy(0.05), Expect: []Expectation{NothingMissed, lost},
		},
		{
			Name: "one-way", What: "One instance is deaf to another, which hears it.",
			Play: func(s *Stage) {
				deaf := func(to int) lab.Faults { return lab.Faults{DeafTo: s.Lab.Nodes[to : to+1]} }
				s.Faulty(2*time.Second, deaf(0), s.Instances[1])
				s.Wait(time.Second)
				s.Faulty(7*time.Second, deaf(2), s.Instances[3]) // longer than the window
			},
			Expect: []Expectation{lost},
		},
		{
			Name: "partition", What: "Two instances and three cannot hear each other, for less and for more than the window.",
			Play: func(s *Stage) {
				s.Split(2*time.Second, 2)
				s.Wait(time.Second)
				s.Split(7*time.Second, 2)
			},
			Expect: []Expectation{lost},
		},
		{
			Name: "partition-tcp", What: "One instance is cut off, for less and for more than the window.", Provider: "tcp",
			Play: func(s *Stage) {
				s.Faulty(2*time.Second, lab.Faults{CutEvents: true}, s.Instances[0])
				s.Wait(time.Second)
				s.Faulty(7*time.Second, lab.Faults{CutEvents: true}, s.Instances[1])
			},
			Expect: []Expectation{lost},
		},
		{
			Name: "reorder", What: "A fifth of the packets is overtaken.", Hub: true, Ordered: true,
			Play: disorder(lab.Disorder{Reorder: 0.2}), Expect: []Expectation{NothingMissed, reordered},
		},
		{
			Name: "duplicate", What: "A fifth of the packets comes twice.", Hub: true,
			Play: disorder(lab.Disorder{Duplicate: 0.2}), Expect: []Expectation{NothingMissed, duplicated, Drops("duplicate")},
		},
		{
			Name: "corrupt", What: "5 % of the packets have bytes exchanged, and a checksum that fits.", Hub: true, Window: 10 * time.Second,
			Play: disorder(lab.Disorder{Corrupt: 0.05}), Expect: []Expectation{NothingMissed, corrupted, Drops("bad-tag")},
		},
		{
			Name: "corrupt-tcp", What: "1 % of the packets have bytes exchanged, and a checksum that fits.", Hub: true, Provider: "tcp", Window: 10 * time.Second,
			Play: disorder(lab.Disorder{Corrupt: 0.01}), Expect: []Expectation{corrupted},
		},
		{
			Name: "delay", What: "Packets take 100 to 200 ms and overtake each other.", Hub: true,
			Play:   disorder(lab.Disorder{Delay: 100 * time.Millisecond, Jitter: 100 * time.Millisecond}),
			Expect: []Expectation{NothingMissed},
		},
		{
			Name: "disorder", What: "Delay, reordering, duplicates, corruption and loss, all at once.", Hub: true, Window: 10 * time.Second,
			Play: func(s *Stage) {
				s.Around("disorder",
					func() error {
						return s.Lab.SetDisorder(lab.Disorder{Delay: 5 * time.Millisecond, Jitter: 20 * time.Millisecond, Reorder: 0.1, Duplicate: 0.1, Corrupt: 0.02})
					},
					func() error { return s.Lab.SetDisorder(lab.Disorder{}) },
					func() { s.Faulty(s.Scenario.Load, lab.Faults{LossIn: 0.1}, s.Instances...) })
			},
			Expect: []Expectation{NothingMissed, reordered, duplicated, corrupted, lost},
		},
		{
			Name: "bandwidth", What: "Each instance can send 1 Mbit/s, and for a while less than is raised.",
			Play: func(s *Stage) {
				s.Faulty(5*time.Second, lab.Faults{BitsPerSecond: 1e6}, s.Instances...)
				s.Faulty(3*time.Second, lab.Faults{BitsPerSecond: 1e5}, s.Instances...)
			},
		},
		{
			Name: "kill", What: "Instances are killed, one after the other, and started again.",
			Play: func(s *Stage) {
				for _, in := range s.Instances[:4] {
					s.Dead(time.Second, in)
					s.Wait(time.Second)
				}
			},
		},
		{
			Name: "kill-lossy", What: "Instances are killed and started again while 20 % is lost.", Window: 10 * time.Second,
			Play: func(s *Stage) {
				s.Around("loss",
					func() error { return SetFaults(lab.Faults{LossIn: 0.2}, s.Instances...) },
					func() error { return SetFaults(lab.Faults{}, s.Instances...) },
					func() {
						for _, in := range s.Instances[:3] {
							s.Dead(time.Second, in)
							s.Wait(time.Second)
						}
					})
			},
			Expect: []Expectation{lost},
		},
		{
			Name: "kill-unheard", What: "An instance is killed when half of its last second has reached nobody, nor did any question reach it.",
			Play: func(s *Stage) {
				last := s.Instances[0]
				s.Faulty(time.Second, lab.Faults{LossIn: 1, LossOut: 0.5}, last)
				s.Dead(time.Second, last)
			},
			Expect: []Expectation{lost, SomethingMissed, func(o *Outcome) error {
				if o.Verdict.InDoubt == 0 {
					return errors.New("nobody was told that a gap is open")
				}
				return nil
			}},
		},
		{
			// Member rows, which tell how many events there were, are written every 20 s here.
			Name: "silence", What: "Everybody falls silent while a fifth is lost, so that no later event tells of the last ones.", Lease: time.Minute,
			Play: func(s *Stage) {
				s.Around("loss",
					func() error { return SetFaults(lab.Faults{LossIn: 0.2}, s.Instances...) },
					func() error { return SetFaults(lab.Faults{}, s.Instances...) },
					func() {
						s.Wait(3 * time.Second)
						s.do(func() error { return s.SetRate(0) })
						s.Wait(time.Second)
					})
			},
			Expect: []Expectation{lost, NothingMissed},
		},
		{
			Name: "restart", What: "Instances end in good order, one after the other, and start again.", Provider: "tcp",
			Play: func(s *Stage) {
				for _, in := range s.Instances {
					s.Restart(in)
				}
			},
			Expect: []Expectation{NothingMissed},
		},
		{
			Name: "pause", What: "Instances stand still, for less and for more than window and lease, and go on.",
			Play: func(s *Stage) {
				s.Paused(time.Second, s.Instances[0])
				s.Wait(time.Second)
				s.Paused(9*time.Second, s.Instances[1])
			},
		},
		{
			Name: "database-killed", What: "PostgreSQL is killed, and is back after less and after more than a lease.", Database: database.PostgreSQL,
			Play: func(s *Stage) {
				s.Down(2 * time.Second)
				s.Wait(time.Second)
				s.Down(8 * time.Second)
			},
			Expect: []Expectation{NothingMissed, Reported("isolated")},
		},
		{
			Name: "database-killed-tcp", What: "MariaDB is killed, and instances with it, which start before it is back.", Database: database.MariaDB, Provider: "tcp",
			Play: func(s *Stage) {
				s.During("database killed", 2*time.Second, s.Database.Kill, func() error {
					s.Instances[0].Kill()
					if err := s.Instances[0].Launch(); err != nil {
						return err
					}
					if err := s.Cluster.Wait(s.ctx, time.Second); err != nil {
						return err
					}
					return s.Database.Restore()
				})
				s.Wait(2 * time.Second)
			},
		},
		{
			Name: "database-cut", What: "Two instances cannot reach the database for longer than a lease.", Database: database.PostgreSQL,
			Play: func(s *Stage) {
				s.Faulty(14*time.Second, lab.Faults{CutDatabase: true}, s.Instances[:2]...)
			},
			Expect: []Expectation{lost, NothingMissed, Reported("isolated")},
		},
		{
			Name: "database-locked", What: "The SQLite file is locked for longer than a lease.",
			Play:   func(s *Stage) { s.Locked(14 * time.Second) },
			Expect: []Expectation{NothingMissed, Reported("isolated")},
		},
		{
			Name: "disk-full", What: "The disk with the SQLite file is full for longer than a lease.", DiskBytes: 1 << 20,
			Play:   func(s *Stage) { s.Full(8 * time.Second) },
			Expect: []Expectation{NothingMissed},
		},
		{
			Name: "rotate", What: "The key is rotated under load, again and again.", Load: 30 * time.Second,
			Play:   rotate,
			Expect: []Expectation{NothingMissed, normalDrops},
		},
		{
			Name: "rotate-lossy", What: "The key is rotated while 20 % is lost.", Provider: "udp", Load: 20 * time.Second, Window: 8 * time.Second,
			Play: func(s *Stage) {
				s.Around("loss",
					func() error { return SetFaults(lab.Faults{LossIn: 0.2}, s.Instances...) },
					func() error { return SetFaults(lab.Faults{}, s.Instances...) },
					func() { rotate(s) })
			},
			Expect: []Expectation{NothingMissed, lost},
		},
		{
			Name: "rotate-tcp", What: "The key is rotated under load, and connections with it.", Load: 20 * time.Second, Provider: "tcp", Ordered: true,
			Database: database.PostgreSQL,
			Play:     rotate,
			Expect:   []Expectation{NothingMissed, normalDrops},
		},
		{
			Name: "compromised", What: "The key is declared compromised under load, twice: what was trusted is not any more.", Ordered: true,
			Play: func(s *Stage) {
				for range 2 {
					s.Wait(3 * time.Second)
					s.Around("key compromised",
						func() error { return s.Database.Compromise(s.ctx, worker.Application) },
						func() error { return nil },
						func() { s.Wait(2 * time.Second) })
				}
			},
			Expect: []Expectation{func(o *Outcome) error {
				if o.Renumbered < o.Scenario.Instances {
					return fmt.Errorf("%d new streams, want at least one of each instance", o.Renumbered)
				}
				return nil
			}},
		},
		{
			Name: "database-restored", What: "PostgreSQL comes back with the data of a backup, which does not know an instance that joined later.",
			Database: database.PostgreSQL,
			Play: func(s *Stage) {
				s.During("database copied", 0, s.Database.Kill, func() error {
					return errors.Join(s.Database.Backup(), s.Database.Restore())
				})
				s.Wait(time.Second)
				s.Restart(s.Instances[2]) // the backup has the run before
				s.Wait(2 * time.Second)
				s.During("database restored", 0, s.Database.Kill, func() error {
					return errors.Join(s.Database.RestoreBackup(), s.Database.Restore())
				})
				s.Wait(3 * time.Second)
			},
		},
		{
			Name: "program", What: "The program carillon listens, raises, rotates the key and is killed, among instances at work, while 5 % is lost.",
			Play: playProgram, Expect: []Expectation{NothingMissed, lost},
		},
	}
	for i := range table {
		table[i] = table[i].withDefaults()
	}
	return table
}

// rotate rotates the key for as long as events are raised, to another suite each time. The old key
// verifies for as long as a frame may be repaired.
func rotate(s *Stage) {
	err := s.Rotating(time.Second, s.Scenario.Window+2*time.Second, func() { s.Wait(s.Scenario.Load) })
	s.do(func() error {
		if err == nil && s.outcome.Rotations == 0 {
			err = errors.New("no rotation came to its end")
		}
		return err
	})
}
