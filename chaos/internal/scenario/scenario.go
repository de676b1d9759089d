//go:build linux

// Package scenario says what happens to the instances of a cluster, plays it, and
// has the history judged.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/database"
	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/chaos/internal/worker"
	"github.com/carillon-go/carillon/internal/history"
)

// A Scenario is a cluster and what happens to it. Zero fields have the defaults
// that are given.
type Scenario struct {
	Name string // lower-case words joined by hyphens
	What string // a sentence about it

	Instances int           // 5
	Hub       bool          // packets pass the hub; without it, the kernel's bridge
	Database  database.Kind // SQLite
	DiskBytes int           // of the disk of a SQLite database; 0: no disk of its own
	Provider  string        // "udp", "tcp" or both with a comma; "udp"
	Ordered   bool          // the event is defined so
	Rate      float64       // events a second, all instances together; 500
	Bytes     int           // of the parameter of an event; 200
	Lease     time.Duration // see carillon.Config; 6 s
	Window    time.Duration // MissedAfter, see carillon.Config; 4 s

	// Load is how long events are raised while Play goes on. If Play takes less, the rest
	// is waited for; it can take more. 8 s.
	Load time.Duration

	// Play does what shall be done. It need not undo it. Nil does nothing.
	Play func(*Stage)

	// Look, if set, is called about ten times a second while something is waited for.
	Look func(*cluster.Cluster)

	// Expect lists what must be true of the outcome beside that nothing is violated.
	Expect []Expectation
}

// An Expectation returns an error if the outcome is not as expected.
type Expectation func(*Outcome) error

// An Outcome is what a scenario came to.
type Outcome struct {
	Scenario *Scenario
	Verdict  history.Verdict
	Network  lab.Done          // what was done to packets
	Drops    map[string]uint64 // frames and events dropped by the library, by reason, of processes that lived to the end
	Runs     int               // processes that ran
	Problems []string          // whatever else is wrong
	Took     time.Duration
	Folder   string // histories and logs, if they are kept

	Rotations  int // of the key that came to their end
	Renumbered int // streams that instances took beside their first one
}

// Good reports whether nothing is wrong.
func (o *Outcome) Good() bool { return o.Verdict.Holds() && len(o.Problems) == 0 }

// Violations returns how much is wrong.
func (o *Outcome) Violations() uint64 { return o.Verdict.Broken + uint64(len(o.Problems)) }

// String returns one line.
func (o *Outcome) String() string {
	missed := fmt.Sprintf("%d", o.Verdict.Missed)
	if o.Verdict.Missed > 0 {
		missed += " (" + counts(o.Verdict.Reasons) + ")"
	}
	line := fmt.Sprintf("%-22s %d instances  %7d raises  %8d Raised  Missed %s  %d violations  %.1f s",
		o.Scenario.Name, o.Scenario.Instances, o.Verdict.Raises, o.Verdict.Raised, missed, o.Violations(), o.Took.Seconds())
	if o.Rotations > 0 {
		line += fmt.Sprintf("  %d rotations", o.Rotations)
	}
	return line
}

// counts lists what is not 0, by name.
func counts(by map[string]uint64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if by[name] > 0 {
			list = append(list, fmt.Sprintf("%s %d", name, by[name]))
		}
	}
	return strings.Join(list, ", ")
}

