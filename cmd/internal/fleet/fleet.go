// Package fleet runs the instances of the demonstration as separate processes:
// it starts them, listens to them, and sees to it that none outlives its
// parent.
package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/carillon-go/carillon/examples/cms/dashboard"
)

const (
	startTimeout = 20 * time.Second // from the start of a process to its being ready
	stopTimeout  = 4 * time.Second  // from "stop" to the signal that cannot be caught
)

// A Config says what to run. All fields are required.
type Config struct {
	// Command makes the command of an instance, numbered from 1. Standard input and
	// outputs are the Fleet's.
	Command func(index int) *exec.Cmd

	// Hub knows the instances, and is told what they tell.
	Hub *dashboard.Hub

	// Warn is told in one sentence when an instance ends that nobody asked to end. It may
	// be called concurrently.
	Warn func(string)
}

// A Fleet is a number of processes. It is safe for concurrent use. Stop must be
// called even if Start failed.
type Fleet struct {
	cfg   Config
	spawn chan func() // run by one operating system thread, see spawner

	mu        sync.Mutex
	processes map[int]*process // by index; those that run or have run
	stopping  bool
}

// New returns a fleet without processes.
func New(cfg Config) *Fleet {
	f := &Fleet{cfg: cfg, spawn: make(chan func()), processes: map[int]*process{}}
	go f.spawner()
	return f
}

// spawner starts all processes from one thread that lives until Stop. On Linux
// "tell the child when its parent dies" means the thread, not the process: a
// child started by a thread that the Go runtime later retires would be told too
// early.
func (f *Fleet) spawner() {
	runtime.LockOSThread()
	for fn := range f.spawn {
		fn()
	}
}

// A process is one run of an instance.
type process struct {
	index int
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ready chan struct{} // closed when it is
	done  chan struct{} // closed when it has ended
	words sync.Mutex    // held while a word is written

	mu     sync.Mutex
	asked  bool   // to end
	fail   string // its own words on why it failed
	stderr tail
}

var (
	errNotRunning = errors.New("it is not running")
	errRunning    = errors.New("it is running already")
	errStopping   = errors.New("the demonstration is being stopped")
)

// StartAll starts every instance of the Hub at once and returns when all are ready. If
// one fails the error is about that one.
func (f *Fleet) StartAll(ctx context.Context) error {
	instances := f.cfg.Hub.Instances()
	errs := make(chan error, len(instances))
	for _, in := range instances {
		go func() { errs <- f.Start(ctx, in.Index) }()
	}
	var first error
	for range instances {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Start starts one instance and returns when it is ready.
func (f *Fleet) Start(ctx context.Context, index int) error {
	p, err := f.launch(index)
	if err != nil {
		return err
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.done:
		return fmt.Errorf("instance %d did not start: %s", index, p.why())
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		p.kill()
		return fmt.Errorf("instance %d was not ready within %v and has been killed: %s", index, startTimeout, p.why())
	}
}

// launch starts the process of an instance that has none.
func (f *Fleet) launch(index int) (*process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopping {
		return nil, errStopping
	}
	if p := f.processes[index]; p != nil && !p.ended() {
		return nil, errRunning
	}
	p := &process{index: index, cmd: f.cfg.Command(index), ready: make(chan struct{}), done: make(chan struct{})}
	p.cmd.SysProcAttr = attributes()
	p.cmd.Stderr = &p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	f.spawn <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start instance %d: %w", index, err)
	}
	f.processes[index] = p
	f.cfg.Hub.Update(index, func(in *dashboard.Instance) {
		*in = dashboard.Instance{Index: in.Index, Port: in.Port, State: dashboard.Starting, PID: p.cmd.Process.Pid}
	})
	go f.follow(p, stdout)
	return p, nil
}

// follow reads what a process tells until it ends, and then says that it has.
func (f *Fleet) follow(p *process, stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			continue // not ours: a library that prints
		}
		f.hear(p, l)
	}
	if lines.Err() != nil {
		p.kill() // it writes no lines any more, and would block on a full pipe
	}
	io.Copy(io.Discard, stdout) // to its end, whatever that is
	p.cmd.Wait()                // ProcessState says it all
	p.stdin.Close()             // nobody reads it
	note := p.why()
	f.cfg.Hub.Update(p.index, func(in *dashboard.Instance) {
		in.State, in.PID, in.Cut, in.Note = dashboard.Stopped, 0, false, note
	})
	close(p.done)
	select {
	case <-p.ready:
		if !p.wasAsked() {
			f.cfg.Warn(fmt.Sprintf("instance %d (process %d) ended: %s; start it again on the dashboard", p.index, p.cmd.Process.Pid, note))
		}
	default: // Start tells its caller
	}
}

