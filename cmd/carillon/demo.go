package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carillon-go/carillon/cmd/internal/fleet"
	"github.com/carillon-go/carillon/cmd/internal/transports"
	"github.com/carillon-go/carillon/examples/cms"
	"github.com/carillon-go/carillon/examples/cms/dashboard"
)

type demoCmd struct {
	Instances int    `default:"2" help:"How many processes, 2 to 16."`
	Provider  string `default:"tcp" help:"What carries the events: tcp, udp, or one whose server the settings name, as in Carillon__Nats__Urls=nats://127.0.0.1:4222 in the environment."`
	Events    string `default:"on" enum:"on,off" help:"With off, nobody tells anybody, and pages go stale."`
	Port      int    `default:"8080" help:"Where the dashboard listens; instance 1 listens on the next port, and so on."`
	Open      bool   `help:"Open the dashboard in the browser."`
}

const (
	demoFolder = "carillon-demo-" // what the names of temporary folders begin with
	demoFile   = "site.db"
	maxDemo    = 16
)

// Help is shown by "carillon demo --help".
func (c *demoCmd) Help() string {
	return "Of the settings, in the environment or in appsettings.json here, it reads Carillon:Standby, which names transports that the site can be moved to while it runs (carillon provider migrate), and the sections of those and of the one in use, such as Carillon:Redis; where its processes listen, it chooses itself. Other settings in the environment are refused; in appsettings.json they are some other program's, and left alone."
}

// Validate is called by the parser.
func (c *demoCmd) Validate() error {
	if c.Instances < 2 || c.Instances > maxDemo {
		return fmt.Errorf("--instances %d is not possible; the demonstration runs 2 to %d", c.Instances, maxDemo)
	}
	if names := transports.Names(); !slices.Contains(names, c.Provider) {
		return fmt.Errorf("--provider %q is not one of %s", c.Provider, strings.Join(names, ", "))
	}
	if c.Port < 1 || c.Port+c.Instances > 65535 {
		return fmt.Errorf("--port %d is not possible: it is the first of %d ports, 1 to %d", c.Port, c.Instances+1, 65535-c.Instances)
	}
	return nil
}

