//go:build linux

package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/chaos/internal/worker"
)

const (
	programEvent   = "0c2f6a5e-6a0b-4f0e-9a0c-3b1d6e2f7a99" // raised by the program, heard by it alone
	programTimeout = 60 * time.Second
	programRaises  = 5
	exitTimeout    = 5 // of the program: not every instance acknowledged in time
)

// A program is the program carillon, running in a node.
type program struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
	ended    chan struct{} // closed when it has ended; guards the rest
	failed   error
}

// carillon starts the program in the node of an instance, with flags for the site of the cluster.
func (s *Stage) carillon(in *cluster.Instance, joins bool, args ...string) (*program, error) {
	if _, err := os.Stat(s.program); err != nil {
		return nil, fmt.Errorf("the program carillon is not there: %w; make chaos builds it", err)
	}
	args = append(args, "--database", s.Database.Driver+":"+s.Database.DSN, "--site", worker.Application)
	if joins {
		args = append(args, "--provider", s.Scenario.Provider)
	}
	p := &program{cmd: exec.Command(s.program, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "Carillon__Udp__Interface="+lab.EventInterface, "Carillon__Tcp__Listen="+in.Addr.String()+":0")
	p.cmd.Dir = s.Folder // where there are no settings
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if err := in.Node.Start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		p.failed = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// wait waits until the program ends, and returns what it said and its exit code.
func (p *program) wait(ctx context.Context) (out string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.cmd.Process.Kill()
		<-p.ended
		return "", 0, fmt.Errorf("%s: %w", strings.Join(p.cmd.Args, " "), context.Cause(ctx))
	}
	if _, ok := errors.AsType[*exec.ExitError](p.failed); !ok && p.failed != nil {
		return "", 0, p.failed
	}
	return p.out.String(), p.cmd.ProcessState.ExitCode(), nil
}

// carillonSays runs the program to its end, with one of these exit codes.
func (s *Stage) carillonSays(in *cluster.Instance, joins bool, codes []int, args ...string) (string, error) {
	p, err := s.carillon(in, joins, args...)
	if err != nil {
		return "", err
	}
	out, code, err := p.wait(s.ctx)
	if err == nil && !slices.Contains(codes, code) {
		err = fmt.Errorf("%s: exit code %d: %s", strings.Join(p.cmd.Args, " "), code, strings.TrimSpace(p.err.String()))
	}
	return out, err
}

// playProgram has the program carillon listen, raise, rotate keys, and be killed, in a site of instances
// at work and while packets are lost.
func playProgram(s *Stage) {
	var listener *program
	s.do(func() (err error) {
		// Killed without a word, it must hold nobody up.
		killed, err := s.carillon(s.Instances[3], true, "listen")
		if err != nil {
			return err
		}
		if err := s.Cluster.Wait(s.ctx, 2*time.Second); err != nil {
			return err
		}
		killed.cmd.Process.Kill()
		<-killed.ended

		listener, err = s.carillon(s.Instances[4], true, "listen", programEvent, "--json", "--count", fmt.Sprint(programRaises), "--for", "40s")
		if err != nil {
			return err
		}
		return s.Cluster.Wait(s.ctx, 3*time.Second) // it says on standard error that it listens, not when
	})
	s.Around("loss",
		func() error { return SetFaults(lab.Faults{LossIn: 0.05}, s.Instances...) },
		func() error { return SetFaults(lab.Faults{}, s.Instances...) },
		func() {
			s.do(func() error {
				var rotated error
				var rotating sync.WaitGroup
				rotator, err := s.carillon(s.Instances[1], false, "secret", "rotate", "--overlap", "6s", "--force", "--patience", "5s")
				if err != nil {
					return err
				}
				rotating.Go(func() {
					out, code, err := rotator.wait(s.ctx)
					if err == nil && code != 0 {
						err = fmt.Errorf("carillon secret rotate: exit code %d: %s%s", code, out, rotator.err.String())
					}
					rotated = err
				})
				for i := range programRaises {
					if _, err := s.carillonSays(s.Instances[2], true, []int{0, exitTimeout}, "raise", programEvent, fmt.Sprintf("number %d", i)); err != nil {
						rotating.Wait()
						return err
					}
				}
				rotating.Wait()
				return rotated
			})
		})
	s.do(func() error {
		out, code, err := listener.wait(s.ctx)
		if err != nil {
			return err
		}
		var heard []string
		for line := range strings.Lines(out) {
			var h struct{ Kind, Event, Text string }
			if err := json.Unmarshal([]byte(line), &h); err != nil {
				return fmt.Errorf("carillon listen printed %q: %w", line, err)
			}
			heard = append(heard, h.Kind+" "+h.Text)
		}
		slices.Sort(heard)
		var want []string
		for i := range programRaises {
			want = append(want, fmt.Sprintf("raised number %d", i))
		}
		if !slices.Equal(heard, want) || code != 0 {
			s.outcome.problem("carillon listen heard %q, exit code %d: %s", heard, code, listener.err.String())
		}
		keys, err := s.carillonSays(s.Instances[0], false, []int{0}, "secret", "list")
		if err == nil && !strings.Contains(keys, "revoked") {
			s.outcome.problem("carillon secret list does not show the key that was replaced:\n%s", keys)
		}
		return err
	})
}
