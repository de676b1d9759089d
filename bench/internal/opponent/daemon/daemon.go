//go:build linux

// Package daemon runs the servers of other products for the benchmark: on loopback, in the folder of one
// run, as a user who may run them. None outlives the process that started it.
package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second // of a server; RabbitMQ needs some ten of them on a busy machine
	stopTimeout  = 10 * time.Second // of an orderly end, then it is killed
	retryPause   = 10 * time.Millisecond
)

// A Daemon is a server's process.
type Daemon struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when cmd has ended
}

// Start starts cmd, with what it prints in the file log, and returns when ready returns nil. It calls ready
// again and again, and gives up when the process ends, ctx does, or a minute has passed. When this process
// ends, the other one is sent cmd.SysProcAttr.Pdeathsig, or is killed if that is zero.
func Start(ctx context.Context, cmd *exec.Cmd, log string, ready func(ctx context.Context) error) (*Daemon, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the process has its own
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}

	d := &Daemon{cmd: cmd, log: log, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that began the process, so it is held as long as that.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(d.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	if err := d.await(ctx, ready); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w: %s", cmd.Path, err, d.lastWords()), d.Stop(syscall.SIGKILL))
	}
	return d, nil
}

func (d *Daemon) await(ctx context.Context, ready func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(retryPause)
	defer again.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-d.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		}
	}
}

// lastWords returns the end of what the process printed.
func (d *Daemon) lastWords() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-1000):]))
}

// PID is the process's ID, also after its end.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Stop sends the process a signal that ends it, and waits for its end; after ten seconds it kills it. A
// process that had ended before is an error.
func (d *Daemon) Stop(signal syscall.Signal) error {
	select {
	case <-d.ended:
		return fmt.Errorf("%s had ended too early: %v: %s", d.cmd.Path, d.cmd.ProcessState, d.lastWords())
	default:
	}
	if err := d.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-d.ended:
		return nil
	case <-late.C:
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.ended
	return nil
}

// FreeAddress returns an address on loopback that nobody listened on a moment ago.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Prints returns a function for Start: ready when the process has printed text into the file log.
func Prints(log, text string) func(ctx context.Context) error {
	return func(context.Context) error {
		printed, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if !bytes.Contains(printed, []byte(text)) {
			return fmt.Errorf("it has not yet printed %q", text)
		}
		return nil
	}
}

// Accepts returns a function for Start: ready when the address takes a TCP connection.
func Accepts(address string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
