//go:build linux

// Chaos runs real processes in network namespaces, disturbs them in every way that
// networks, machines and databases are disturbed, and has what they heard
// judged. It needs Linux and root.
//
//	chaos list
//	chaos run [-run REGEXP] [-scale F] [-parallel N] [-program PATH] [-seed N] [-keep FOLDER]
//	chaos limit [-run REGEXP] [-scale F] [-seed N] [-program PATH] [-keep FOLDER]
//	chaos soak [-minutes F] [-publish FOLDER] [-seed N] [-keep FOLDER]
//
// The exit status is 0 if nothing was violated, 1 if something was, 2 if
// it could not be found out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/scenario"
	"github.com/carillon-go/carillon/chaos/internal/soak"
	"github.com/carillon-go/carillon/chaos/internal/worker"
)

func main() {
	if os.Getenv(cluster.WorkerVariable) != "" {
		os.Exit(worker.Run(os.Stdin, os.Stdout))
	}
	mysql.SetLogger(&mysql.NopLogger{}) // it would write of every server that is killed
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := command(ctx, os.Args[1:], os.Stdout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	case !good:
		os.Exit(1)
	}
}

// settings are how scenarios are played.
type settings struct {
	run      string
	keep     string
	seed     uint64
	scale    float64
	parallel int
	program  string
	minutes  float64
	publish  string
}

const usage = "say what to do: list, run, limit or soak"

// command does what the arguments say, and reports whether nothing was violated.
func command(ctx context.Context, args []string, out io.Writer) (good bool, err error) {
	if len(args) == 0 {
		return false, errors.New(usage)
	}
	var set settings
	flags := flag.NewFlagSet("chaos "+args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&set.keep, "keep", filepath.Join(os.TempDir(), "chaos-histories"), "`folder` for the histories of what fails")
	flags.Uint64Var(&set.seed, "seed", 0, "for what is decided by chance; 0: one is drawn")
	flags.StringVar(&set.run, "run", "", "run: `regexp` that selects scenarios by name; empty: all")
	flags.Float64Var(&set.scale, "scale", 1, "run: factor by which events are raised for longer")
	flags.StringVar(&set.program, "program", "", "run: `path` of the program carillon; empty: beside this one")
	flags.IntVar(&set.parallel, "parallel", 2, "run: scenarios played at a time")
	flags.Float64Var(&set.minutes, "minutes", 30, "soak: how long faults come")
	flags.StringVar(&set.publish, "publish", "", "soak: `folder` of the documentation, for a graph and a summary; empty: none")
	if err := flags.Parse(args[1:]); err != nil {
		return false, err
	}
	if set.seed == 0 {
		set.seed = rand.Uint64N(1 << 32)
	}
	if set.program == "" {
		self, err := os.Executable()
		if err != nil {
			return false, err
		}
		set.program = filepath.Join(filepath.Dir(self), "carillon")
	}
	switch args[0] {
	case "list":
		for _, s := range scenario.Table() {
			fmt.Fprintf(out, "%-22s %s\n", s.Name, s.What)
		}
		return true, nil
	case "run":
		return runAll(ctx, out, set)
	case "limit":
		return findLimits(ctx, out, set)
	case "soak":
		return runSoak(ctx, out, set)
	}
	return false, fmt.Errorf("there is no command %q; %s", args[0], usage)
}

// runSoak has instances run under random faults.
func runSoak(ctx context.Context, out io.Writer, set settings) (good bool, err error) {
	r, err := soak.Run(ctx, out, time.Duration(set.minutes*float64(time.Minute)), set.options("soak"))
	if err != nil {
		return false, err
	}
	fmt.Fprintln(out, r)
	if !r.Good() {
		fmt.Fprintf(out, "%s  seed %d; histories and logs: %s\n", r.Explain(), set.seed, r.Folder)
	}
	if set.publish != "" {
		err = r.Publish(set.publish)
	}
	return r.Good(), err
}

// options say how one scenario is played.
func (set *settings) options(name string) scenario.Options {
	return scenario.Options{Keep: filepath.Join(set.keep, fmt.Sprintf("%d-%s", os.Getpid(), name)), Seed: set.seed, Program: set.program}
}

// selected returns the scenarios whose names match, with events raised for as long as wanted.
func (set *settings) selected() ([]scenario.Scenario, error) {
	which, err := regexp.Compile(set.run)
	if err != nil {
		return nil, err
	}
	var list []scenario.Scenario
	for _, s := range scenario.Table() {
		if which.MatchString(s.Name) {
			s.Load = time.Duration(float64(s.Load) * set.scale)
			list = append(list, s)
		}
	}
	if list == nil {
		return nil, fmt.Errorf("no scenario matches %q; chaos list names them", which)
	}
	return list, nil
}

// findLimits plays scenarios at twice the rate each time, and says at which rate the outcome was still good.
func findLimits(ctx context.Context, out io.Writer, set settings) (good bool, err error) {
	const reached = 0.9 // of the rate: a machine that is too slow raises fewer events
	list, err := set.selected()
	if err != nil {
		return false, err
	}
	for _, s := range list {
		name, highest := s.Name, 0.0
		for ; ; s.Rate *= 2 {
			o, err := scenario.Run(ctx, s, set.options(fmt.Sprintf("%s-%.0f", name, s.Rate)))
			if err != nil {
				return false, err
			}
			fmt.Fprintln(out, o)
			if !o.Good() {
				fmt.Fprint(out, o.Explain())
				break
			}
			if rate := float64(o.Verdict.Raises) / s.Load.Seconds(); rate < reached*s.Rate {
				fmt.Fprintf(out, "  this machine raises no more than %.0f events/s\n", rate)
				break
			}
			highest = s.Rate
		}
		fmt.Fprintf(out, "%s holds up to %.0f events/s\n", name, highest)
		good = good || highest > 0
	}
	return good, nil
}

// runAll plays the scenarios that are selected, several at a time.
func runAll(ctx context.Context, out io.Writer, set settings) (good bool, err error) {
	list, err := set.selected()
	if err != nil {
		return false, err
	}
	began, failed := time.Now(), 0
	var printing sync.Mutex
	var all sync.WaitGroup
	places := make(chan struct{}, max(set.parallel, 1))
	for _, s := range list {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			o, err := scenario.Run(ctx, s, set.options(s.Name))
			printing.Lock()
			defer printing.Unlock()
			switch {
			case ctx.Err() != nil:
			case err != nil:
				failed++
				fmt.Fprintf(out, "%-22s could not be played: %v\n", s.Name, err)
			case o.Good():
				fmt.Fprintln(out, o)
			default:
				failed++
				fmt.Fprintf(out, "%v\n%s  histories and logs: %s\n", o, o.Explain(), o.Folder)
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	fmt.Fprintf(out, "%d scenarios, %d failed, seed %d, %v\n", len(list), failed, set.seed, time.Since(began).Round(time.Second))
	return failed == 0, nil
}
