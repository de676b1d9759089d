//go:build linux

// Package redisserver runs a Redis server for the benchmark.
package redisserver

import (
	"context"
	"net"
	"path/filepath"
	"syscall"

	"github.com/carillon-go/carillon/bench/internal/opponent/daemon"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// Serve starts a server that saves nothing and cuts no slow subscriber off. It is system.System's Serve.
func Serve(ctx context.Context, s system.Spec) (*system.Server, error) {
	program, err := daemon.Program("redis-server", "/usr/bin/redis-server", "/usr/local/bin/redis-server")
	if err != nil {
		return nil, err
	}
	version, err := daemon.Version(program, "--version")
	if err != nil {
		return nil, err
	}
	folder, err := daemon.NewFolder(s.Dir, "redis", "redis")
	if err != nil {
		return nil, err
	}
	address, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cmd := folder.Command(program, "--bind", host, "--port", port, "--dir", folder.Path, "--daemonize", "no",
		"--save", "", "--appendonly", "no", "--client-output-buffer-limit", "pubsub 0 0 0")
	d, err := daemon.Start(ctx, cmd, filepath.Join(s.Dir, "redis.log"), daemon.Accepts(address))
	if err != nil {
		return nil, err
	}
	return &system.Server{
		Address: address,
		Version: version,
		PIDs:    []int{d.PID()},
		Stop:    func() error { return d.Stop(syscall.SIGTERM) },
	}, nil
}
