//go:build linux

package rabbit

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/carillon-go/carillon/bench/internal/opponent/daemon"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const debianPackage = "rabbitmq-server"

// Serve starts a RabbitMQ, and before it the Erlang port mapper that it asks for other nodes: otherwise it would
// start one itself, on the usual port of every interface, and leave it running.
func Serve(ctx context.Context, s system.Spec) (*system.Server, error) {
	// Not the one in /usr/sbin, which changes the user by itself.
	program, err := daemon.Program(debianPackage, "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	if err != nil {
		return nil, err
	}
	mapper, err := daemon.Program(debianPackage, "/usr/bin/epmd")
	if err != nil {
		return nil, err
	}
	folder, err := daemon.NewFolder(s.Dir, "rabbitmq", "rabbitmq")
	if err != nil {
		return nil, err
	}
	var ports [3]string // of AMQP, of nodes among themselves, of the port mapper
	for i := range ports {
		address, err := daemon.FreeAddress()
		if err != nil {
			return nil, err
		}
		if _, ports[i], err = net.SplitHostPort(address); err != nil {
			return nil, err
		}
	}
	const host = "127.0.0.1"
	epmd, err := daemon.Start(ctx, folder.Command(mapper, "-address", host, "-port", ports[2]),
		filepath.Join(s.Dir, "epmd.log"), daemon.Accepts(net.JoinHostPort(host, ports[2])))
	if err != nil {
		return nil, err
	}
	stopMapper := func() error { return epmd.Stop(syscall.SIGTERM) }

	address := net.JoinHostPort(host, ports[0])
	cmd := folder.Command(program)
	cmd.Env = append(os.Environ(),
		"HOME="+folder.Path, // for the Erlang cookie
		"RABBITMQ_NODENAME=bench-"+ports[0]+"@localhost",
		"RABBITMQ_NODE_IP_ADDRESS="+host,
		"RABBITMQ_NODE_PORT="+ports[0],
		"RABBITMQ_DIST_PORT="+ports[1],
		"ERL_EPMD_ADDRESS="+host,
		"ERL_EPMD_PORT="+ports[2],
		"RABBITMQ_CONF_ENV_FILE="+filepath.Join(folder.Path, "none"), // what is in /etc is not for this one
		"RABBITMQ_CONFIG_FILE="+filepath.Join(folder.Path, "none"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+filepath.Join(folder.Path, "none"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(folder.Path, "plugins"),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(folder.Path, "mnesia"),
		"RABBITMQ_LOG_BASE="+filepath.Join(folder.Path, "log"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} -noinput",
		// The script then becomes the server instead of waiting for it.
		"RABBITMQ_ALLOW_INPUT=1",
	)
	log := filepath.Join(s.Dir, "rabbitmq.log")
	server, err := daemon.Start(ctx, cmd, log, daemon.Prints(log, "Starting broker... completed")) // it listens before
	if err != nil {
		return nil, errors.Join(err, stopMapper())
	}
	return &system.Server{
		Address: address,
		Version: version(program),
		PIDs:    []int{server.PID(), epmd.PID()},
		Stop:    func() error { return errors.Join(server.Stop(syscall.SIGTERM), stopMapper()) },
	}, nil
}

// version reads it off the folder that the program is in.
func version(program string) string {
	_, v, _ := strings.Cut(filepath.Base(filepath.Dir(filepath.Dir(program))), "-")
	return v
}
