// Chaos runs real processes in network namespaces, disturbs them in every way that
// networks, machines and databases are disturbed, and has what they heard
// judged. It needs Linux and root.
//
//	chaos run [-run REGEXP] [-keep FOLDER] [-seed N] [-scale F]
//	chaos list
//
// The exit status is 0 if nothing was violated, 1 if something was, 2 if
// it could not be found out.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/scenario"
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

// command does what the arguments say, and reports whether nothing was violated.
func command(ctx context.Context, args []string, out io.Writer) (good bool, err error) {
	if len(args) == 0 {
		return false, fmt.Errorf("say what to do: run or list")
	}
	flags := flag.NewFlagSet("chaos "+args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	run := flags.String("run", "", "`regexp` that selects scenarios by name; empty: all")
	keep := flags.String("keep", filepath.Join(os.TempDir(), "chaos-histories"), "`folder` for the histories of what fails")
	seed := flags.Uint64("seed", 1, "for what is decided by chance")
	scale := flags.Float64("scale", 1, "factor by which events are raised for longer")
	if err := flags.Parse(args[1:]); err != nil {
		return false, err
	}
	which, err := regexp.Compile(*run)
	if err != nil {
		return false, err
	}
	switch args[0] {
	case "list":
		for _, s := range scenario.Table() {
			fmt.Fprintf(out, "%-22s %s\n", s.Name, s.What)
		}
		return true, nil
	case "run":
		return runAll(ctx, out, which, *keep, *seed, *scale)
	}
	return false, fmt.Errorf("there is no command %q; choose run or list", args[0])
}

// runAll plays the scenarios whose names match, one after the other.
func runAll(ctx context.Context, out io.Writer, which *regexp.Regexp, keep string, seed uint64, scale float64) (good bool, err error) {
	began, played, failed := time.Now(), 0, 0
	for _, s := range scenario.Table() {
		if !which.MatchString(s.Name) {
			continue
		}
		played++
		s.Load = time.Duration(float64(s.Load) * scale)
		o, err := scenario.Run(ctx, s, filepath.Join(keep, fmt.Sprintf("%d-%s", os.Getpid(), s.Name)), seed)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			failed++
			fmt.Fprintf(out, "%-22s could not be played: %v\n", s.Name, err)
			continue
		}
		fmt.Fprintln(out, o)
		if !o.Good() {
			failed++
			fmt.Fprintf(out, "%s  histories and logs: %s\n", o.Explain(), o.Folder)
		}
	}
	if played == 0 {
		return false, fmt.Errorf("no scenario matches %q; chaos list names them", which)
	}
	fmt.Fprintf(out, "%d scenarios, %d failed, %v\n", played, failed, time.Since(began).Round(time.Second))
	return failed == 0, nil
}
