//go:build linux

// Package kafkaserver runs kfake, franz-go's broker for tests, in a process of its own, which is the calling program
// started again: its main function, or TestMain, calls RunIfAsked first. It stands in for Kafka, for which there is no Debian package.
package kafkaserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/carillon-go/carillon/bench/internal/opponent/daemon"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// Settings says what the server is.
const Settings = "the broker is kfake, franz-go's own for tests, which keeps everything in memory, and not Kafka"

const askedFor = "CARILLON_BENCH_KAFKA_SERVER" // a port to listen on

// Serve starts a server. It is a system's Serve.
func Serve(ctx context.Context, s system.Spec) (*system.Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), askedFor+"="+port)
	d, err := daemon.Start(ctx, cmd, filepath.Join(s.Dir, "kfake.log"), daemon.Accepts(address))
	if err != nil {
		return nil, err
	}
	return &system.Server{
		Address: address, PIDs: []int{d.PID()},
		Stop: func() error { return d.Stop(syscall.SIGKILL) }, // it has nothing to put in order
	}, nil
}

// RunIfAsked runs the server in a process that Serve started, and does not return there. Elsewhere it does nothing.
func RunIfAsked() {
	text := os.Getenv(askedFor)
	if text == "" {
		return
	}
	port, err := strconv.Atoi(text)
	if err == nil {
		_, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kfake:", err)
		os.Exit(1)
	}
	select {} // until it is killed
}
