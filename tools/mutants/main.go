// Mutants breaks one mechanism of the source after the other and shows that the
// tests notice.
//
//	mutants [-C DIR] [-run REGEXP] [-check] [-jobs N] [-limit DURATION] [-race] [-md FILE] LIST...
//
// A LIST names the mutants: see the comment on parse for its form. The checkout is
// never touched: go test is given the changed file with -overlay, so several
// mutants run at once, and nothing is left behind when the program is killed.
//
// First the same tests run on the source as it is. They must be green. Then a
// mutant is killed if one of its tests fails, and has survived if none does, which
// is a hole in the tests. One that does not apply, or does not compile, is an error
// and never a kill. The last line says how many there were and how many
// were killed; the exit status is 0 only if all were. With -check nothing is
// tested, and what does not apply is named in a moment.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"time"
)

func main() {
	var o options
	run := flag.String("run", "", "only the mutants whose names match this regular expression")
	flag.StringVar(&o.dir, "C", ".", "folder of the module, or workspace, to test")
	flag.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "mutants tested at once")
	flag.DurationVar(&o.limit, "limit", time.Minute, "time for one run of go test; a test that hangs for so long has failed")
	flag.BoolVar(&o.race, "race", false, "test with the race detector")
	flag.StringVar(&o.table, "md", "", "write what came out to this file, as a table in Markdown")
	check := flag.Bool("check", false, "only say which mutants do not apply any more")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.read(*run, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	if *check {
		if err := o.apply(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := hunt(ctx, os.Stdout, &o); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// options say what to do.
type options struct {
	dir     string
	jobs    int
	limit   time.Duration
	race    bool
	table   string
	mutants []mutant
}

// read reads the lists, and keeps the mutants that pattern selects.
func (o *options) read(pattern string, lists []string) error {
	only, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if len(lists) == 0 {
		return fmt.Errorf("name the lists of mutants")
	}
	file := map[string]string{} // in which a name stood
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			return err
		}
		ms, err := parse(string(text))
		if err != nil {
			return fmt.Errorf("%s:%w", list, err)
		}
		for _, m := range ms {
			if other := file[m.name]; other != "" {
				return fmt.Errorf("%s: a mutant %q stands in %s already", list, m.name, other)
			}
			file[m.name] = list
			if only.MatchString(m.name) {
				o.mutants = append(o.mutants, m)
			}
		}
	}
	if len(o.mutants) == 0 {
		return fmt.Errorf("no mutant matches %q", pattern)
	}
	return nil
}

// apply returns an error that names every mutant that does not apply, or nil.
func (o *options) apply() error {
	var errs []error
	for i := range o.mutants {
		m := &o.mutants[i]
		source, err := os.ReadFile(filepath.Join(o.dir, m.file))
		if err == nil {
			_, err = m.apply(string(source))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("mutant %s: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}

// hunt tests every mutant, also after one has survived, and returns an error unless all
// are killed.
func hunt(ctx context.Context, w io.Writer, o *options) error {
	overlays, err := os.MkdirTemp("", "mutants-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(overlays)

	began := time.Now()
	if err := healthy(ctx, w, o); err != nil {
		return err
	}
	fmt.Fprintf(w, "the source as it is passes in %v\n", time.Since(began).Round(time.Second/10))

	results := make([]result, len(o.mutants))
	var mu sync.Mutex // guards w, done and dead
	done, dead := 0, 0
	next := make(chan int)
	var workers sync.WaitGroup
	for range max(1, o.jobs) {
		workers.Go(func() {
			for i := range next {
				r := try(ctx, o, overlays, &o.mutants[i])
				results[i] = r
				mu.Lock()
				done++
				if r.fate == killed {
					dead++
				}
				fmt.Fprintf(w, "%3d/%d %-8v %-36s %5.1fs  %s\n", done, len(results), r.fate, o.mutants[i].name, r.took.Seconds(), r.by)
				mu.Unlock()
			}
		})
	}
	for i := range o.mutants {
		next <- i
	}
	close(next)
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}

	for i, r := range results {
		if r.fate == killed {
			continue
		}
		m := &o.mutants[i]
		fmt.Fprintf(w, "\n── %v: %s, which breaks: %s\n", r.fate, m.name, m.breaks)
		io.WriteString(w, r.detail)
	}
	if o.table != "" {
		if err := writeTable(o.table, o.mutants, results); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "took %v\n%d mutants, %d killed\n", time.Since(began).Round(time.Second), len(results), dead)
	if dead < len(results) {
		return fmt.Errorf("%d mutants were not killed", len(results)-dead)
	}
	return nil
}
