//go:build linux

// Package natsserver runs nats-server in a process of its own, which is the calling program started again:
// its main function, or TestMain, calls RunIfAsked first.
package natsserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/carillon-go/carillon/bench/internal/opponent/daemon"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// Version is the server's.
const Version = server.VERSION

// Settings says what differs from the server's own settings.
const Settings = "max_pending 1 GiB and write_deadline 10 min, so that the server cuts no slow subscriber off"

const (
	maxPendingBytes = 1 << 30
	writeDeadline   = 10 * time.Minute

	askedFor = "CARILLON_BENCH_NATS_SERVER" // an address to listen on
)

// Start starts a server. It is a system's Serve.
func Start(ctx context.Context, s system.Spec) (*system.Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), askedFor+"="+address)
	d, err := daemon.Start(ctx, cmd, filepath.Join(s.Dir, "nats-server.log"), daemon.Accepts(address))
	if err != nil {
		return nil, err
	}
	return &system.Server{
		Address: address,
		PIDs:    []int{d.PID()},
		Stop:    func() error { return d.Stop(syscall.SIGTERM) },
	}, nil
}

// RunIfAsked runs the server in a process that Start started, and does not return there. Elsewhere it does nothing.
func RunIfAsked() {
	address := os.Getenv(askedFor)
	if address == "" {
		return
	}
	err := run(address)
	fmt.Fprintln(os.Stderr, "nats-server:", err)
	os.Exit(1)
}

func run(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{
		Host: host, Port: number, NoSigs: true,
		MaxPending: maxPendingBytes, WriteDeadline: writeDeadline,
	})
	if err != nil {
		return err
	}
	s.ConfigureLogger() // to standard error: what it says of slow consumers is in the run's folder
	s.Start()
	s.WaitForShutdown()
	return fmt.Errorf("it shut down")
}
