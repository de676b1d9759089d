//go:build linux

// Package postgres carries events through PostgreSQL's NOTIFY, many of them in one transaction.
package postgres

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/carillon-go/carillon/bench/internal/opponent/daemon"
	"github.com/carillon-go/carillon/bench/internal/system"
)

const (
	debianPackage = "postgresql"
	superuser     = "postgres"
	channel       = "events"
)

// Systems returns the one.
func Systems() []system.System {
	return []system.System{{
		Name:  "postgres",
		Title: fmt.Sprintf("PostgreSQL NOTIFY, %d per transaction (pgx 5)", perTransaction),
		Note: "one prepared statement that notifies of many events; they travel as base64, for a payload is text; " +
			"fsync and synchronous_commit off; at most once",
		Serve: Serve,
		Publish: func(ctx context.Context, _ system.Spec, address string) (system.Publisher, error) {
			return newPublisher(ctx, address)
		},
		Subscribe: func(ctx context.Context, _ system.Spec, address string, deliver func(event []byte)) (io.Closer, error) {
			return subscribe(ctx, address, deliver)
		},
	}}
}

func dsn(address string) string {
	return fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", superuser, address)
}

// Serve starts a server in a folder of its own.
func Serve(ctx context.Context, s system.Spec) (*system.Server, error) {
	initdb, err := daemon.Program(debianPackage, "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	postgres, err := daemon.Program(debianPackage, "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return nil, err
	}
	version, err := daemon.Version(postgres, "--version")
	if err != nil {
		return nil, err
	}
	folder, err := daemon.NewFolder(s.Dir, "postgres", "postgres")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(folder.Path, "data")
	prepare := folder.Command(initdb, "-D", data, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := prepare.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", initdb, err, out)
	}
	address, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cmd := folder.Command(postgres, "-D", data, "-h", host, "-p", port, "-k", "",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // killed, it would leave shared memory behind
	d, err := daemon.Start(ctx, cmd, filepath.Join(s.Dir, "postgres.log"), func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, dsn(address))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
	if err != nil {
		return nil, err
	}
	return &system.Server{
		Address: address,
		Version: version,
		PIDs:    []int{d.PID()},                                 // a connection is a child of it
		Stop:    func() error { return d.Stop(syscall.SIGINT) }, // clients or not
	}, nil
}
