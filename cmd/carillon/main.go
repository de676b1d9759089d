// Carillon is the program of the event system: it runs the demonstration, and
// raises, listens to and looks at the events of any configured site.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/carillon-go/carillon/cmd/internal/transports"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// A cli is the command line.
type cli struct {
	Demo          demoCmd          `cmd:"" help:"Run the demonstration: a content site in several processes, kept in step."`
	Raise         raiseCmd         `cmd:"" help:"Raise one event for all instances of a site."`
	Listen        listenCmd        `cmd:"" help:"Print the events that a site's instances raise."`
	Members       membersCmd       `cmd:"" help:"List the instances of a site, from its database."`
	Secret        secretCmd        `cmd:"" help:"Look at and change the keys of a site."`
	Provider      providerCmd      `cmd:"" help:"Look at and change what carries the events of a site, while it runs."`
	Subscriptions subscriptionsCmd `cmd:"" help:"Look at what instances have at the services of providers; remove what those left that are gone."`
	Site          siteCmd          `cmd:"" help:"Look at the sites of a database; after it was copied or restored, say so."`
	Version       versionCmd       `cmd:"" help:"Print the version."`

	DemoInstance instanceCmd `cmd:"" hidden:"" help:"One instance of the demonstration; started by demo."`
}

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// Exit codes. They are part of the interface: listed in the help, never changed.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDatabase    = 3
	exitUnavailable = 4
	exitTimeout     = 5
)

const exitCodes = `
Exit codes:
  0  done
  1  failed for a reason not listed here
  2  the command line or the configuration is wrong
  3  the site database cannot be used
  4  something on this machine is not available: a port, a folder, the network
  5  it did not happen in time, or not every instance acknowledged it
`

// A problem is an error with what a person can do about it and the exit code.
type problem struct {
	code int
	err  error
	hint string // what to do next; may be empty
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// quit is what the parser panics with instead of ending the process.
type quit int

// run runs one command line and returns the exit code. When ctx ends, the
// command ends properly.
func run(ctx context.Context, args []string, std streams) (code int) {
	defer func() {
		if q, ok := recover().(quit); ok {
			code = int(q)
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("carillon"),
		kong.Description("Events between all running instances of one application."),
		kong.UsageOnError(),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { panic(quit(code)) }),
		variables(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Help(func(o kong.HelpOptions, k *kong.Context) error {
			if err := kong.DefaultHelpPrinter(o, k); err != nil {
				return err
			}
			_, err := io.WriteString(k.Stdout, exitCodes)
			return err
		}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std, transportMaker(configured)),
	)
	if err != nil {
		panic(err) // the cli type is wrong
	}
	args = arguments(args)
	if err := oneHyphen(parser.Model, args); err != nil {
		return fail(std.err, err)
	}
	k, err := parser.Parse(args)
	if err != nil {
		return fail(std.err, &problem{exitUsage, err, usageHint(err)})
	}
	if err := k.Run(); err != nil {
		return fail(std.err, err)
	}
	return exitOK
}

// variables are what help texts have in place of what package transports knows.
func variables() kong.Vars {
	return kong.Vars{"transports": strings.Join(transports.Names(), ", ")}
}

// said returns what err says, without the names of packages that messages
// begin with: the program's own is in front of them already.
func said(err error) string {
	text := ": " + err.Error()
	for _, name := range []string{"carillon", "keyring", "transports", "site"} {
		text = strings.ReplaceAll(text, ": "+name+": ", ": ")
	}
	return strings.TrimPrefix(text, ": ")
}

// fail prints err and returns its exit code.
func fail(w io.Writer, err error) int {
	fmt.Fprintf(w, "carillon: %s\n", said(err))
	p, ok := errors.AsType[*problem](err)
	if !ok {
		return exitFailed
	}
	if p.hint != "" {
		fmt.Fprintf(w, "       %s\n", p.hint)
	}
	return p.code
}
