//go:build linux

// Package cluster runs the instances of an application as processes in a
// laboratory, and does to them what happens to processes.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/database"
	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/chaos/internal/worker"
	"github.com/carillon-go/carillon/internal/history"
)

// A Config says what cluster to make.
type Config struct {
	Instances int
	Hub       bool // see lab.Config
	Database  database.Kind
	DiskBytes int // see database.Open
	Options   worker.Options
	Seed      uint64

	// Look, if set, is called about ten times a second while Wait waits.
	Look func(*Cluster)
}

const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
)

// A Cluster is a number of instances with their laboratory and their site database. Its methods are
// to be used by one goroutine at a time. Close must be called.
type Cluster struct {
	Lab       *lab.Lab
	Database  *database.Database
	Instances []*Instance
	Random    *rand.Rand // seeded
	Folder    string     // histories and logs; it is removed with the laboratory

	cfg      Config
	journal  *history.Writer
	troubles []error // processes that ended and should not have, and what could not be written
	lastRun  uint32
}

// An Instance is one node with its process, if that runs.
type Instance struct {
	*lab.Node
	Paused bool

	cluster *Cluster
	process *process
	rate    float64
}

// New makes a cluster whose instances do not run yet.
func New(cfg Config) (_ *Cluster, err error) {
	c := &Cluster{cfg: cfg, Random: rand.New(rand.NewPCG(cfg.Seed, 1))}
	if c.Lab, err = lab.New(lab.Config{Nodes: cfg.Instances, Hub: cfg.Hub, Seed: cfg.Seed}); err != nil {
		return nil, err
	}
	c.Folder = filepath.Join(c.Lab.Folder, "histories")
	if err := os.Mkdir(c.Folder, 0o755); err != nil {
		return nil, errors.Join(err, c.Lab.Close())
	}
	if c.journal, err = history.Append(filepath.Join(c.Folder, "harness.history")); err != nil {
		return nil, errors.Join(err, c.Lab.Close())
	}
	if c.Database, err = database.Open(c.Lab, cfg.Database, cfg.DiskBytes); err != nil {
		return nil, errors.Join(err, c.journal.Close(), c.Lab.Close())
	}
	for _, n := range c.Lab.Nodes {
		c.Instances = append(c.Instances, &Instance{Node: n, cluster: c})
	}
	return c, nil
}

// Close kills whatever runs and removes everything.
func (c *Cluster) Close() error {
	for _, in := range c.Instances {
		if in.process != nil {
			in.process.kill()
		}
	}
	return errors.Join(c.Database.Close(), c.journal.Close(), c.Lab.Close())
}

