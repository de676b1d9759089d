package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/carillon-go/carillon/cmd/internal/fleet"
	"github.com/carillon-go/carillon/examples/cms"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// instanceCmd is one instance of the demonstration. It talks with its parent
// over standard input and output, and ends when the parent does.
type instanceCmd struct {
	Index         int    `required:""`
	Port          int    `required:""`
	DashboardPort int    `required:""`
	Folder        string `required:""`
	Provider      string `required:""`
	UDPPort       int    `name:"udp-port"`
	Events        string `required:""`
}

// shutdownTimeout is how long an instance takes to say goodbye.
const shutdownTimeout = 2 * time.Second

// Run implements the command.
func (c *instanceCmd) Run(ctx context.Context, std streams) error {
	parent := os.Getppid()
	// What is written to a parent that is gone would end this process at once, and its folder would be left.
	signal.Ignore(syscall.SIGPIPE)
	member := fleet.NewMember(std.out)
	release, err := holdFolder(c.Folder)
	if err != nil {
		err = fmt.Errorf("lock the demonstration's folder: %w", err)
		member.Fail(err.Error())
		return err
	}
	defer release()
	asked, err := c.run(ctx, std, member)
	if err != nil {
		member.Fail(err.Error())
	}
	// If the parent is gone, nobody else removes the folder.
	orphan := ctx.Err() == nil && err == nil || os.Getppid() != parent
	if !asked && orphan {
		if strings.HasPrefix(filepath.Base(c.Folder), demoFolder) {
			os.RemoveAll(c.Folder) // the next instance to end tries again
		}
	}
	return err
}

// run returns when the instance has ended, and whether the parent asked for it.
func (c *instanceCmd) run(ctx context.Context, std streams, member *fleet.Member) (asked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log := slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelWarn}))

	ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", c.Port))
	if err != nil {
		return false, fmt.Errorf("listen on port %d: %w", c.Port, errors.Unwrap(err))
	}
	defer ln.Close()
	db, err := sql.Open("sqlite", cms.DSN(filepath.Join(c.Folder, demoFile)))
	if err != nil {
		return false, err
	}
	defer db.Close()

	cfg := cms.Config{
		Index: c.Index, DB: db, DashboardPort: c.DashboardPort,
		Report: member.Report, Logger: log,
	}
	if c.Events == "on" {
		sites, err := sqlsite.New(db)
		if err != nil {
			return false, err
		}
		defer sites.Close()
		cfg.Database = sites
		settings, err := demoSettings(c.Provider, c.UDPPort)
		if err != nil {
			return false, err
		}
		made, err := settings.Config(sites)
		if err != nil {
			return false, err
		}
		cfg.Provider, cfg.Standby = made.Providers[0], made.Standby
	}
	in, err := cms.Open(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer in.Close()

	server := &http.Server{
		Handler:           in.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	defer server.Close()

	member.Counters(in.Counters())
	member.Ready()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		watch(ctx, in, member)
	}()

	obeyed := make(chan bool, 1)
	go func() {
		obeyed <- fleet.Obey(ctx, std.in, fleet.Actions{
			Notice: func() { in.PostNotice(ctx) }, // it reports
			Cut: func() {
				if in.Cut() == nil {
					member.IsCut(true)
				}
			},
			Heal: func() {
				if in.Heal() == nil {
					member.IsCut(false)
				}
			},
		})
	}()
	select {
	case asked = <-obeyed:
	case err = <-served:
		err = fmt.Errorf("serve pages: %w", err)
	}
	cancel()
	<-watching
	if !asked {
		return false, err
	}
	ctx, stop := context.WithTimeout(context.Background(), shutdownTimeout)
	defer stop()
	server.Shutdown(ctx) // a request that takes so long is cut short
	return true, in.Shutdown(ctx)
}

// watch tells the parent what is counted and dropped, and how the provider is, until ctx ends.
func watch(ctx context.Context, in *cms.Instance, member *fleet.Member) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last cms.Counters
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		in.WatchDrops()
		in.WatchProvider()
		member.SumUp()
		if c := in.Counters(); c != last {
			last = c
			member.Counters(c)
		}
	}
}
