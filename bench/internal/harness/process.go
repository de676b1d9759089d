//go:build linux

package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// grace is how long a child that was told to go has before it is killed.
const grace = 3 * time.Second

// A process is a child. It ends when its standard input does, so it cannot outlive the benchmark, however that
// ends.
type process struct {
	a       assignment
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers chan answer   // closed when the child has ended or closed its end
	ended   chan struct{} // closed when it was waited for
}

// launch starts a child, of another program or, if that is empty, of this one.
func launch(program string, a assignment) (*process, error) {
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	argument, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	p := &process{a: a, answers: make(chan answer, 1), ended: make(chan struct{})}
	p.cmd = exec.Command(program, ChildArgument, string(argument))
	said, err := os.Create(p.saidFile())
	if err != nil {
		return nil, err
	}
	defer said.Close()
	p.cmd.Stdout, p.cmd.Stderr = said, said
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	p.cmd.ExtraFiles = []*os.File{w} // answersFile
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		r.Close()
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	go func() {
		defer r.Close()
		defer close(p.answers)
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var a answer
			if json.Unmarshal(lines.Bytes(), &a) != nil {
				return
			}
			p.answers <- a
		}
	}()
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) saidFile() string {
	return filepath.Join(p.a.Spec.Dir, p.a.name()+".log")
}

// tell gives an order.
func (p *process) tell(o order) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := p.orders.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: %w%s", p.a.name(), err, p.said())
	}
	return nil
}

// hear returns the next answer. The first one comes without an order, when the child is ready for them.
func (p *process) hear(ctx context.Context) (answer, error) {
	select {
	case a, ok := <-p.answers:
		if !ok {
			return a, fmt.Errorf("%s ended early%s", p.a.name(), p.said())
		}
		if err := a.error(); err != nil {
			return a, fmt.Errorf("%s: %w", p.a.name(), err)
		}
		return a, nil
	case <-ctx.Done():
		return answer{}, fmt.Errorf("%s: %w", p.a.name(), context.Cause(ctx))
	}
}

func (p *process) ask(ctx context.Context, o order) (answer, error) {
	if err := p.tell(o); err != nil {
		return answer{}, err
	}
	return p.hear(ctx)
}

// said returns what the child wrote, for an error.
func (p *process) said() string {
	const most = 2000
	b, _ := os.ReadFile(p.saidFile())
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return ""
	}
	return ": " + string(b[:min(len(b), most)])
}

// end makes the child end, by force if it takes too long, and waits for it.
func (p *process) end() {
	p.orders.Close()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for {
		select {
		case _, ok := <-p.answers:
			if ok {
				continue // nobody waits for it any more
			}
			p.answers = nil
		case <-p.ended:
			return
		case <-timer.C:
			p.cmd.Process.Kill()
			<-p.ended
			return
		}
	}
}
