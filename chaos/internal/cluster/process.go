//go:build linux

package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/chaos/internal/worker"
)

// WorkerVariable is set in the environment of a process that shall be a worker: the program that
// uses this package then calls [worker.Run] instead of whatever else it does.
const WorkerVariable = "CARILLON_CHAOS_WORKER"

const maxReport = 1 << 20 // bytes of a line

// A process is one run of an instance.
type process struct {
	run   uint32
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ready chan struct{} // closed when it is in step
	ended chan struct{} // closed when it has ended and was waited for

	mu      sync.Mutex
	sample  worker.Sample
	at      time.Time // when the sample came; zero: none yet
	waiting string    // why it is not ready yet
	fail    string    // its own words
	stopped bool      // it has ended in good order
	killed  bool      // from here
}

// launch starts a worker in a node.
func launch(node *lab.Node, cfg worker.Config) (*process, error) {
	p := &process{run: cfg.Run, ready: make(chan struct{}), ended: make(chan struct{})}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), WorkerVariable+"=1", "GORACE=halt_on_error=1")
	stderr, err := os.Create(filepath.Join(cfg.Folder, fmt.Sprintf("run%03d.stderr", cfg.Run)))
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	p.cmd.Stderr = stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := node.Start(p.cmd); err != nil {
		return nil, fmt.Errorf("cluster: start run %d in node %d: %w", cfg.Run, node.Index, err)
	}
	go p.follow(stdout)
	first, err := json.Marshal(cfg)
	if err == nil {
		_, err = p.stdin.Write(append(first, '\n'))
	}
	return p, err
}

// follow reads what the worker reports until it ends.
func (p *process) follow(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, maxReport)
	for lines.Scan() {
		var r worker.Report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue
		}
		p.mu.Lock()
		switch {
		case r.Ready:
			close(p.ready)
		case r.Sample != nil:
			p.sample, p.at = *r.Sample, time.Now()
		case r.Stopped:
			p.stopped = true
		case r.Fail != "":
			p.fail = r.Fail
		case r.Waiting != "":
			p.waiting = r.Waiting
		}
		p.mu.Unlock()
	}
	io.Copy(io.Discard, stdout)
	p.cmd.Wait()
	p.stdin.Close()
	close(p.ended)
}

func (p *process) say(c worker.Command) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("cluster: run %d does not listen: %w", p.run, errors.Join(err, p.trouble()))
	}
	return nil
}

func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("cluster: send %v to run %d: %w", s, p.run, errors.Join(err, p.trouble()))
	}
	return nil
}

// kill ends it without a word.
func (p *process) kill() {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// latest returns the last sample and when it came.
func (p *process) latest() (worker.Sample, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sample, p.at
}

// trouble returns why a process ended that should not have, or nil.
func (p *process) trouble() error {
	if !p.hasEnded() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.fail != "":
		return fmt.Errorf("run %d failed: %s", p.run, p.fail)
	case p.killed, p.stopped && p.cmd.ProcessState.Success():
		return nil
	}
	return fmt.Errorf("run %d ended with %v; its last words are in run%03d.stderr", p.run, p.cmd.ProcessState, p.run)
}
