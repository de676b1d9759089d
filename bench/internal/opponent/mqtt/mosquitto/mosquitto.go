//go:build linux

// Package mosquitto runs the MQTT server Mosquitto for a run of the benchmark.
package mosquitto

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/carillon-go/carillon/bench/internal/opponent/daemon"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// Settings says what differs from the server's own settings.
const Settings = "max_queued_messages 0, so that the server drops nothing for a slow subscriber"

// Serve starts a server. It is a system's Serve.
func Serve(ctx context.Context, s system.Spec) (*system.Server, error) {
	program, err := daemon.Program("mosquitto", "/usr/sbin/mosquitto")
	if err != nil {
		return nil, err
	}
	folder, err := daemon.NewFolder(s.Dir, "mosquitto", "mosquitto")
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
	settings := []string{"listener " + port + " " + host, "allow_anonymous true", "max_queued_messages 0", "persistence false", "set_tcp_nodelay true"}
	file := filepath.Join(s.Dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(strings.Join(settings, "\n")+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("configuration of mosquitto: %w", err)
	}
	d, err := daemon.Start(ctx, folder.Command(program, "-c", file), filepath.Join(s.Dir, "mosquitto.log"), daemon.Accepts(address))
	if err != nil {
		return nil, err
	}
	return &system.Server{
		Address: address, PIDs: []int{d.PID()},
		Stop: func() error { return d.Stop(syscall.SIGTERM) },
	}, nil
}