// withDefaults returns s with zero fields replaced.
func (s Scenario) withDefaults() Scenario {
	for _, f := range []struct {
		value *time.Duration
		zero  time.Duration
	}{{&s.Lease, 6 * time.Second}, {&s.Window, 4 * time.Second}, {&s.Load, 8 * time.Second}} {
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	if s.Instances == 0 {
		s.Instances = 5
	}
	if s.Database == "" {
		s.Database = database.SQLite
	}
	if s.Provider == "" {
		s.Provider = "udp"
	}
	if s.Rate == 0 {
		s.Rate = 500
	}
	if s.Bytes == 0 {
		s.Bytes = 200
	}
	return s
}

const (
	// An event must be accounted for within the window, the time after which a
	// heartbeat reveals it, and what a machine with too few processors needs.
	heartbeat = 1500 * time.Millisecond
	slack     = 3 * time.Second

	afterCalm = time.Second // for which events are still raised when the faults have ended
	endSlack  = 500 * time.Millisecond
)

func (s *Scenario) settle() time.Duration { return s.Window + heartbeat + slack }

// Options say how a scenario is played.
type Options struct {
	Keep    string // folder for histories and logs if something is wrong; it must not exist
	Seed    uint64
	Program string // path of the program carillon, which some scenarios run
}

// Run plays s. The error says why it could not be played, or not to its end.
func Run(ctx context.Context, s Scenario, opt Options) (o *Outcome, err error) {
	s = s.withDefaults()
	began := time.Now()
	o = &Outcome{Scenario: &s, Drops: map[string]uint64{}}
	c, err := cluster.New(cluster.Config{
		Instances: s.Instances, Hub: s.Hub, Database: s.Database, DiskBytes: s.DiskBytes, Seed: opt.Seed, Look: s.Look,
		Options: worker.Options{
			Provider: s.Provider, Bytes: s.Bytes, Ordered: s.Ordered, Lease: s.Lease, MissedAfter: s.Window,
		},
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if closing := c.Close(); err == nil {
			err = closing
		}
	}()
	if err = o.play(ctx, c, opt); err == nil {
		err = o.judge(c.Folder)
	}
	o.Took = time.Since(began)
	if err == nil && o.Good() {
		return o, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err() // whoever interrupts it wants no histories
	}
	if keeping := os.CopyFS(opt.Keep, os.DirFS(c.Folder)); keeping == nil {
		o.Folder = opt.Keep
	} else {
		err = errors.Join(err, fmt.Errorf("keep the histories: %w", keeping))
	}
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w; histories and logs: %s", s.Name, err, o.Folder)
	}
	return o, nil
}

// play plays the scenario up to the end of all processes.
func (o *Outcome) play(ctx context.Context, c *cluster.Cluster, opt Options) error {
	s := o.Scenario
	if err := c.Start(ctx, c.Instances...); err != nil {
		return err
	}
	if err := c.SetRate(s.Rate); err != nil {
		return err
	}
	load := time.Now()
	if s.Play != nil {
		stage := &Stage{Cluster: c, Scenario: s, ctx: ctx, program: opt.Program, outcome: o}
		s.Play(stage)
		if stage.err != nil {
			return stage.err
		}
	}
	if err := c.Wait(ctx, s.Load-time.Since(load)); err != nil {
		return err
	}
	o.Network = c.Lab.Done()
	if err := c.Heal(ctx); err != nil {
		return err
	}
	c.Note(history.Record{Kind: history.Calm})
	if err := c.Wait(ctx, afterCalm); err != nil {
		return err
	}
	if err := c.SetRate(0); err != nil {
		return err
	}
	judged := time.Now().Add(s.settle() + endSlack)
	if err := c.Settle(ctx, s.settle()); err != nil {
		o.problem("%v", err)
	}
	if err := c.Wait(ctx, time.Until(judged)); err != nil {
		return err
	}
	for _, in := range c.Instances {
		last, _ := in.Sample()
		for reason, n := range last.Drops {
			o.Drops[reason] += n
		}
		if last.Local != last.Raised {
			o.problem("instance %d raised %d events and told its own subscriber of %d", in.Index, last.Raised, last.Local)
		}
	}
	if err := c.Stop(ctx, c.Instances...); err != nil {
		o.problem("%v", err)
	}
	c.Note(history.Record{Kind: history.End})
	for _, t := range c.Troubles() {
		o.problem("%v", t)
	}
	return ctx.Err()
}

func (o *Outcome) problem(format string, args ...any) {
	o.Problems = append(o.Problems, fmt.Sprintf(format, args...))
}

// judge reads what was written down, and has it judged.
func (o *Outcome) judge(folder string) error {
	paths, err := filepath.Glob(filepath.Join(folder, "*.history"))
	if err != nil {
		return err
	}
	var files [][]history.Record
	for _, p := range paths {
		records, err := history.ReadFile(p)
		if err != nil {
			return err
		}
		files = append(files, records)
		for i := range records {
			if records[i].Kind == history.Renumbered {
				o.Renumbered++
			}
		}
	}
	o.Runs = len(files) - 1 // the harness has one too
	o.Verdict = history.Check(history.Merge(files...), o.Scenario.settle())
	if o.Verdict.Raises == 0 || o.Verdict.Raised == 0 {
		o.problem("nothing was raised, or nothing heard")
	}
	if o.Verdict.Pending > 0 && o.Runs == o.Scenario.Instances {
		o.problem("%d events could not be judged, though all processes lived to the end", o.Verdict.Pending)
	}
	for _, e := range o.Scenario.Expect {
		if err := e(o); err != nil {
			o.problem("%v", err)
		}
	}
	return nil
}

// Explain returns a line for everything that is wrong.
func (o *Outcome) Explain() string {
	var b strings.Builder
	for _, p := range o.Problems {
		fmt.Fprintf(&b, "  %s\n", p)
	}
	for i, v := range o.Verdict.Violations {
		if i == maxExplained {
			fmt.Fprintf(&b, "  and %d more\n", o.Verdict.Broken-maxExplained)
			break
		}
		fmt.Fprintf(&b, "  %v\n", v)
	}
	return b.String()
}

const maxExplained = 10

// MissedAtMost expects that no more than this part of what was told was a miss.
func MissedAtMost(part float64) Expectation {
	return func(o *Outcome) error {
		v := &o.Verdict
		if got := float64(v.Missed) / float64(max(v.Raised+v.Missed, 1)); got > part {
			return fmt.Errorf("missed %d of %d, a part of %.2g; at most %.2g is expected", v.Missed, v.Raised+v.Missed, got, part)
		}
		return nil
	}
}

// NothingMissed is MissedAtMost(0).
func NothingMissed(o *Outcome) error { return MissedAtMost(0)(o) }

// SomethingMissed expects that there were events which nobody could repair.
func SomethingMissed(o *Outcome) error {
	if o.Verdict.Missed == 0 {
		return errors.New("nothing was missed, though something must be")
	}
	return nil
}

// NoDropsBut expects that the library dropped for no reasons but these.
func NoDropsBut(reasons ...string) Expectation {
	return func(o *Outcome) error {
		for reason, n := range o.Drops {
			if n > 0 && !slices.Contains(reasons, reason) {
				return fmt.Errorf("the library dropped: %s", counts(o.Drops))
			}
		}
		return nil
	}
}

// Drops expects that the library dropped something for this reason: the fault has taken place.
func Drops(reason string) Expectation {
	return func(o *Outcome) error {
		if o.Drops[reason] == 0 {
			return fmt.Errorf("nothing was dropped as %s; dropped: %s", reason, counts(o.Drops))
		}
		return nil
	}
}

// Reported expects that OnMissed was told of this reason, with whatever number.
func Reported(reason string) Expectation {
	return func(o *Outcome) error {
		if _, ok := o.Verdict.Reasons[reason]; !ok {
			return fmt.Errorf("no miss was reported as %s", reason)
		}
		return nil
	}
}

// Network expects that something was done to packets.
func Network(what string, count func(lab.Done) uint64) Expectation {
	return func(o *Outcome) error {
		if count(o.Network) == 0 {
			return errors.New("no packet was " + what)
		}
		return nil
	}
}