// Run implements the command. It returns nil when ctx ends.
func (c *demoCmd) Run(ctx context.Context, std streams) (err error) {
	settings, err := c.settings(os.Environ())
	if err != nil {
		return err
	}
	ln, err := c.listen()
	if err != nil {
		return err
	}
	defer ln.Close()
	sweepFolders(os.TempDir())
	dir, err := os.MkdirTemp("", demoFolder)
	if err != nil {
		return &problem{exitUnavailable, fmt.Errorf("cannot make a temporary folder: %w", err),
			"set TMPDIR to a folder you may write to"}
	}
	defer func() {
		if e := os.RemoveAll(dir); e != nil && err == nil {
			err = fmt.Errorf("remove the temporary folder: %w", e)
		}
	}()
	release, err := holdFolder(dir)
	if err != nil {
		return &problem{exitUnavailable, fmt.Errorf("cannot lock the temporary folder: %w", err),
			"set TMPDIR to a folder on a file system that has locks"}
	}
	defer release()
	if err := prepare(ctx, filepath.Join(dir, demoFile)); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return &problem{exitDatabase, err, "is there room on the disk that holds " + filepath.Dir(dir) + "?"}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, which the instances run too: %w", err)
	}
	var udpPort int
	if inUse(settings, "udp") {
		if udpPort, err = freeUDPPort(); err != nil {
			return &problem{exitUnavailable, err, "try --provider tcp"}
		}
	}

	instances := make([]dashboard.Instance, c.Instances)
	for i := range instances {
		instances[i] = dashboard.Instance{Index: i + 1, Port: c.Port + i + 1, State: dashboard.Stopped}
	}
	hub := dashboard.NewHub(instances)
	fl := fleet.New(fleet.Config{
		Hub:  hub,
		Warn: func(s string) { fmt.Fprintln(std.err, "carillon: "+s) },
		Command: func(index int) *exec.Cmd {
			cmd := exec.Command(self, "demo-instance",
				"--index", strconv.Itoa(index),
				"--port", strconv.Itoa(c.Port+index),
				"--dashboard-port", strconv.Itoa(c.Port),
				"--folder", dir,
				"--provider", c.Provider,
				"--udp-port", strconv.Itoa(udpPort),
				"--events", c.Events)
			return cmd
		},
	})
	// A second signal does not wait for goodbyes.
	patience, impatient := context.WithCancel(context.Background())
	defer impatient()
	defer func() { fl.Stop(patience) }()

	info := dashboard.Info{Provider: c.Provider}
	if c.Events == "off" {
		info.Provider = ""
	}
	server := &http.Server{
		Handler:           hub.Handler(info, fl.Do, slog.New(slog.DiscardHandler)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	defer func() {
		hub.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}()

	if err := fl.StartAll(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		hint := "if a port is taken, choose others with --port"
		if c.onServer() {
			hint = "" // ports were free a moment ago, and the transport's error says what to do about its server
		}
		return &problem{exitUnavailable, err, hint}
	}
	c.greet(std.out, dir, settings.Standby)
	if c.Open {
		if err := openBrowser(c.url(0)); err != nil {
			fmt.Fprintf(std.err, "carillon: the browser could not be opened: %v; open %s yourself\n", err, c.url(0))
		}
	}

	select {
	case <-ctx.Done():
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(again)
		go func() {
			select {
			case <-again:
				impatient()
			case <-patience.Done():
			}
		}()
		fmt.Fprintln(std.out, "\nStopping.")
		return nil
	case err := <-served:
		return fmt.Errorf("serve the dashboard: %w", err)
	}
}

// onServer reports whether events go through a server that the settings name.
func (c *demoCmd) onServer() bool {
	return c.Events == "on" && c.Provider != "tcp" && c.Provider != "udp"
}

// url returns the address of an instance, or with 0 of the dashboard.
func (c *demoCmd) url(index int) string { return fmt.Sprintf("http://127.0.0.1:%d", c.Port+index) }

func (c *demoCmd) greet(w io.Writer, dir string, standby []string) {
	how := "events over " + c.Provider
	if c.Events == "off" {
		how = "events off"
	}
	fmt.Fprintf(w, "\n  %d processes, one SQLite file, %s\n\n  dashboard   %s\n", c.Instances, how, c.url(0))
	for i := 1; i <= c.Instances; i++ {
		fmt.Fprintf(w, "  instance %-2d %s\n", i, c.url(i))
	}
	fmt.Fprint(w, "\n  Open a page on instance 1, edit it on instance 2, refresh instance 1.\n")
	if c.Events == "on" {
		site := fmt.Sprintf("--database sqlite:%s --site %s", filepath.Join(dir, demoFile), cms.SiteName)
		fmt.Fprintf(w, "  Who is there: %s members %s\n", invocation(), site)
		for _, name := range standby {
			fmt.Fprintf(w, "  Move the events to %s: %s provider migrate %s --overlap 5s %s\n", name, invocation(), name, site)
		}
	}
	fmt.Fprintf(w, "  Ctrl-C stops everything and removes %s.\n\n", dir)
}

// listen takes the dashboard's port, and makes sure that the instances' ports
// are free, so that one sentence says which is not.
func (c *demoCmd) listen() (net.Listener, error) {
	var dash net.Listener
	for i := 0; i <= c.Instances; i++ {
		what := "the dashboard"
		if i > 0 {
			what = fmt.Sprintf("instance %d", i)
		}
		ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", c.Port+i))
		if err != nil {
			if dash != nil {
				dash.Close()
			}
			if errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("port %d, which %s needs, is taken", c.Port+i, what)
			} else {
				err = fmt.Errorf("port %d, which %s needs, cannot be used: %w", c.Port+i, what, err)
			}
			return nil, &problem{exitUnavailable, err, c.otherPorts()}
		}
		if i == 0 {
			dash = ln
		} else {
			ln.Close()
		}
	}
	return dash, nil
}

// otherPorts says which ports were free a moment ago.
func (c *demoCmd) otherPorts() string {
	n := c.Instances + 1
	free := func(port int) bool {
		ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		ln.Close()
		return true
	}
	run := 0
	for port := 18080; port < 18080+1000; port++ {
		if !free(port) {
			run = 0
		} else if run++; run == n {
			return fmt.Sprintf("%d to %d are free: %s demo --instances %d --port %d", port-n+1, port, invocation(), c.Instances, port-n+1)
		}
	}
	return fmt.Sprintf("choose %d free ports in a row by their first, with --port", n)
}

// prepare makes the database before the instances start.
func prepare(ctx context.Context, file string) error {
	db, err := sql.Open("sqlite", cms.DSN(file))
	if err != nil {
		return err
	}
	defer db.Close()
	return cms.Prepare(ctx, db)
}

// freeUDPPort returns a port that nobody used a moment ago, so that two
// demonstrations on one machine do not hear each other.
func freeUDPPort() (int, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free UDP port: %w", err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port, nil
}

// openBrowser shows a page in the person's browser.
func openBrowser(url string) error {
	var name string
	var args []string
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler"}
	default:
		name = "xdg-open"
	}
	cmd := exec.Command(name, append(args, url)...)
	if err := cmd.Start(); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "exec: "))
	}
	go cmd.Wait() // it has no more to say
	return nil
}