// Start starts instances, all at once, and returns when they are in step.
func (c *Cluster) Start(ctx context.Context, instances ...*Instance) error {
	for _, in := range instances {
		if err := in.Launch(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, in := range instances {
		select {
		case <-in.process.ready:
		case <-in.process.ended:
			return fmt.Errorf("cluster: instance %d did not start: %w", in.Index, in.process.trouble())
		case <-ctx.Done():
			in.process.mu.Lock()
			why := in.process.waiting
			in.process.mu.Unlock()
			return fmt.Errorf("cluster: instance %d is not in step: %w; Open says %q", in.Index, context.Cause(ctx), why)
		}
	}
	return nil
}

// Launch starts the process without waiting until it is in step.
func (in *Instance) Launch() error {
	if in.Running() {
		return fmt.Errorf("cluster: instance %d runs already", in.Index)
	}
	in.bury()
	c := in.cluster
	c.lastRun++
	options := c.cfg.Options
	options.Rate = in.rate
	p, err := launch(in.Node, worker.Config{
		Server: fmt.Sprintf("node%d", in.Index), Run: c.lastRun, Folder: c.Folder,
		Driver: c.Database.Driver, DSN: c.Database.DSN, Options: options,
		Interface: lab.EventInterface, Addr: in.Addr.String(),
	})
	if p != nil {
		in.process, in.Paused = p, false
	}
	return err
}

// bury notes how the process ended.
func (in *Instance) bury() {
	if in.process != nil {
		if err := in.process.trouble(); err != nil {
			in.cluster.troubles = append(in.cluster.troubles, err)
		}
		in.process = nil
	}
}

// Running reports whether the instance has a process.
func (in *Instance) Running() bool { return in.process != nil && !in.process.hasEnded() }

// Ready reports whether the process has come into step, now or earlier.
func (in *Instance) Ready() bool {
	if !in.Running() {
		return false
	}
	select {
	case <-in.process.ready:
		return true
	default:
		return false
	}
}

// PID returns the ID of the process, 0 if there is none.
func (in *Instance) PID() int {
	if !in.Running() {
		return 0
	}
	return in.process.cmd.Process.Pid
}

// Sample returns what the process told last about itself, and when; the zero time if nothing.
func (in *Instance) Sample() (worker.Sample, time.Time) {
	if in.process == nil {
		return worker.Sample{}, time.Time{}
	}
	return in.process.latest()
}

// Kill kills the process as kill -9 does.
func (in *Instance) Kill() {
	if in.process != nil {
		in.process.kill()
		in.cluster.Note(history.Record{Kind: history.Killed, Instance: worker.Instance(in.process.run)})
		in.bury()
		in.Paused = false
	}
}

// Note writes down what the harness does or sees, now.
func (c *Cluster) Note(r history.Record) {
	r.At = time.Duration(time.Now().UnixNano())
	if err := c.journal.Write(&r); err != nil {
		c.troubles = append(c.troubles, err)
	}
}

// Pause stops the process in its tracks.
func (in *Instance) Pause() error {
	if err := in.process.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	in.Paused = true
	in.cluster.Note(history.Record{Kind: history.Frozen, Instance: worker.Instance(in.process.run)})
	return nil
}

// Resume lets a paused process go on.
func (in *Instance) Resume() error {
	in.Paused = false
	in.cluster.Note(history.Record{Kind: history.Thawed, Instance: worker.Instance(in.process.run)})
	return in.process.signal(syscall.SIGCONT)
}

// SetRate has the instance raise so many events a second, also after a restart.
func (in *Instance) SetRate(rate float64) error {
	in.rate = rate
	if !in.Running() {
		return nil
	}
	return in.process.say(worker.Command{Rate: &rate})
}

// SetRate has all instances together raise so many events a second.
func (c *Cluster) SetRate(total float64) error {
	var errs []error
	for _, in := range c.Instances {
		errs = append(errs, in.SetRate(total/float64(len(c.Instances))))
	}
	return errors.Join(errs...)
}

// Stop ends instances in good order, all at once.
func (c *Cluster) Stop(ctx context.Context, instances ...*Instance) error {
	errs := make([]error, len(instances))
	var all sync.WaitGroup
	for i, in := range instances {
		p := in.process
		all.Go(func() { errs[i] = p.stop(ctx) })
	}
	all.Wait()
	for _, in := range instances {
		in.bury()
	}
	return errors.Join(errs...)
}

func (p *process) stop(ctx context.Context) error {
	if err := p.say(worker.Command{Stop: true}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-p.ended:
		return nil // trouble tells how
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("cluster: run %d did not stop: %w", p.run, context.Cause(ctx))
	}
}

// Heal takes every fault away: packets pass, all instances run and none is paused.
func (c *Cluster) Heal(ctx context.Context) error {
	errs := []error{c.Lab.SetDisorder(lab.Disorder{})}
	var dead []*Instance
	for _, in := range c.Instances {
		errs = append(errs, in.SetFaults(lab.Faults{}))
		if in.Paused {
			errs = append(errs, in.Resume())
		}
		if !in.Running() {
			dead = append(dead, in)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.Start(ctx, dead...)
}

// Troubles returns how processes ended that should not have.
func (c *Cluster) Troubles() []error {
	for _, in := range c.Instances {
		if in.process != nil && in.process.hasEnded() {
			in.bury()
		}
	}
	return c.troubles
}

// Wait waits for d, or until ctx ends or a process that should run has ended.
func (c *Cluster) Wait(ctx context.Context, d time.Duration) error {
	end := time.NewTimer(d)
	defer end.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-end.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
			if c.cfg.Look != nil {
				c.cfg.Look(c)
			}
			if t := c.Troubles(); len(t) > 0 {
				return t[0]
			}
		}
	}
}

// Settle returns when every instance has heard or missed everything that is known to exist, or
// an error that says what is open when limit has passed.
func (c *Cluster) Settle(ctx context.Context, limit time.Duration) error {
	since := time.Now()
	end := time.NewTimer(limit)
	defer end.Stop()
	look := time.NewTicker(worker.SampleEvery / 2)
	defer look.Stop()
	var open error
	for {
		if open = c.open(since); open == nil {
			return nil
		}
		select {
		case <-look.C:
		case <-end.C:
			return fmt.Errorf("not settled %v after the last fault: %w", limit, open)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// open returns an error that names something that an instance still waits for, as
// far as samples younger than since tell.
func (c *Cluster) open(since time.Time) error {
	samples := map[*Instance]worker.Sample{}
	for _, in := range c.Instances {
		if !in.Running() {
			continue
		}
		s, at := in.Sample()
		switch {
		case !at.After(since.Add(worker.SampleEvery)):
			return fmt.Errorf("instance %d says nothing", in.Index)
		case !s.Ready:
			return fmt.Errorf("instance %d is not ready", in.Index)
		case s.Backlog > 0 || s.Queued > 0:
			return fmt.Errorf("instance %d has %d events to send and %d to tell", in.Index, s.Backlog, s.Queued)
		}
		samples[in] = s
	}
	for receiver, r := range samples {
		for stream, p := range r.Peers {
			if p.Gaps > 0 || p.Joining || p.Known.Next > p.Complete.Next {
				return fmt.Errorf("instance %d waits for stream %s: %+v", receiver.Index, stream, p)
			}
		}
		for sender, s := range samples {
			if p, ok := r.Peers[s.Stream]; sender != receiver && (!ok || p.Complete.Next != s.Handed.Next) {
				return fmt.Errorf("instance %d does not know all of instance %d: %+v of %+v", receiver.Index, sender.Index, p, s.Handed)
			}
		}
	}
	return nil
}