func (f *Fleet) hear(p *process, l line) {
	switch {
	case l.Ready:
		select {
		case <-p.ready:
		default:
			f.cfg.Hub.Update(p.index, func(in *dashboard.Instance) { in.State = dashboard.Running })
			close(p.ready)
		}
	case l.Report != nil:
		f.cfg.Hub.Report(p.index, *l.Report)
	case l.Counters != nil:
		f.cfg.Hub.Update(p.index, func(in *dashboard.Instance) { in.Counters = *l.Counters })
	case l.Cut != nil:
		f.cfg.Hub.Update(p.index, func(in *dashboard.Instance) { in.Cut = *l.Cut })
	case l.Fail != "":
		p.mu.Lock()
		p.fail = l.Fail
		p.mu.Unlock()
	}
}

// Do does to one instance what a person asked for on the dashboard.
func (f *Fleet) Do(ctx context.Context, index int, a dashboard.Action) error {
	if a == dashboard.Start {
		// The process must live longer than the request that asked for it.
		return f.Start(context.WithoutCancel(ctx), index)
	}
	f.mu.Lock()
	p := f.processes[index]
	f.mu.Unlock()
	if p == nil || p.ended() {
		return errNotRunning
	}
	switch a {
	case dashboard.Notice:
		return p.say(wordNotice)
	case dashboard.Cut:
		return p.say(wordCut)
	case dashboard.Heal:
		return p.say(wordHeal)
	case dashboard.Kill:
		p.kill()
		<-p.done // a process that was killed ends
		return nil
	}
	return fmt.Errorf("there is no action %q", a)
}

// Stop asks all processes to end, kills those that do not within four seconds or
// until ctx ends, and returns when none is left.
func (f *Fleet) Stop(ctx context.Context) {
	f.mu.Lock()
	if f.stopping {
		f.mu.Unlock()
		return
	}
	f.stopping = true
	var all []*process
	for _, p := range f.processes {
		all = append(all, p)
	}
	f.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	for _, p := range all {
		p.mu.Lock()
		p.asked = true
		p.mu.Unlock()
		go p.say(wordStop) // one that does not listen is killed
	}
	for _, p := range all {
		select {
		case <-p.done:
		case <-ctx.Done():
			p.kill()
			<-p.done
		}
	}
	close(f.spawn)
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// say writes a word to the process. It may block while the process does not read.
func (p *process) say(word string) error {
	p.words.Lock()
	defer p.words.Unlock()
	if _, err := io.WriteString(p.stdin, word+"\n"); err != nil {
		return errNotRunning
	}
	return nil
}

func (p *process) kill() {
	p.mu.Lock()
	p.asked = true
	p.mu.Unlock()
	p.cmd.Process.Kill() // it has ended already
}

func (p *process) wasAsked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// why says why the process ended, in words.
func (p *process) why() string {
	p.mu.Lock()
	fail, asked := p.fail, p.asked
	p.mu.Unlock()
	switch {
	case fail != "":
		return fail
	case asked:
		return "It was killed from here."
	}
	why := "it left no word"
	if p.cmd.ProcessState != nil {
		why = p.cmd.ProcessState.String()
	}
	if last := p.stderr.reason(); last != "" {
		why += ": " + last
	}
	return why
}

// A tail keeps what is telling of a process's standard error output. The zero
// tail is ready; it is safe for concurrent use.
type tail struct {
	mu    sync.Mutex
	panic string // the line that begins a panic or a fatal error
	last  string // the last line that says anything
	part  []byte // of a line
}

const maxTail = 500 // bytes of a line that are kept

// Write implements [io.Writer].
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range b {
		if c != '\n' {
			if len(t.part) < maxTail {
				t.part = append(t.part, c)
			}
			continue
		}
		s := strings.TrimSpace(string(t.part))
		t.part = t.part[:0]
		if s != "" {
			t.last = s
		}
		if t.panic == "" && (strings.HasPrefix(s, "panic: ") || strings.HasPrefix(s, "fatal error: ")) {
			t.panic = s
		}
	}
	return len(b), nil
}

// reason returns the most telling line, or "".
func (t *tail) reason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.panic != "" {
		return t.panic
	}
	return t.last
}
